package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// fault is one way in which a plugin goes wrong, and what the daemon makes of it.
type fault struct {
	name string // of testdata/badplugin
	what string // in words, for the table

	// How it is brought about: killed, stopped or told to misbehave by a signal;
	// with the file of faults of the start beside it, if atStart.
	by      syscall.Signal // 0: its control group is frozen
	atStart bool
	facts   bool   // while the daemon has facts to tell
	options string // how the host runs it

	// says are words of the reason that the daemon gives, "" when the plugin is to
	// go on as if nothing had been; logs are words in the daemon's log.
	says, logs []string
	restarts   uint64 // of the process; more, should a fault of the start be found late
	slow       bool   // it is found by a long deadline: other faults go on meanwhile
}

var faultTable = []fault{
	{name: "kill", what: "SIGKILL", by: syscall.SIGKILL, says: []string{"signal: killed"}, restarts: 1},
	{name: "freeze", what: "SIGSTOP", by: syscall.SIGSTOP, says: []string{"frozen", "a signal has stopped it"}, restarts: 1},
	{name: "suspend", what: "frozen by its control group", says: []string{"frozen", "it sleeps"}, restarts: 1},
	{name: "exit", what: "it ends by itself", by: syscall.SIGUSR1, says: []string{"it exited with status 0"}, restarts: 1},
	{name: "panic", what: "a panic", by: syscall.SIGUSR1, says: []string{"it exited with status 2", "panic: out of its mind"}, restarts: 1},
	{name: "grandchild", what: "SIGKILL, a grandchild holds its standard error", by: syscall.SIGKILL, says: []string{"signal: killed"}, restarts: 1},
	{name: "stdout-before", what: "SIGKILL, prints to standard output before the handshake", by: syscall.SIGKILL,
		says: []string{"signal: killed"}, logs: []string{"printed before the handshake", "--- [cut]"}, restarts: 1},
	{name: "stdout-after", what: "prints to standard output after the handshake", by: syscall.SIGUSR1,
		logs: []string{"printed after the handshake", "written to descriptor 1", "=== [cut]"}},
	{name: "long-line", what: "a log line of 1 MiB", by: syscall.SIGUSR1, logs: []string{"xxx [cut]", "after the long line"}},
	{name: "flood", what: "200,000 log lines at once", by: syscall.SIGUSR1, logs: []string{"plugin logs too much, lines were left out"}},
	{name: "mute", what: "SIGKILL, then no handshake", by: syscall.SIGKILL, atStart: true, options: `start_timeout = "1s"`,
		says: []string{"it was not ready after 1s"}, restarts: 2},
	{name: "older", what: "SIGKILL, then a handshake in an older protocol", by: syscall.SIGKILL, atStart: true,
		says: []string{"it speaks protocol 0", "the oldest that this daemon speaks is 1", "install a newer version of the plugin"}, restarts: 2},
	{name: "newer", what: "SIGKILL, then a handshake in a newer protocol", by: syscall.SIGKILL, atStart: true,
		says: []string{"it speaks protocol 99", "the newest that this daemon speaks is 1", "install a newer daemon"}, restarts: 2},
	{name: "hog", what: "it takes 1 GiB of memory, and may have 64 MiB", by: syscall.SIGUSR1, options: `memory = "64MiB"`,
		says: []string{"it used more memory than it may have", "give it more with plugin { memory = ... }"}, restarts: 1},
	{name: "slow-configure", what: "SIGKILL, then a Configure that never ends", by: syscall.SIGKILL, atStart: true, slow: true,
		says: []string{"configure: it did not answer in time"}, restarts: 2},
	{name: "stall", what: "a stream that stops", by: syscall.SIGUSR1, slow: true, facts: true,
		says: []string{"its stream has stopped"}, restarts: 1},
	{name: "too-large", what: "a message over 4 MiB", by: syscall.SIGUSR1, says: []string{"larger than max"}},
}

func (f fault) plugin() string { return "bad-" + f.name }

// file is where a plugin looks for the order to misbehave at its start.
func (f fault) file() string { return filepath.Join(f.state(), "misbehave") }

// state is the plugin's own directory, as the daemon makes it.
func (f fault) state() string {
	return filepath.Join(harness.StateDir(), "discoverer", f.plugin())
}

