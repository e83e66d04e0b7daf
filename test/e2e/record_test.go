package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/recording"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// recorder is 'ebpf-tracer record' at work.
type recorder struct {
	*exec.Cmd
	file           string
	stdout, stderr bytes.Buffer
}

// startRecord runs the command until it records.
func startRecord(t *testing.T, args ...string) *recorder {
	t.Helper()
	r := &recorder{file: filepath.Join(t.TempDir(), "host.trace")}
	r.Cmd = exec.CommandContext(t.Context(), harness.Build(t).Tracer, append([]string{"record", "--output", r.file}, args...)...)
	r.Stdout = &r.stdout
	stderr, err := r.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		fmt.Fprintln(&r.stderr, lines.Text())
		if strings.HasPrefix(lines.Text(), "recording ") {
			return r
		}
	}
	t.Fatalf("it does not record: %v: %s", r.Wait(), r.stderr.String())
	return nil
}

// end waits for the end and gives the exit status.
func (r *recorder) end(t *testing.T) int {
	t.Helper()
	err := r.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return r.ProcessState.ExitCode()
}

// interrupt is Ctrl-C.
func (r *recorder) interrupt(t *testing.T) int {
	t.Helper()
	if err := r.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	return r.end(t)
}

// readRecording reads all of one.
func readRecording(t *testing.T, file string) (recording.Header, []recording.Event) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := recording.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []recording.Event
	for {
		var e recording.Event
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return r.Header(), all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
}

// inCgroup runs a load program in a cgroup of its own.
func inCgroup(t *testing.T, name, program string, args ...string) {
	t.Helper()
	dir, err := os.Open(makeCgroup(t, filepath.Join(cgroupRoot(t), fmt.Sprintf("e2e-record-%d-%s", os.Getpid(), name))))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("run %s: %v: %s", program, err, out)
	}
}

// counts of a group's events, by kind.
type counts map[event.Kind]int

// groups counts the events of each.
func groups(events []recording.Event) map[uint32]counts {
	all := map[uint32]counts{}
	for _, e := range events {
		if all[e.Group] == nil {
			all[e.Group] = counts{}
		}
		all[e.Group][e.Kind]++
	}
	return all
}

// theGroup finds the only one with so many events of a kind.
func theGroup(t *testing.T, events []recording.Event, kind event.Kind, n int) (number uint32, of counts) {
	t.Helper()
	for g, c := range groups(events) {
		if g != 0 && c[kind] == n {
			if of != nil {
				t.Fatalf("groups %d and %d have %d of %s", number, g, n, kind)
			}
			number, of = g, c
		}
	}
	if of == nil {
		t.Fatalf("no group has %d of %s: %v", n, kind, groups(events))
	}
	return number, of
}

func TestARecordingHasWhatTheLoadDid(t *testing.T) {
	programs := load.Build(t)
	opened := filepath.Join(t.TempDir(), "a-file-with-a-name")
	if err := os.WriteFile(opened, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRecord(t, "--duration", "10m")
	const execs, opens = 1713, 5021
	inCgroup(t, "exec", programs.Exec, "-n", fmt.Sprint(execs), "-a", "a-word-among-the-arguments", programs.Noop)
	inCgroup(t, "open", programs.Open, "-n", fmt.Sprint(opens), "-t", "1", opened)
	if status := r.interrupt(t); status != 0 {
		t.Fatalf("status %d: %s", status, r.stderr.String())
	}
	h, events := readRecording(t, r.file)
	t.Logf("%s%+v", r.stdout.String(), h)
	if !h.Complete || h.Lost != 0 || h.Events != uint64(len(events)) || h.Duration <= 0 || h.Duration > 5*time.Minute {
		t.Errorf("%+v of %d events", h, len(events))
	}
	if want := fmt.Sprintf("%s: %d events of ", r.file, h.Events); !strings.HasPrefix(r.stdout.String(), want) {
		t.Errorf("it says %q, want %q", r.stdout.String(), want)
	}

	// The program itself is one more of each.
	group, did := theGroup(t, events, event.ProcessExec, execs+1)
	if did[event.ProcessFork] != execs+1 || did[event.ProcessExit] != execs+1 {
		t.Errorf("%d execs: %v", execs, did)
	}
	lives, attributes := map[uint64][]event.Kind{}, map[uint16]int{}
	for _, e := range events {
		if e.Group == group && e.Lifecycle != 0 {
			lives[e.Lifecycle] = append(lives[e.Lifecycle], e.Kind)
		}
		if e.Group == group && e.Kind == event.ProcessExec {
			attributes[e.Attribute]++
		}
	}
	if len(lives) != execs+1 {
		t.Errorf("%d processes have %d lives", execs+1, len(lives))
	}
	for life, kinds := range lives {
		if fmt.Sprint(kinds) != "[process.fork process.exec process.exit]" {
			t.Errorf("life %d is %v", life, kinds)
		}
	}
	if len(attributes) != 2 {
		t.Errorf("two programs have attributes %v", attributes)
	}
	if _, did := theGroup(t, events, event.FileOpen, opens); did[event.ProcessExec] != 1 {
		t.Errorf("%d opens: %v", opens, did)
	}
	unreadable(t, r.file, "a-file-with-a-name", "a-word-among", "openload", "noop", "e2e-record")

	// It is a scenario.
	f, err := os.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := simulation.FromRecording("mine", f)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range s.Events(1) {
		n++
	}
	if n != len(events) {
		t.Errorf("a scenario of %d events, the recording has %d", n, len(events))
	}
}

// unreadable checks that words are not in a recording.
func unreadable(t *testing.T, file string, words ...string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const header = 40
	zip, err := gzip.NewReader(bytes.NewReader(b[header:]))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if bytes.Contains(b, []byte(w)) || bytes.Contains(plain, []byte(w)) {
			t.Errorf("the recording has %q", w)
		}
	}
}

