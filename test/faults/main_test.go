// Package faults breaks what the tracer depends on, while it works, and holds what it
// then tells against what really happened: plugins and the daemon itself are killed, a
// dockerd is killed, stopped in its tracks and comes back, a disk is full, a reader of
// the output hangs or leaves.
//
// Every test runs the built binaries and real processes. None of them is judged by a
// clock, but for the one promise about time that the daemon makes: that it is gone five
// seconds after SIGTERM.
package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the fault tests need root: the daemon loads programs into the kernel")
		os.Exit(1)
	}
	if err := env.Install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var tags atomic.Int64

// tag is a word that no other process on the machine has as an argument.
func tag() string {
	return fmt.Sprintf("fault-%d-%d-%d:", os.Getpid(), time.Now().UnixNano(), tags.Add(1))
}

// withDocker is a configuration that finds the containers of a dockerd.
func withDocker(socket, more string) string {
	return fmt.Sprintf("probe \"process\" {}\ndiscoverer \"docker\" {\n  host    = \"unix://%s\"\n  timeout = \"1s\"\n}\n%s", socket, more)
}

// execs runs a load of execs in the background, each with an argument of its own that
// begins with prefix. wait gives its own count.
func execs(t *testing.T, p *load.Programs, prefix string, n, rate int) (wait func() load.ExecCounts) {
	t.Helper()
	type result struct {
		counts load.ExecCounts
		err    error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { // done holds the only result: it never waits for a reader
		args := []string{"-n", fmt.Sprint(n), "-p", "2", "-a", prefix}
		if rate > 0 {
			args = append(args, "-r", fmt.Sprint(rate))
		}
		c, err := p.RunExec(ctx, append(args, p.Noop)...)
		done <- result{c, err}
	}()
	return func() load.ExecCounts {
		t.Helper()
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.counts
	}
}

// byArgument are how often each exec of the load was found.
func byArgument(events []harness.Event, prefix string) map[string]int {
	found := map[string]int{}
	for i := range events {
		e := &events[i]
		if e.Kind != "process.exec" {
			continue
		}
		for _, a := range e.Process.Args[min(1, len(e.Process.Args)):] {
			if len(a) > len(prefix) && strings.HasPrefix(a, prefix) {
				found[a]++
			}
		}
	}
	return found
}

// checkOnce checks that each exec of a load was told exactly once.
func checkOnce(t *testing.T, events []harness.Event, prefix string, did load.ExecCounts) {
	t.Helper()
	found := byArgument(events, prefix)
	wrong := 0
	for i := range did.Execs {
		if n := found[fmt.Sprintf("%s%06d", prefix, i)]; n != 1 {
			if wrong++; wrong <= 5 {
				t.Errorf("exec %06d was told %d times", i, n)
			}
		}
	}
	if wrong > 5 {
		t.Errorf("and %d more of %d", wrong-5, did.Execs)
	}
	if int64(len(found)) != did.Execs {
		t.Errorf("%d different execs were told, the load made %d", len(found), did.Execs)
	}
}

// checkSeen checks that a ledger has at least what a load did, that it kept all of it,
// and that nothing was lost. What is filtered is the daemon's own.
func checkSeen(t *testing.T, l *harness.Ledger, did load.ExecCounts) {
	t.Helper()
	for kind, n := range map[string]int64{"process.fork": did.Forks, "process.exec": did.Execs, "process.exit": did.Exits} {
		if c := l.Kind(kind); c.Kept < n || c.SampledOut != 0 {
			t.Errorf("the ledger of %s is %+v, the load alone made %d", kind, c, n)
		}
	}
	if lost := l.Sum().Lost; lost != 0 {
		t.Errorf("%d events were lost", lost)
	}
}

// mark runs a program on the host with an argument of its own and waits until its exec
// was written: whatever the daemon goes through, events flow.
func mark(t *testing.T, tr *harness.Tracer, p *load.Programs) {
	t.Helper()
	word := tag() + "mark"
	if out, err := exec.CommandContext(t.Context(), p.Noop, word).CombinedOutput(); err != nil {
		t.Fatalf("run a program: %v: %s", err, out)
	}
	tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return e.Arg(word) })
}

// eventually waits until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(harness.Patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// signal sends a signal to a process that is not a child of the test's.
func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if pid == 0 {
		t.Fatal("there is no such process")
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatalf("signal process %d: %v", pid, err)
	}
}

// proc is a process that can't be taken for another one that later gets its pid.
type proc struct {
	pid   int
	start string
	exe   string
}

func readProc(pid int) (p proc, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 20 {
		return p, fmt.Errorf("read /proc/%d/stat: too few fields", pid)
	}
	if f[0] == "Z" || f[0] == "X" {
		return p, os.ErrProcessDone
	}
	p = proc{pid: pid, start: f[19]}
	p.exe, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return p, err
}

func (p proc) alive() bool {
	now, err := readProc(p.pid)
	return err == nil && now.start == p.start
}

// pluginProcs are the living processes of the plugins of a build.
func pluginProcs(t *testing.T, b harness.Binaries) []proc {
	t.Helper()
	found, err := findPlugins(b)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func findPlugins(b harness.Binaries) (found []proc, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(dir, "/proc/%d", &pid); err != nil {
			continue
		}
		if p, err := readProc(pid); err == nil && b.PluginOf(pid) != "" {
			found = append(found, p)
		}
	}
	return found, nil
}

// checkNone checks that no plugin of a build lives, which may take the kernel a moment.
func checkNone(t *testing.T, b harness.Binaries) {
	t.Helper()
	eventually(t, "the end of all plugins", func() error {
		if left := pluginProcs(t, b); len(left) > 0 {
			return fmt.Errorf("still there: %v", left)
		}
		return nil
	})
}

// pluginGroups are the control groups of plugins that the daemon of a pid made.
func pluginGroups(t *testing.T, pid int) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			found, err := filepath.Glob(filepath.Join(f[1], "ebpf-tracer", fmt.Sprintf("*-%d-*", pid)))
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
	}
	t.Fatal("no cgroup2 hierarchy is mounted: the tests need one")
	return nil
}

// instances are the directories of plugins' sockets.
func instances(t *testing.T, tr *harness.Tracer) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(tr.Socket + ".plugins")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}
