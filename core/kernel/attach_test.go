package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// Where fields are in a record; core/event has them all, and a test that compares
// them with the programs'.
const (
	flagsAt   = 48
	kindAt    = 52
	pidAt     = 56
	networkAt = 112 // the end of the header: what is the kind's own
	portAt    = networkAt + 64
	errorAt   = networkAt + 70
)

// recorder keeps a copy of every record.
type recorder struct {
	mu  sync.Mutex
	all [][]byte
}

func (r *recorder) Record(record []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, bytes.Clone(record))
}

func (r *recorder) Drained() time.Duration { return 0 }

func (r *recorder) Congested() bool { return false }

func (r *recorder) of(kind event.Kind) (out [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if binary.NativeEndian.Uint16(one[kindAt:]) == uint16(kind) {
			out = append(out, one)
		}
	}
	return out
}

// reading loads probes and reads until end, which detaches, drains and checks that
// the ledger closes.
func reading(t *testing.T, probes ...string) (k *Kernel, r *recorder, end func()) {
	t.Helper()
	k, err := Load(Options{Probes: probes, RingBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r = &recorder{}
	done := make(chan error, 1)
	go func() { done <- k.Read(ctx, r) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			if err := k.Detach(); err != nil {
				t.Error(err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k, r, func() {
		t.Helper()
		stop()
		checkCloses(t, k, len(r.all))
	}
}

// checkCloses checks that the ledger of a kernel that is detached and drained
// closes, with nothing lost, and agrees with what was read.
func checkCloses(t *testing.T, k *Kernel, read int) {
	t.Helper()
	rows, _, _, err := k.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	var kept uint64
	for _, r := range rows {
		kept += r.Kept
		if sum := r.Kept + r.SampledOut + r.Filtered + r.Lost; sum != r.Seen || r.Lost > 0 {
			t.Errorf("%v %v: seen %d, outcomes %+v", r.Kind, r.Priority, r.Seen, r.Counts)
		}
	}
	if kept != uint64(read) || k.InRing() != 0 {
		t.Errorf("kept %d, read %d, %d left in the rings", kept, read, k.InRing())
	}
	faults, err := k.Faults()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range faults {
		if n != 0 {
			t.Errorf("fault %s: %d", name, n)
		}
	}
}

// execsOf counts the execs of a load by their own argument.
func execsOf(records [][]byte, prefix string) map[string]int {
	found := map[string]int{}
	for _, r := range records {
		for _, arg := range bytes.Split(r[networkAt:], []byte{0}) {
			if a := string(arg); strings.HasPrefix(a, prefix) && !strings.HasSuffix(a, ":") { // of the program, not of the load itself
				found[a]++
			}
		}
	}
	return found
}

func TestEachExecIsToldOnceWhileOtherProbesComeAndGo(t *testing.T) {
	const times, opens, connections = 20, 50, 20
	p := load.Build(t)
	k, r, end := reading(t, "process")

	// Rounds of execs at 2,000 a second, until the probes have come and gone.
	stop, prefix := make(chan struct{}), fmt.Sprintf("kernel-%d-", os.Getpid())
	var did []load.ExecCounts
	loaded := make(chan error, 1)
	go func() {
		for {
			c, err := p.RunExec(t.Context(), "-n", "1000", "-r", "2000", "-p", "2", "-a", fmt.Sprintf("%s%d:", prefix, len(did)), p.Noop)
			did = append(did, c)
			select {
			case <-stop:
				loaded <- err
				return
			default:
			}
			if err != nil {
				loaded <- err
				return
			}
		}
	}()

	file := filepath.Join(t.TempDir(), "opened")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	act := func() {
		if _, err := p.RunOpen(t.Context(), "-n", fmt.Sprint(opens), file); err != nil {
			t.Error(err)
		}
		if _, err := p.RunTCP(t.Context(), "pairs", "-n", fmt.Sprint(connections)); err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	var attaching time.Duration
	for range times {
		at := time.Now()
		if err := errors.Join(k.AttachProbe("file"), k.AttachProbe("network")); err != nil {
			t.Fatal(err)
		}
		attaching += time.Since(at)
		act()
		if err := errors.Join(k.DetachProbe("file"), k.DetachProbe("network")); err != nil {
			t.Fatal(err)
		}
		act()
	}
	t.Logf("file and network came and went %d times in %v; to attach both took %v on average",
		times, time.Since(began).Round(time.Millisecond), (attaching / times).Round(time.Millisecond))
	close(stop)
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	end()

	found := execsOf(r.of(event.ProcessExec), prefix)
	var execs int64
	for round, c := range did {
		execs += c.Execs
		for i := range c.Execs {
			if n := found[fmt.Sprintf("%s%d:%06d", prefix, round, i)]; n != 1 {
				t.Errorf("exec %06d of round %d was told %d times", i, round, n)
			}
		}
	}
	t.Logf("%d execs, %d skipped runs", execs, k.SkippedRuns())
	if int64(len(found)) != execs {
		t.Errorf("%d different execs were told, the load made %d", len(found), execs)
	}
	n := 0
	for _, one := range r.of(event.FileOpen) {
		if bytes.HasSuffix(one, []byte(file)) {
			n++
		}
	}
	if n != times*opens {
		t.Errorf("%d opens were told, %d were made while the probe was there", n, times*opens)
	}
	for _, kind := range []event.Kind{event.NetworkConnect, event.NetworkAccept} {
		n = 0
		for _, one := range r.of(kind) {
			if bytes.Contains(one[:networkAt], []byte("tcpload")) {
				n++
			}
		}
		if n != times*connections {
			t.Errorf("%d of %v were told, %d were made while the probe was there", n, kind, times*connections)
		}
	}
}

// pair is the two ends of a connection of this process.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestAConnectionOlderThanTheProbeIsClosedWithoutAnOwner(t *testing.T) {
	k, r, end := reading(t, "process")
	old, oldServer := pair(t)
	port := old.LocalAddr().(*net.TCPAddr).Port
	if err := k.AttachProbe("network"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Close(), oldServer.Close()); err != nil {
		t.Fatal(err)
	}
	// Known to the probe, which then goes and comes back: what it knew went with it.
	known, knownServer := pair(t)
	knownPort := known.LocalAddr().(*net.TCPAddr).Port
	if err := errors.Join(k.DetachProbe("network"), k.AttachProbe("network")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(known.Close(), knownServer.Close()); err != nil {
		t.Fatal(err)
	}
	end()
	for _, want := range []int{port, knownPort} {
		n := 0
		for _, one := range r.of(event.NetworkClose) {
			if int(binary.NativeEndian.Uint16(one[portAt:])) != want {
				continue
			}
			n++
			if pid := binary.NativeEndian.Uint32(one[pidAt:]); pid != 0 || event.Flags(binary.NativeEndian.Uint32(one[flagsAt:]))&event.OwnerUnknown == 0 {
				t.Errorf("the close of an older connection says pid %d, flags %#x", pid, binary.NativeEndian.Uint32(one[flagsAt:]))
			}
		}
		if n != 1 {
			t.Errorf("the close of the connection from port %d was told %d times", want, n)
		}
	}
}

func TestAConnectOlderThanTheProbeFailsOnce(t *testing.T) {
	const n = 5
	p := load.Build(t)
	k, r, end := reading(t, "process")
	cmd := exec.CommandContext(t.Context(), p.TCP, "fail", "-n", fmt.Sprint(n), "timeout")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// /proc/PID/net is that of the process's own namespace. State 2 is SYN_SENT.
	waiting := func() int {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", cmd.Process.Pid))
		if err != nil {
			return 0
		}
		found := 0
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "02" {
				found++
			}
		}
		return found
	}
	for deadline := time.Now().Add(20 * time.Second); waiting() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connects wait, want %d", waiting(), n)
		}
	}
	if err := k.AttachProbe("network"); err != nil {
		t.Fatal(err)
	}
	if waiting() != n {
		t.Fatalf("only %d connects still wait once the probe is there", waiting())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	end()
	told := 0
	for _, one := range r.of(event.NetworkConnectFailed) {
		if syscall.Errno(binary.NativeEndian.Uint16(one[errorAt:])) == syscall.ETIMEDOUT {
			told++
		}
	}
	if told != n {
		t.Errorf("%d connects failed and were told %d times: %s", n, told, out.String())
	}
}

func TestAProbeThatCanNotBeAttachedChangesNothing(t *testing.T) {
	k, r, end := reading(t, "process")
	before := fmt.Sprint(k.Probes())
	refused := func(what string, err error, is error, has string) {
		t.Helper()
		if err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), has) {
			t.Errorf("%s: %v", what, err)
		}
		if now := fmt.Sprint(k.Probes()); now != before {
			t.Errorf("%s: the probes are %s, were %s", what, now, before)
		}
	}
	refused("an unknown probe", k.AttachProbe("disk"), nil, `no probe is named "disk"`)
	refused("the probe that attribution needs", k.DetachProbe("cgroup"), nil, "attribution needs it")

	rings := k.loader.common["rings"]
	k.loader.common["rings"] = k.faults // which no program can take for rings
	refused("a probe of which no program loads", k.AttachProbe("file"), ErrNoProbe, "file_openat: ")
	k.loader.common["rings"] = rings
	seed := k.loader.constants["seed"]
	k.loader.constants["seed"] = "none"
	refused("a probe that can't be prepared", k.AttachProbe("network"), nil, "set seed")
	k.loader.constants["seed"] = seed

	if err := errors.Join(k.AttachProbe("process"), k.DetachProbe("network")); err != nil {
		t.Errorf("a probe that is there, and one that is not: %v", err)
	}
	if now := fmt.Sprint(k.Probes()); now != before {
		t.Errorf("the probes are %s, were %s", now, before)
	}
	if err := exec.CommandContext(t.Context(), "/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	if err := k.AttachProbe("file"); err != nil {
		t.Error(err)
	}
	end()
	if len(r.of(event.ProcessExec)) == 0 {
		t.Error("no exec was told")
	}
	if err := k.AttachProbe("network"); !errors.Is(err, ErrDetached) {
		t.Errorf("attached after the end: %v", err)
	}
}

func TestArgumentsAreReadOrNotFromOneExecToTheNext(t *testing.T) {
	k, r, end := reading(t, "process")
	run := func(word string, read bool) {
		t.Helper()
		if err := k.ReadArgs(read); err != nil {
			t.Fatal(err)
		}
		if err := exec.CommandContext(t.Context(), "/bin/true", word).Run(); err != nil {
			t.Fatal(err)
		}
	}
	run("first-word", true)
	run("second-word", false)
	run("third-word", true)
	// A probe that comes back goes by what was said last.
	if err := errors.Join(k.ReadArgs(false), k.DetachProbe("process"), k.AttachProbe("process")); err != nil {
		t.Fatal(err)
	}
	run("fourth-word", false)
	end()
	told := bytes.Join(r.of(event.ProcessExec), nil)
	for word, want := range map[string]bool{"first-word": true, "second-word": false, "third-word": true, "fourth-word": false} {
		if got := bytes.Contains(told, []byte(word)); got != want {
			t.Errorf("%s: told %v, want %v", word, got, want)
		}
	}
}

func TestAnAcceptThatWaitsWhileTheProbeComesIsTold(t *testing.T) {
	p := load.Build(t)
	k, r, end := reading(t, "process")
	server := exec.CommandContext(t.Context(), p.TCP, "serve", "-n", "1")
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	told := json.NewDecoder(out)
	var listens struct{ Port int }
	if err := told.Decode(&listens); err != nil {
		t.Fatal(err)
	}
	waits := fmt.Sprintf("%d ", syscall.SYS_ACCEPT4)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", server.Process.Pid)); err == nil && strings.HasPrefix(string(text), waits) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not wait in accept4")
		}
	}
	if err := k.AttachProbe("network"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.RunTCP(t.Context(), "connect", "-n", "1", "-P", fmt.Sprint(listens.Port)); err != nil {
		t.Fatal(err)
	}
	var did load.TCPCounts
	if err := errors.Join(told.Decode(&did), server.Wait()); err != nil || did.Accepts != 1 {
		t.Fatalf("the server accepted %d connections: %v", did.Accepts, err)
	}
	end()
	n := 0
	for _, one := range r.of(event.NetworkAccept) {
		if binary.NativeEndian.Uint32(one[pidAt:]) == uint32(server.Process.Pid) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the accept was told %d times", n)
	}
}
