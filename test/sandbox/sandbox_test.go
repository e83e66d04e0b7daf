// Package sandbox tests what a plugin that means harm can do: the built daemon runs one
// that tries.
package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// target is what the plugin attacks.
type target struct {
	Daemon   int    `json:"daemon"`
	Outside  string `json:"outside"`
	Victim   string `json:"victim"`
	Abstract string `json:"abstract"`
	Datagram string `json:"datagram"`
	Allowed  string `json:"allowed"`
	TCP      string `json:"tcp"`
	UDP      string `json:"udp"`
	Bomb     int    `json:"bomb"`
	Gentle   bool   `json:"gentle"`

	reached atomic.Int64 // connections to what was not granted
	allowed atomic.Int64 // and to what was
}

// newTarget offers everything to everybody: what stops the plugin is its sandbox, not
// the rights of files.
func newTarget(t *testing.T) *target {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebpf-tracer-victim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	v := &target{Outside: dir, Victim: filepath.Join(dir, "victim"), Allowed: filepath.Join(dir, "allowed")}
	v.Abstract = filepath.Base(dir)
	v.accept(t, "unix", v.Victim, &v.reached)
	v.accept(t, "unix", "@"+v.Abstract, &v.reached)
	v.accept(t, "unix", v.Allowed, &v.allowed)
	v.TCP = v.accept(t, "tcp", "127.0.0.1:0", &v.reached)
	v.UDP = v.receive(t, "udp", "127.0.0.1:0")
	v.Datagram = v.Abstract + "-datagram"
	v.receive(t, "unixgram", "@"+v.Datagram)
	return v
}

// receive counts datagrams at an address until the end of the test.
func (v *target) receive(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, _, err := l.ReadFrom(make([]byte, 64)); err != nil {
				return // closed
			}
			v.reached.Add(1)
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return l.LocalAddr().String()
}

