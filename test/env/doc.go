// Package env puts real container runtimes on the machine for a test and takes them off
// again.
//
// Why it exists: what the tracer says about containers is only believed when real
// runtimes made them. These are those of the distribution's packages (Install), or, where
// it has none, built from their published Go modules (BuildServers); images are made here,
// from a static busybox, since no registry is to be had, and everything that is written
// lies in one directory of its own below Root.
//
// What a runtime leaves on a machine is owned by the environment that started it, and
// its Close takes all of it away: containers, processes, mounts, cgroups, directories.
// An environment whose process died without Close is cleaned when the next one starts.
// Several may run at the same time, in one process or in many.
//
// It must never touch a daemon, container, mount, cgroup or packet rule that it did not
// make. Containers have no network unless [WithBridge] asks for one, and then the bridge
// and its packet rules are in a network namespace of their own, not in the machine's.
package env

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Root holds the state of every environment, and nothing that outlives one.
const Root = "/var/tmp/ebpf-tracer-test"

// systemPath is where the distribution's commands are. /usr/local is left out on
// purpose: what is there is not the distribution's.
var systemPath = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

//go:embed install.sh
var installScript string

//go:embed runc-wrap.sh
var runcWrapScript string

// Install installs the distribution's packages that this package, the load programs and
// the kernel tests need, as the script install.sh beside this file does. Where all are
// there it does nothing, at the price of some milliseconds; else it needs root.
func Install(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "bash", "-s")
	cmd.Stdin = strings.NewReader(installScript)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install packages: %w\n%s", err, tail(string(out), 20))
	}
	return nil
}

// command finds one of the distribution's commands.
func command(name string) (string, error) {
	for _, dir := range systemPath {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s in %s: run test/env/install.sh", name, strings.Join(systemPath, ", "))
}

// commandEnv is the environment of every command and daemon started here: nothing of the
// user's own docker settings.
func commandEnv(extra ...string) []string {
	return append([]string{
		"PATH=" + strings.Join(systemPath, ":"),
		"HOME=/root",
		"LC_ALL=C.UTF-8",
	}, extra...)
}

// tail returns the last n lines of a text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