func TestConnectionsAreRecordedWithOneLifeForEachSide(t *testing.T) {
	programs := load.Build(t)
	r := startRecord(t, "--duration", "10m", "--probes", "network")
	before := time.Now()
	did, err := programs.RunTCP(t.Context(), "pairs", "-n", "300")
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(before)
	if status := r.interrupt(t); status != 0 {
		t.Fatalf("status %d: %s", status, r.stderr.String())
	}
	h, events := readRecording(t, r.file)
	if h.Duration < took {
		t.Errorf("it lasted %v, the load %v", h.Duration, took)
	}
	sum := counts{}
	lives := map[uint64]counts{}
	services := map[uint64][]uint16{}
	for _, e := range events {
		sum[e.Kind]++
		if e.Lifecycle == 0 {
			continue
		}
		if lives[e.Lifecycle] == nil {
			lives[e.Lifecycle] = counts{}
		}
		lives[e.Lifecycle][e.Kind]++
		services[e.Lifecycle] = append(services[e.Lifecycle], e.Attribute)
	}
	for kind, n := range map[event.Kind]int64{event.NetworkConnect: did.Connects, event.NetworkAccept: did.Accepts, event.NetworkClose: did.Closes} {
		if int64(sum[kind]) < n { // others may connect too
			t.Errorf("%d of %s, the load alone made %d", sum[kind], kind, n)
		}
	}
	for _, kind := range []event.Kind{event.ProcessFork, event.ProcessExec, event.FileOpen} {
		if sum[kind] > 0 {
			t.Errorf("there are %d of %s, which nobody asked for", sum[kind], kind)
		}
	}
	whole := 0
	for life, c := range lives {
		if c[event.NetworkConnect]+c[event.NetworkAccept] == 1 && c[event.NetworkClose] == 1 {
			whole++
			if s := services[life]; s[0] != s[1] {
				t.Errorf("life %d begins with attribute %d and ends with %d", life, s[0], s[1])
			}
		}
	}
	if int64(whole) < did.Connects+did.Accepts {
		t.Errorf("%d connections are whole, want at least %d", whole, did.Connects+did.Accepts)
	}
}

func TestARecordingThatLostEventsSaysSo(t *testing.T) {
	programs := load.Build(t)
	dir := t.TempDir()
	opened := filepath.Join(dir, "file")
	config := filepath.Join(dir, "small.hcl")
	for path, text := range map[string]string{opened: "", config: "probe \"file\" {}\nkernel { ring_size = \"64KiB\" }\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := startRecord(t, "--duration", "10m", "--config", config)
	if err := r.Process.Signal(syscall.SIGSTOP); err != nil { // and the ring runs over
		t.Fatal(err)
	}
	did, err := programs.RunOpen(t.Context(), "-n", "20000", "-t", "1", opened)
	if err := errors.Join(err, r.Process.Signal(syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	status := r.interrupt(t)
	h, events := readRecording(t, r.file)
	t.Logf("status %d: %s%+v", status, r.stdout.String(), h)
	if status != 1 || h.Complete || h.Lost == 0 {
		t.Errorf("status %d, %+v", status, h)
	}
	if got := int64(len(events)) + int64(h.Lost); got < did.Opens {
		t.Errorf("%d are recorded or lost, the load alone made %d", got, did.Opens)
	}
}

func TestARecordingEndsWhenItsTimeIsUpAndLeavesNothingElse(t *testing.T) {
	r := startRecord(t, "--duration", "300ms", "--probes", "process")
	if status := r.end(t); status != 0 {
		t.Fatalf("status %d: %s", status, r.stderr.String())
	}
	if h, _ := readRecording(t, r.file); h.Duration < 300*time.Millisecond {
		t.Errorf("%+v", h)
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(r.file), "*"))
	hidden, err2 := filepath.Glob(filepath.Join(filepath.Dir(r.file), ".*"))
	if err := errors.Join(err, err2); err != nil || len(names) != 1 || len(hidden) != 0 {
		t.Errorf("beside the recording there is %v, %v, %v", names, hidden, err)
	}
}