// accept counts connections to an address until the end of the test.
func (v *target) accept(t *testing.T, network, address string, count *atomic.Int64) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(address, "/") {
		if err := os.Chmod(address, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			count.Add(1)
			if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return l.Addr().String()
}

// install builds the hostile plugin into a directory of plugins.
func install(t *testing.T) (dir, program string) {
	t.Helper()
	harness.Build(t)
	dir, err := os.MkdirTemp("", "ebpf-tracer-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Join(harness.StateDir(), "discoverer", "hostile"))); err != nil {
			t.Error(err)
		}
	})
	kind := filepath.Join(dir, "discoverer")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(kind, 0o755)); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(kind, "hostile")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", program, "./testdata/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the hostile plugin: %v\n%s", err, out)
	}
	manifest := "plugin \"discoverer\" \"hostile\" {\n  protocol = 1\n  command  = [\"./hostile\"]\n}\n"
	if err := os.WriteFile(program+".plugin.hcl", []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

// attack runs the daemon with the plugin and returns how its attempts went.
func attack(t *testing.T, plugins string, v *target, options string, extra string) (*harness.Tracer, map[string]string) {
	t.Helper()
	tr := harness.Prepare(t, "")
	tr.SetConfig("probe \"process\" {}\n")
	tr.Launch()
	v.Daemon = tr.PID()
	// The plugin is told the pid of the daemon that it attacks: it comes by a reload.
	tr.SetConfig(fmt.Sprintf(`
probe "process" {}
plugins { dirs = [%q] }
discoverer "hostile" {
  daemon   = %d
  outside  = %q
  victim   = %q
  abstract = %q
  datagram = %q
  tcp      = %q
  udp      = %q
  bomb     = %d
  %s
  plugin { %s }
}
`, plugins, v.Daemon, v.Outside, v.Victim, v.Abstract, v.Datagram, v.TCP, v.UDP, v.Bomb, extra, options))
	tr.Ask("reload")
	return tr, tr.WaitContainer(strings.Repeat("ab", 32)).GetContainer().GetLabels()
}

func TestAHostilePluginIsStoppedAtEachAttempt(t *testing.T) {
	t.Setenv("SECRET_OF_THE_DAEMON", "swordfish")
	plugins, program := install(t)
	v := newTarget(t)
	v.Bomb = 500
	tr, went := attack(t, plugins, v, "\n    processes = 64\n    memory = \"256MiB\"\n", "")

	for name, how := range went {
		switch name {
		case "grandchild", "environment", "open files", "user", "processes seen", "processes started", "fork bomb", "network namespace":
			continue
		}
		t.Logf("%-40s %s", name, how)
		if how == "done" {
			t.Errorf("it could %s", name)
		}
	}
	if len(went) < 35 {
		t.Errorf("it told of %d attempts only: %v", len(went), went)
	}
	for _, name := range []string{"use io_uring", "use bpf", "load a module", "open a perf event", "mount", "ptrace the daemon", "make a user namespace"} {
		if went[name] != "operation not permitted" {
			t.Errorf("%s: the call went further than the filter: %s", name, went[name])
		}
	}
	if how := went["send by one of a pair of sockets"]; how != "address family not supported by protocol" {
		t.Errorf("it has a pair of datagram sockets: %s", how)
	}
	if n := v.reached.Load(); n != 0 {
		t.Errorf("it reached %d things that nobody granted it", n)
	}
	if _, err := os.Lstat(filepath.Join(v.Outside, "hostile")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it wrote outside: %v", err)
	}
	if strings.Contains(went["environment"], "swordfish") {
		t.Errorf("it was given the daemon's environment:\n%s", went["environment"])
	}
	for _, f := range strings.Split(went["open files"], "\n") {
		if !strings.HasPrefix(f, "pipe:") && !strings.HasPrefix(f, "socket:") && !strings.HasPrefix(f, "anon_inode:") && !strings.HasPrefix(f, "/proc/") {
			t.Errorf("it was given an open file: %s", f)
		}
	}
	if uid, err := strconv.Atoi(went["user"]); err != nil || uid < 1<<30 {
		t.Errorf("it runs as user %s", went["user"])
	}
	if n, err := strconv.Atoi(went["processes seen"]); err != nil || n > 3 {
		t.Errorf("it sees %s processes", went["processes seen"])
	}
	if n, err := strconv.Atoi(went["processes started"]); err != nil || n >= 64 || went["fork bomb"] == "" {
		t.Errorf("its fork bomb came to %s processes (%s)", went["processes started"], went["fork bomb"])
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || went["network namespace"] == own || went["network namespace"] == "" {
		t.Errorf("it is in the host's network namespace: %s, %s, %v", went["network namespace"], own, err)
	}
	if went["grandchild"] != "done" {
		t.Errorf("it could not leave a grandchild, so that nothing shows whether that is ended: %s", went["grandchild"])
	}
	if len(left(t, program)) < 10 {
		t.Errorf("its processes are not seen: %v", left(t, program))
	}
	tr.Stop()
	if l := left(t, program); len(l) > 0 {
		t.Errorf("processes %v of it outlive the daemon", l)
	}
}

func TestAPluginReachesTheSocketThatItWasGrantedAndNoOther(t *testing.T) {
	plugins, program := install(t)
	v := newTarget(t)
	tr, went := attack(t, plugins, v, "memory = \"256MiB\"", fmt.Sprintf("allowed = %q", v.Allowed))
	if how := went["connect to its own socket"]; how != "done" || v.allowed.Load() == 0 {
		t.Errorf("its own socket: %s", how)
	}
	for _, name := range []string{
		"connect to a socket of others", "connect to an abstract socket of others", "connect by TCP", "send by UDP",
		"open a unix datagram socket", "send by one of a pair of sockets",
	} {
		t.Logf("%-40s %s", name, went[name])
		if went[name] == "done" || went[name] == "" {
			t.Errorf("%s: %q", name, went[name])
		}
	}
	if n := v.reached.Load(); n != 0 {
		t.Errorf("it reached %d things that nobody granted it", n)
	}
	tr.Stop()
	if l := left(t, program); len(l) > 0 {
		t.Errorf("processes %v of it outlive the daemon", l)
	}
}

func TestAPluginReadsTheDirectoryThatItWasGrantedAndItsSocketInThere(t *testing.T) {
	plugins, program := install(t)
	v := newTarget(t)
	deeper := filepath.Join(v.Outside, "deeper")
	if err := os.Mkdir(deeper, 0o755); err != nil {
		t.Fatal(err)
	}
	v.Allowed = filepath.Join(deeper, "allowed")
	v.accept(t, "unix", v.Allowed, &v.allowed)
	tr, went := attack(t, plugins, v, "", fmt.Sprintf("allowed = %q\n  shown = %q", v.Allowed, deeper))
	if went["read what it was granted"] != "done" || went["connect to its own socket"] != "done" {
		t.Errorf("it read its directory: %s; connected to its socket: %s", went["read what it was granted"], went["connect to its own socket"])
	}
	if how := went["write to a directory that it reads"]; how == "done" || how == "" {
		t.Errorf("it wrote into what it may read: %q", how)
	}
	tr.Stop()
	if l := left(t, program); len(l) > 0 {
		t.Errorf("processes %v of it outlive the daemon", l)
	}
}

func TestTheAttemptsSucceedWhereNothingStopsThem(t *testing.T) {
	_, program := install(t)
	v := newTarget(t)
	v.Daemon, v.Gentle = os.Getpid(), true
	in, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "attempt")
	cmd.Stdin, cmd.Env = bytes.NewReader(in), append(os.Environ(), "TMPDIR="+t.TempDir())
	raw, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var went map[string]string
	if err := json.Unmarshal(raw, &went); err != nil {
		t.Fatal(err)
	}
	for name, how := range went {
		// What of init a process may see is the host's matter.
		if how != "done" && name != "read /etc/shadow through init" {
			t.Errorf("%s: %s", name, how)
		}
	}
	if v.reached.Load() < 4 || v.allowed.Load() != 1 {
		t.Errorf("it reached %d victims, and %d times what is its own", v.reached.Load(), v.allowed.Load())
	}
	for _, pid := range left(t, program) { // what it executed left one behind
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func TestThePlanSaysWhatARunningPluginGets(t *testing.T) {
	plugins, program := install(t)
	v := newTarget(t)
	dangerous := filepath.Join(v.Outside, "docker.sock") // known by its name
	v.accept(t, "unix", dangerous, &v.allowed)
	tr, _ := attack(t, plugins, v, "memory = \"256MiB\"", fmt.Sprintf("allowed = %q", dangerous))
	out := plan(t, tr, "-o", "json")
	var planned struct {
		Probes []struct {
			Name, State string
			Unseen      []string
		}
		Plugins []struct {
			Kind, Name     string
			User           uint32
			Asks, Granted  []string
			Applied        []string
			NotApplied     []string `json:"not_applied"`
			RootEquivalent string   `json:"root_equivalent"`
		}
	}
	if err := json.Unmarshal([]byte(out), &planned); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(planned.Probes) != 1 || planned.Probes[0].State != "attached" || len(planned.Probes[0].Unseen) == 0 {
		t.Errorf("probes are %+v", planned.Probes)
	}
	checked := 0
	for _, p := range planned.Plugins {
		is := tr.WaitPlugin(p.Kind, p.Name, func(p *protov1.PluginView) bool { return p.GetState() == "running" }).GetSandbox()
		if !slices.Equal(p.Applied, is.GetApplied()) || !slices.Equal(p.NotApplied, is.GetNotApplied()) || !slices.Equal(p.Granted, is.GetGranted()) || p.User != is.GetUid() {
			t.Errorf("%s: the plan says %+v, it is %v", p.Name, p, is)
		}
		if p.Name != "hostile" {
			if p.RootEquivalent != "" {
				t.Errorf("%s is root-equivalent: %s", p.Name, p.RootEquivalent)
			}
			continue
		}
		checked++
		if !strings.Contains(p.RootEquivalent, dangerous) || !slices.Contains(p.Granted, "socket "+dangerous) || !slices.Contains(p.Applied, "at most 256 MiB of memory") {
			t.Errorf("the plan of the plugin is %+v", p)
		}
		if len(p.Asks) != 1 || !strings.HasPrefix(p.Asks[0], "socket "+dangerous+", as ") || !strings.Contains(p.Asks[0], ":") {
			t.Errorf("it asks for %q", p.Asks)
		}
	}
	if checked != 1 {
		t.Errorf("plugins of the plan are %+v", planned.Plugins)
	}
	before := len(left(t, program))
	plan(t, tr)
	if now := len(left(t, program)); now != before {
		t.Errorf("%d processes of the plugin ran before another plan, %d after", before, now)
	}
	tr.Stop()
}

// plan runs the program's plan of the daemon's configuration.
func plan(t *testing.T, tr *harness.Tracer, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tr.Binaries.Tracer, append([]string{"plan", "--config", tr.Config}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// left are the processes that run a program, or a copy of it.
func left(t *testing.T, program string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range all {
		to, err := os.Readlink(link)
		if err != nil {
			continue // gone, or a thread of the kernel
		}
		to = strings.TrimSuffix(to, " (deleted)")
		if base := filepath.Base(to); base == filepath.Base(program) || base == "copy" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}
