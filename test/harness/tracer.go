package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long the harness waits for what must come to pass. A busy machine may
// need much of it; a sound daemon never needs all.
const Patience = 60 * time.Second

// StopsWithin is the daemon's promise of how soon it is gone after SIGTERM.
const StopsWithin = 5 * time.Second

// Tracer is one configuration and the daemon that runs it.
type Tracer struct {
	Binaries Binaries
	Dir      string // its own, gone at the end
	Config   string // the configuration file
	Socket   string // of the local API
	JSON     string // the file of the exporter json, unless the configuration names another

	// Output is the daemon's standard output; nil: a file, which Stdout reads.
	Output *os.File
	// Through is a command that becomes the daemon, given the daemon's own command
	// line after its own; nil: none.
	Through []string

	t       testing.TB
	hcl     string
	command *exec.Cmd
	exited  chan struct{} // closed when it is reaped
	traces  chan struct{} // closed when it said that it traces
	log     *logBuffer
	apiConn
	lines lineReader
}

// Start runs the daemon on a configuration and waits until it traces and every plugin
// of the configuration is at work, with the sampler's policy in force. The daemon ends
// with the test at the latest.
//
// The configuration is hcl, with @DIR@ for the daemon's own directory, and what tests
// want unless hcl says otherwise: a node named "e2e", a socket and a JSON file in
// that directory, the sampler "fixed" that keeps everything, and a budget and
// thresholds that leave it at that.
func Start(t testing.TB, hcl string) *Tracer {
	t.Helper()
	tr := Prepare(t, hcl)
	tr.Launch()
	tr.WaitPlugins()
	return tr
}

// Prepare writes the configuration and starts nothing.
func Prepare(t testing.TB, hcl string) *Tracer {
	t.Helper()
	b := Build(t)
	dir, err := os.MkdirTemp(ramDisk(), "ebpf-tracer-test-")
	if err != nil {
		t.Fatalf("make a directory for the daemon: %v", err)
	}
	tr := &Tracer{
		Binaries: b, Dir: dir,
		Config: filepath.Join(dir, "config.hcl"), Socket: filepath.Join(dir, "api.sock"),
		JSON: filepath.Join(dir, "events.json"),
		t:    t,
	}
	t.Cleanup(func() {
		if tr.Running() {
			tr.Kill()
			if !t.Failed() {
				t.Error("the daemon was not ended by the test, so that nobody looked at its ledger: call Stop")
			}
		}
		tr.closeAPI(t)
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", tail(tr.Log(), 60))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the daemon's directory: %v", err)
		}
	})
	tr.SetConfig(hcl)
	return tr
}

// SetConfig writes another configuration, as Start describes, for the next Launch.
func (tr *Tracer) SetConfig(hcl string) {
	tr.t.Helper()
	tr.hcl = withDefaults(strings.ReplaceAll(hcl, "@DIR@", tr.Dir), tr.Socket, tr.JSON)
	if err := os.WriteFile(tr.Config, []byte(tr.hcl), 0o600); err != nil {
		tr.t.Fatalf("write the configuration: %v", err)
	}
}

func withDefaults(hcl, socket, json string) string {
	for _, d := range []struct{ word, block string }{
		{`node`, `node { name = "e2e" }`},
		{`api`, fmt.Sprintf("api { socket = %q }", socket)},
		{`exporter\s+"json"`, fmt.Sprintf("exporter \"json\" {\n  path     = %q\n  max_size = \"4GiB\"\n}", json)},
		{`sampler`, `sampler "fixed" { rate = 1 }`},
		// Everything is kept, however much it is and however busy this machine.
		{`budget`, `budget { events_per_second = 10000000 }`},
		{`load`, "load {\n  cpu_threshold     = 0\n  memory_threshold  = 0\n  network_threshold = 0\n  disk_threshold    = 0\n}"},
	} {
		if !regexp.MustCompile(`(?m)^\s*` + d.word + `[\s{"]`).MatchString(hcl) {
			hcl += "\n" + d.block
		}
	}
	return hcl + "\n"
}