// installFaults builds the plugin and gives it a manifest for each fault. It returns
// the configuration that runs them all.
func installFaults(t *testing.T) string {
	t.Helper()
	harness.Build(t)
	dir, err := os.MkdirTemp("", "ebpf-tracer-faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range faultTable {
			err = errors.Join(err, os.RemoveAll(f.state()))
		}
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	kind := filepath.Join(dir, "discoverer")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(kind, 0o755)); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(kind, "badplugin"), "./testdata/badplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the bad plugin: %v\n%s", err, out)
	}
	var hcl strings.Builder
	fmt.Fprintf(&hcl, "plugins { dirs = [%q] }\nprobe \"process\" {}\n", dir)
	fmt.Fprint(&hcl, "exporter \"json\" {\n  path     = \"@DIR@/events.json\"\n  max_size = \"4GiB\"\n  kinds    = [\"process.exec\"]\n}\n")
	for _, f := range faultTable {
		manifest := fmt.Sprintf("plugin \"discoverer\" %q {\n  protocol = 1\n  command  = [\"./badplugin\", %q, %q]\n}\n", f.plugin(), f.name, f.file())
		if err := os.WriteFile(filepath.Join(kind, f.plugin()+".plugin.hcl"), []byte(manifest), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&hcl, "discoverer %q {\n  plugin { %s }\n}\n", f.plugin(), f.options)
	}
	return hcl.String()
}

// logLine is a line of the daemon's log about a plugin.
type logLine struct {
	at    time.Time
	level string
	msg   string
	line  string
}

var logPattern = regexp.MustCompile(`^time=(\S+) level=(\S+) msg=("(?:[^"\\]|\\.)*"|\S+) plugin=(?:discoverer/|"discoverer \\")([a-z-]+)`)

// logOf are the lines about a plugin since a moment.
func logOf(t *testing.T, tr *harness.Tracer, plugin string, since time.Time) (lines []logLine) {
	t.Helper()
	for line := range strings.Lines(tr.Log()) {
		if !strings.Contains(line, plugin) {
			continue
		}
		m := logPattern.FindStringSubmatch(line)
		if m == nil || m[4] != plugin {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, m[1])
		if err != nil {
			t.Fatalf("read the time of %q: %v", line, err)
		}
		if at.Before(since.Truncate(time.Millisecond)) { // as the log has it
			continue
		}
		lines = append(lines, logLine{at, m[2], strings.Trim(m[3], `"`), line})
	}
	return lines
}

// saidOnly is what the daemon said last where something else was waited for.
func saidOnly(lines []logLine) error {
	var b strings.Builder
	for _, l := range lines[max(0, len(lines)-10):] {
		fmt.Fprintf(&b, "\n%.300s", l.line)
	}
	return fmt.Errorf("about the plugin the daemon says:%s", b.String())
}

