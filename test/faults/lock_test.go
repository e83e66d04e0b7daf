package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// ownBinaries gives a tracer copies of all programs, which a test may spoil.
func ownBinaries(t *testing.T, tr *harness.Tracer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebpf-tracer-own-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(tr.Binaries.Tracer))); err != nil {
		t.Fatal(err)
	}
	tr.Binaries.Tracer, tr.Binaries.Plugins = filepath.Join(dir, "ebpf-tracer"), filepath.Join(dir, "plugins")
}

func sha(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// addByte puts another program, one byte longer, in the place of a plugin's, as an
// installer would.
func addByte(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	next := path + ".next"
	if err := errors.Join(os.WriteFile(next, append(text, 0), 0o755), os.Rename(next, path)); err != nil {
		t.Fatal(err)
	}
}

func TestAPluginThatIsNotAsLockedNeverRuns(t *testing.T) {
	p := load.Build(t)
	tr := harness.Prepare(t, "probe \"process\" {}\nmesh \"generic\" {}\n")
	ownBinaries(t, tr)
	plugin := tr.Binaries.Plugin("mesh", "generic")
	command := func(args ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), tr.Binaries.Tracer, append(args, "--config", tr.Config)...)
		cmd.Dir = tr.Dir
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	lock := func() {
		t.Helper()
		if out, code := command("plugin", "lock"); code != 0 {
			t.Fatalf("locking ended with status %d:\n%s", code, out)
		}
	}
	// running waits for another process of the plugin and tells what it runs.
	running := func(but uint32) (uint32, string) {
		t.Helper()
		now := tr.WaitPlugin("mesh", "generic", func(v *protov1.PluginView) bool { return v.GetState() == "running" && v.GetPid() != but })
		return now.GetPid(), sha(t, fmt.Sprintf("/proc/%d/exe", now.GetPid()))
	}

	lock()
	first := sha(t, plugin)
	tr.Launch()
	tr.WaitPlugins()
	pid, runs := running(0)
	if runs != first {
		t.Errorf("process %d runs sha256:%s, locked is sha256:%s", pid, runs, first)
	}

	// Replaced while the daemon runs, it is not what is started after a crash.
	addByte(t, plugin)
	second := sha(t, plugin)
	signal(t, int(pid), syscall.SIGKILL)
	if pid, runs = running(pid); runs != first {
		t.Errorf("after a crash process %d runs sha256:%s, locked is sha256:%s", pid, runs, first)
	}
	mark(t, tr, p)
	tr.Stop()

	for _, args := range [][]string{{"run"}, {"plugin", "verify"}} {
		out, code := command(args...)
		for _, want := range []string{tr.Config + ":2:6: Error: Plugin not as locked", "sha256:" + first, "sha256:" + second, "ebpf-tracer plugin lock --config"} {
			if code != 1 || !strings.Contains(out, want) {
				t.Errorf("%v ended with status %d and does not say %q:\n%s", args, code, want, out)
			}
		}
	}
	checkNone(t, tr.Binaries)

	lock()
	tr.Launch()
	tr.WaitPlugins()
	if pid, runs = running(0); runs != second {
		t.Errorf("process %d runs sha256:%s, locked is now sha256:%s", pid, runs, second)
	}
	mark(t, tr, p)
	// Its ledger is not of all that the file holds.
	tr.Signal(syscall.SIGTERM)
	if code := tr.WaitExit(harness.StopsWithin); code != 0 {
		t.Errorf("the daemon ended with status %d:\n%s", code, tr.Log())
	}
}