// ramDisk is a directory in memory, where there is one.
func ramDisk() string {
	const shm = "/dev/shm"
	if info, err := os.Stat(shm); err == nil && info.IsDir() {
		return shm
	}
	return ""
}

// Launch starts the daemon and waits until it traces. After it has ended, it may be
// launched again.
func (tr *Tracer) Launch() {
	tr.t.Helper()
	tr.start()
	select {
	case <-tr.traces:
	case <-tr.exited:
		tr.t.Fatalf("the daemon ended before it traced (%v):\n%s", tr.command.ProcessState, tr.Log())
	case <-time.After(Patience):
		tr.t.Fatalf("the daemon does not trace after %v:\n%s", Patience, tr.Log())
	}
}

// start starts the daemon and waits for nothing.
func (tr *Tracer) start() {
	tr.t.Helper()
	if tr.Running() {
		tr.t.Fatal("the daemon is running already")
	}
	stdout, err := os.OpenFile(filepath.Join(tr.Dir, "stdout"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer stdout.Close()
	read, write, err := os.Pipe()
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.command = exec.Command(tr.Binaries.Tracer, "run", "--config", tr.Config)
	if len(tr.Through) > 0 {
		tr.command = exec.Command(tr.Through[0], append(slices.Clone(tr.Through[1:]), tr.command.Args...)...)
	}
	tr.command.Dir = tr.Dir
	tr.command.Stdout, tr.command.Stderr = stdout, write
	if tr.Output != nil {
		tr.command.Stdout = tr.Output
	}
	// Should the test die, the daemon is not to outlive it.
	tr.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	tr.exited, tr.traces = make(chan struct{}), make(chan struct{})
	tr.log = &logBuffer{}
	started := make(chan error)
	go func(command *exec.Cmd, log *logBuffer, exited, traces chan struct{}) {
		// The kernel takes the end of the thread that forked for the parent's.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := errors.Join(command.Start(), write.Close())
		started <- err
		if err != nil {
			return
		}
		defer close(exited)
		log.read(read, traces)
		_ = command.Wait() // its ProcessState says how it ended
	}(tr.command, tr.log, tr.exited, tr.traces)
	if err := <-started; err != nil {
		tr.command = nil
		tr.t.Fatal(errors.Join(fmt.Errorf("start the daemon: %w", err), read.Close()))
	}
}

// Running tells whether the daemon was launched and has not ended.
func (tr *Tracer) Running() bool {
	if tr.command == nil {
		return false
	}
	select {
	case <-tr.exited:
		return false
	default:
		return true
	}
}

// PID of the daemon.
func (tr *Tracer) PID() int { return tr.command.Process.Pid }

// Signal sends the daemon a signal.
func (tr *Tracer) Signal(s syscall.Signal) {
	tr.t.Helper()
	if err := tr.command.Process.Signal(s); err != nil {
		tr.t.Fatalf("signal the daemon: %v", err)
	}
}

// Kill ends the daemon by SIGKILL, as a crash would, and checks that no plugin outlives
// it.
func (tr *Tracer) Kill() {
	tr.t.Helper()
	left, err := descendants(tr.PID())
	if err != nil {
		tr.t.Error(err)
	}
	tr.Signal(syscall.SIGKILL)
	tr.WaitExit(Patience)
	tr.checkGone(left)
}

// WaitExit waits until the daemon is gone and returns its exit status; -1 when a signal
// ended it. When it is not gone in time the test fails with the daemon's stacks.
func (tr *Tracer) WaitExit(within time.Duration) int {
	tr.t.Helper()
	select {
	case <-tr.exited:
	case <-time.After(within):
		_ = tr.command.Process.Signal(syscall.SIGQUIT) // prints the stacks
		select {
		case <-tr.exited:
		case <-time.After(within):
			_ = tr.command.Process.Kill()
			<-tr.exited
		}
		tr.t.Fatalf("the daemon was still there after %v:\n%s", within, tr.Log())
	}
	return tr.command.ProcessState.ExitCode()
}

// Stop ends the daemon as an operator does, by SIGTERM, and checks what it promises
// about its end: that it is gone in time with status 0 and no plugin left, and that the
// ledger that it prints closes and agrees with the lines that it wrote. It returns the
// ledger.
func (tr *Tracer) Stop() *Ledger {
	tr.t.Helper()
	left, err := descendants(tr.PID())
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.Signal(syscall.SIGTERM)
	if code := tr.WaitExit(StopsWithin); code != 0 {
		tr.t.Fatalf("the daemon ended with status %d:\n%s", code, tr.Log())
	}
	tr.checkGone(left)
	if groups, err := controlGroups(tr.PID()); err != nil || len(groups) > 0 {
		tr.t.Errorf("the daemon left its plugins' control groups %v (%v)", groups, err)
	}
	ledger, err := ParseLedger(tr.Log())
	if err != nil {
		tr.t.Fatalf("%v:\n%s", err, tr.Log())
	}
	for _, wrong := range ledger.Check() {
		tr.t.Errorf("the ledger: %s", wrong)
	}
	tr.checkLines(ledger)
	return ledger
}

// checkGone checks that processes end.
func (tr *Tracer) checkGone(left []process) {
	tr.t.Helper()
	deadline := time.Now().Add(Patience)
	for _, p := range left {
		for p.alive() {
			if time.Now().After(deadline) {
				tr.t.Errorf("process %d (%s) outlives the daemon", p.pid, p.exe)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// checkLines holds the ledger against the lines in the JSON file.
func (tr *Tracer) checkLines(l *Ledger) {
	tr.t.Helper()
	x, ok := l.Exporters["json"]
	if !ok {
		return // the configuration has no such exporter
	}
	if info, err := os.Stat(tr.JSON); err != nil || !info.Mode().IsRegular() || x.Failed > 0 {
		return // written elsewhere, or in parts
	}
	events := tr.Events()
	if int64(len(events)) != x.Exported {
		tr.t.Errorf("the file has %d lines, %d were exported", len(events), x.Exported)
	}
	if x.QueueDropped > 0 || l.Malformed > 0 || regexp.MustCompile(`kinds\s*=`).MatchString(tr.hcl) {
		return // then a class may have fewer lines than it kept
	}
	lines := map[Class]int64{}
	for i := range events {
		lines[Class{events[i].Kind, events[i].Priority}]++
	}
	for class, c := range l.Rows {
		if !strings.HasPrefix(class.Kind, "cgroup.") && lines[class] != c.Kept {
			tr.t.Errorf("%v: %d were kept, the file has %d", class, c.Kept, lines[class])
		}
		delete(lines, class)
	}
	if len(lines) > 0 {
		tr.t.Errorf("the file has lines of which the ledger knows nothing: %v", lines)
	}
}

// PluginPID finds the process of a plugin; 0 when there is none now.
func (tr *Tracer) PluginPID(kind, name string) int {
	tr.t.Helper()
	all, err := descendants(tr.PID())
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, p := range all {
		if tr.Binaries.PluginOf(p.pid) == tr.Binaries.Plugin(kind, name) {
			return p.pid
		}
	}
	return 0
}

// Log is what the daemon wrote on standard error since it was last launched.
func (tr *Tracer) Log() string {
	if tr.log == nil {
		return ""
	}
	return tr.log.String()
}

// Stdout is what the daemon wrote on standard output.
func (tr *Tracer) Stdout() string {
	tr.t.Helper()
	b, err := os.ReadFile(filepath.Join(tr.Dir, "stdout"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tr.t.Fatal(err)
	}
	return string(b)
}

// logBuffer is what a daemon writes on standard error.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// read reads until the other end is closed, and closes traces when the daemon says that
// it traces.
func (l *logBuffer) read(from io.ReadCloser, traces chan struct{}) {
	defer from.Close()
	r := bufio.NewReader(from)
	told := false
	for {
		line, err := r.ReadString('\n')
		l.mu.Lock()
		l.b.WriteString(line)
		l.mu.Unlock()
		if !told && (strings.Contains(line, "msg=tracing") || strings.Contains(line, `"msg":"tracing"`)) {
			told = true
			close(traces)
		}
		if err != nil {
			return
		}
	}
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