// bringAbout makes a plugin go wrong and returns when that was.
func (f fault) bringAbout(t *testing.T, tr *harness.Tracer) time.Time {
	t.Helper()
	if f.atStart {
		if err := os.WriteFile(f.file(), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := tr.WaitPlugin("discoverer", f.plugin(), func(p *protov1.PluginView) bool { return p.GetState() == "running" && p.GetPid() != 0 })
	at := time.Now()
	if f.by == 0 {
		freeze(t, int(p.GetPid()))
	} else {
		signal(t, int(p.GetPid()), f.by)
	}
	if f.facts {
		tellFacts(t)
	}
	return at
}

// freeze keeps a process from running by its control group, which shows in no state.
func freeze(t *testing.T, pid int) {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if err := os.WriteFile(filepath.Join(defaultHierarchy(t), path, "cgroup.freeze"), []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("process %d is in no group of the default hierarchy: %s", pid, groups)
}

// tellFacts gives the daemon something to tell: cgroups come and go.
func tellFacts(t *testing.T) {
	t.Helper()
	for n := range 10 {
		dir := filepath.Join(defaultHierarchy(t), fmt.Sprintf("fault-%d-%d", os.Getpid(), n))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // one message each
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// defaultHierarchy is where control groups of version 2 are mounted.
func defaultHierarchy(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("no cgroup2 hierarchy is mounted: the tests need one")
	return ""
}

// judge waits until the daemon has found the fault and is over it.
func (f fault) judge(t *testing.T, tr *harness.Tracer, began time.Time) result {
	t.Helper()
	r := result{Fault: f.what, DetectMS: -1, RecoverMS: -1}
	var found time.Time
	if f.says != nil {
		eventually(t, fmt.Sprintf("the daemon's word %q", f.says), func() error {
			lines := logOf(t, tr, f.plugin(), began)
			for _, l := range lines {
				if (l.level == "WARN" || l.level == "ERROR") && strings.Contains(l.line, "reason=") && hasWords(l.line, f.says) {
					found = l.at
					return nil
				}
			}
			return saidOnly(lines)
		})
		r.DetectMS = float64(found.Sub(began).Microseconds()) / 1000
		if f.atStart {
			if err := os.Remove(f.file()); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "a process that serves", func() error {
			lines := logOf(t, tr, f.plugin(), found)
			for _, l := range lines {
				if l.msg == "plugin is running" {
					r.RecoverMS = float64(l.at.Sub(found).Microseconds()) / 1000
					return nil
				}
			}
			return saidOnly(lines)
		})
	}
	for _, words := range f.logs {
		eventually(t, fmt.Sprintf("%q in the log", words), func() error {
			lines := logOf(t, tr, f.plugin(), time.Time{})
			for _, l := range lines {
				if strings.Contains(l.line, words) {
					return nil
				}
			}
			return saidOnly(lines)
		})
	}
	p := tr.WaitPlugin("discoverer", f.plugin(), func(p *protov1.PluginView) bool {
		return p.GetState() == "running" && p.GetReason() == ""
	})
	r.State, r.Restarts, r.Says = p.GetState(), p.GetRestarts(), p.GetLastError()
	if n := p.GetRestarts(); n < f.restarts || n > f.restarts && !f.atStart {
		t.Errorf("it was started again %d times, want %d: %s", p.GetRestarts(), f.restarts, p.GetLastError())
	}
	if f.restarts > 0 && !hasWords(p.GetLastError(), f.says) {
		t.Errorf("its last error is %q, without %q", p.GetLastError(), f.says)
	}
	if strings.Contains(p.GetLastError(), "goroutine 1 ") {
		t.Errorf("its last error is a stack and no sentence: %q", p.GetLastError())
	}
	// What it told is current again.
	eventually(t, "what it tells", func() error {
		for _, c := range tr.Containers() {
			if c.GetContainer().GetName() == f.plugin() {
				if c.GetStale() {
					return errors.New("its container is marked stale")
				}
				return nil
			}
		}
		return errors.New("its container is not known")
	})
	return r
}

func hasWords(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func TestEachFaultOfAPluginIsFoundAndCuredWhileEveryEventIsTold(t *testing.T) {
	p := load.Build(t)
	tr := harness.Start(t, installFaults(t))
	s := startSteady(t, p)

	var quick, slow []fault
	for _, f := range faultTable {
		if f.slow {
			slow = append(slow, f)
		} else {
			quick = append(quick, f)
		}
	}
	rand.Shuffle(len(quick), func(i, j int) { quick[i], quick[j] = quick[j], quick[i] })
	var results []result
	judge := func(f fault, began time.Time) {
		t.Run(f.name, func(t *testing.T) { results = append(results, f.judge(t, tr, began)) })
	}
	began := make([]time.Time, len(slow))
	for i, f := range slow {
		began[i] = f.bringAbout(t, tr)
	}
	for _, f := range quick {
		judge(f, f.bringAbout(t, tr))
	}
	for i, f := range slow { // the sooner it is found, the earlier in the table
		judge(f, began[i])
	}

	parts, did := s.end()
	ledger := tr.Stop()
	s.check(tr.Events(), parts)
	checkSeen(t, ledger, did)
	t.Logf("during all that %d execs in %.0f s, %.0f a second, each told once", did.Execs, did.Seconds, float64(did.Execs)/did.Seconds)

	// The daemon itself, with a plugin whose grandchild would outlive it.
	tr.Launch()
	tr.WaitPlugins()
	results = append(results, killDaemon(t, tr, p))
	report(t, results)
}

// killDaemon kills the daemon and waits for the end of all that its plugins started.
func killDaemon(t *testing.T, tr *harness.Tracer, p *load.Programs) result {
	t.Helper()
	all := ofFaults(t)
	if len(all) != len(faultTable)+1 {
		t.Fatalf("each plugin has a process, and one a grandchild: %v", all)
	}
	prefix := tag()
	wait := execs(t, p, prefix, 2*rate, rate)
	tr.Until("a part of the load", func(e []harness.Event) bool { return len(byArgument(e, prefix)) > rate/4 })
	killed := time.Now()
	tr.Signal(syscall.SIGKILL)
	eventually(t, "the end of all plugins", func() error {
		if left := slices.DeleteFunc(slices.Clone(all), func(p proc) bool { return !p.alive() }); len(left) > 0 {
			return fmt.Errorf("left are %v", left)
		}
		return nil
	})
	gone := time.Since(killed)
	tr.WaitExit(harness.Patience)
	did := wait()
	told := byArgument(tr.Events(), prefix)
	for arg, n := range told {
		if n != 1 {
			t.Errorf("exec %s was told %d times", arg, n)
		}
	}
	checkNoHole(t, told)
	t.Logf("the daemon was killed when %d of %d execs were told", len(told), did.Execs)
	return result{
		Fault: "the daemon is killed", State: "gone", DetectMS: float64(gone.Microseconds()) / 1000, RecoverMS: -1,
		Says: fmt.Sprintf("%d processes of plugins, 1 of them a grandchild: none is left", len(all)),
	}
}

// ofFaults are the living processes of all bad plugins and those that they started,
// which have one of their files as an argument.
func ofFaults(t *testing.T) (found []proc) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		of := func(f fault) bool { return slices.Contains(strings.Split(string(args), "\x00"), f.file()) }
		if !slices.ContainsFunc(faultTable, of) {
			continue
		}
		if p, err := readProc(pid); err == nil {
			found = append(found, p)
		}
	}
	return found
}
