package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// defaultHierarchy is where cgroup2 is mounted.
func defaultHierarchy(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	t.Fatal("no cgroup2 is mounted")
	return ""
}

// cgroup makes one and gives its id.
func cgroup(t testing.TB, path string) uint64 {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := os.Remove(path)
		for deadline := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); err = os.Remove(path) {
			time.Sleep(10 * time.Millisecond) // its last process is not quite gone
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestMain has the test program itself make traffic, in a cgroup.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "traffic" {
		if err := makeTraffic(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// makeTraffic sends so many datagrams of so many bytes over the loopback to itself:
// ADDRESS N BYTES. It does so by bare system calls, for what the poller costs would drown
// what a packet does.
func makeTraffic(args []string) error {
	var n, size int
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &n, &size); err != nil {
		return err
	}
	address, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	family, at := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{})
	if address.Is4() {
		at.(*unix.SockaddrInet4).Addr = address.As4()
	} else {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Addr: address.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, at); err != nil {
		return err
	}
	if at, err = unix.Getsockname(fd); err == nil {
		err = unix.Connect(fd, at)
	}
	b := make([]byte, size)
	for i := 0; i < n && err == nil; i++ {
		if _, err = unix.Write(fd, b); err == nil {
			if got, e := unix.Read(fd, b); e != nil || got != size {
				err = fmt.Errorf("received %d of %d bytes: %w", got, size, e)
			}
		}
	}
	return err
}

// trafficIn runs makeTraffic in a cgroup.
func trafficIn(t testing.TB, path string, args ...string) {
	t.Helper()
	if out, err := tryTrafficIn(t, path, args...); err != nil {
		t.Fatalf("make traffic: %v: %s", err, out)
	}
}

func tryTrafficIn(t testing.TB, path string, args ...string) (out string, err error) {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, append([]string{"traffic"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	text, err := c.CombinedOutput()
	return string(text), err
}

func account(t testing.TB) *Account {
	t.Helper()
	a, err := NewAccount(defaultHierarchy(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestTheTrafficOfEachCgroupIsCountedToTheByte(t *testing.T) {
	a := account(t)
	root := defaultHierarchy(t)
	outer := filepath.Join(root, fmt.Sprintf("ebpf-tracer-account-%d", os.Getpid()))
	id := cgroup(t, outer)
	inner := cgroup(t, filepath.Join(outer, "inner"))
	// A datagram has 8 bytes of UDP and 20 of IPv4, or 40 of IPv6, before its own.
	address, header := "::1", uint64(48)
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		address, header = "127.0.0.1", 28
	}
	trafficIn(t, outer, "127.0.0.1", "100", "1000")
	trafficIn(t, filepath.Join(outer, "inner"), address, "7", "1")
	want := map[uint64]Traffic{
		id:    {ReceivedBytes: 100 * 1028, ReceivedPackets: 100, SentBytes: 100 * 1028, SentPackets: 100},
		inner: {ReceivedBytes: 7 * (header + 1), ReceivedPackets: 7, SentBytes: 7 * (header + 1), SentPackets: 7},
	}
	for name, each := range map[string]func(func(uint64, Traffic) bool) error{"in batches": a.Each, "one by one": a.eachAlone} {
		got := map[uint64]Traffic{}
		if err := each(func(cgroup uint64, now Traffic) bool {
			if _, ok := want[cgroup]; ok {
				got[cgroup] = now
			}
			return true
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if got, err := a.Of(id); err != nil || got != want[id] {
		t.Errorf("of one: %v, %v", got, err)
	}
	if got, err := a.Forget(id); err != nil || got != want[id] {
		t.Errorf("forgotten: %v, %v", got, err)
	}
	if got, err := a.Of(id); err != nil || got != (Traffic{}) {
		t.Errorf("after it was forgotten: %v, %v", got, err)
	}
	if got, err := a.Forget(id); err != nil || got != (Traffic{}) {
		t.Errorf("forgotten again: %v, %v", got, err)
	}
	if got, err := a.Overflow(); err != nil || got != (Traffic{}) {
		t.Errorf("without room: %v, %v", got, err)
	}
	calls := 0
	if err := a.Each(func(uint64, Traffic) bool { calls++; return false }); err != nil || calls > 1 {
		t.Errorf("after false: %d calls, %v", calls, err)
	}
	if p := a.Probe(); p.State() != "attached" || p.Name != AccountName {
		t.Errorf("its probe is %+v", p)
	}
}

func TestTrafficWithoutRoomIsCountedTogether(t *testing.T) {
	a := account(t)
	// Everything that there is room for is taken, by cgroups that there are not.
	room := int(a.traffic.MaxEntries())
	keys, values := make([]uint64, room), make([]Traffic, room*a.cpus)
	for i := range keys {
		keys[i] = 1<<40 + uint64(i)
	}
	if n, err := a.traffic.BatchUpdate(keys, values, &ebpf.BatchOptions{ElemFlags: uint64(ebpf.UpdateAny)}); err == nil {
		t.Logf("%d entries", n)
	} // Else some entry was there before: the map is full all the same.
	path := filepath.Join(defaultHierarchy(t), fmt.Sprintf("ebpf-tracer-account-%d", os.Getpid()))
	id := cgroup(t, path)
	trafficIn(t, path, "127.0.0.1", "10", "100")
	if got, err := a.Of(id); err != nil || got != (Traffic{}) {
		t.Errorf("a cgroup that found no room has %v, %v", got, err)
	}
	got, err := a.Overflow()
	if err != nil || got.SentPackets < 10 || got.SentBytes < 10*128 || got.ReceivedPackets < 10 || got.ReceivedBytes < 10*128 {
		t.Errorf("without room: %+v, %v", got, err)
	}
	found := 0
	if err := a.Each(func(uint64, Traffic) bool { found++; return true }); err != nil || found != room {
		t.Errorf("%d of %d entries are read: %v", found, room, err)
	}
}

func TestAccountingIsRefusedWithTheReason(t *testing.T) {
	_, err := NewAccount(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "attach account_received at ") {
		t.Error(err)
	}
	if _, err := NewAccount(filepath.Join(t.TempDir(), "missing")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

func TestAProgramThatLetsNoOtherBesideItIsNamedAsTheReason(t *testing.T) {
	path := filepath.Join(defaultHierarchy(t), fmt.Sprintf("ebpf-tracer-account-%d", os.Getpid()))
	cgroup(t, path)
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	other := account(t)
	alone := link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: other.object.Programs["account_sent"], Attach: ebpf.AttachCGroupInetEgress}
	if err := link.RawAttachProgram(alone); err != nil {
		t.Fatal(err)
	}
	if _, err := NewAccount(path); err == nil || !strings.Contains(err.Error(), "attach account_sent at "+path) || !strings.Contains(err.Error(), "lets no other beside it") {
		t.Error(err)
	}
	if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: alone.Target, Program: alone.Program, Attach: alone.Attach}); err != nil {
		t.Fatal(err)
	}
	// Two of ours, one above the other and two in one place, count side by side.
	for range 2 {
		a, err := NewAccount(path)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
	}
}

func TestAProgramOfOthersGoesOnAndWhatItDropsIsCounted(t *testing.T) {
	a := account(t)
	path := filepath.Join(defaultHierarchy(t), fmt.Sprintf("ebpf-tracer-account-%d", os.Getpid()))
	id := cgroup(t, path)
	drop, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer drop.Close()
	other, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: ebpf.AttachCGroupInetEgress, Program: drop})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tryTrafficIn(t, path, "127.0.0.1", "1", "100"); err == nil || !strings.Contains(out, "operation not permitted") {
		t.Errorf("while another program drops it, traffic ends with %v: %s", err, out)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	want := Traffic{SentBytes: 128, SentPackets: 1}
	if got, err := a.Of(id); err != nil || got != want {
		t.Errorf("what was dropped is counted as %+v, %v", got, err)
	}
	trafficIn(t, path, "127.0.0.1", "1", "100")
	want = Traffic{ReceivedBytes: 128, ReceivedPackets: 1, SentBytes: 256, SentPackets: 2}
	if got, err := a.Of(id); err != nil || got != want {
		t.Errorf("afterwards there is %+v, %v", got, err)
	}
}

func TestNothingStaysAttachedAfterTheEnd(t *testing.T) {
	path := filepath.Join(defaultHierarchy(t), fmt.Sprintf("ebpf-tracer-account-%d", os.Getpid()))
	cgroup(t, path)
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	attached := func() (n int) {
		t.Helper()
		for _, at := range []ebpf.AttachType{ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress} {
			found, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: at})
			if err != nil {
				t.Fatal(err)
			}
			n += len(found.Programs)
		}
		return n
	}
	a, err := NewAccount(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := attached(); n != 2 {
		t.Errorf("%d programs are attached", n)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if n := attached(); n != 0 {
		t.Errorf("%d programs are attached in the end", n)
	}
	// One that can attach only one of its programs takes that off again.
	alone := link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: account(t).object.Programs["account_sent"], Attach: ebpf.AttachCGroupInetEgress}
	if err := link.RawAttachProgram(alone); err != nil {
		t.Fatal(err)
	}
	if _, err := NewAccount(path); err == nil {
		t.Error("it is attached beside a program that lets no other")
	}
	if n := attached(); n != 1 {
		t.Errorf("%d programs are attached, want that which was there", n)
	}
	if err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: alone.Target, Program: alone.Program, Attach: alone.Attach}); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkPacket is what accounting costs a packet over the loopback, which passes
// twice: where it is sent and where it is received. A round without and a round with it
// take turns; the figures are medians.
//
//	go test ./core/kernel -run XXX -bench Packet -benchtime 21x
func BenchmarkPacket(b *testing.B) {
	path := filepath.Join(defaultHierarchy(b), fmt.Sprintf("ebpf-tracer-account-%d", os.Getpid()))
	cgroup(b, path)
	const packets = 100_000
	cost := func() float64 { // CPU time of a packet, in nanoseconds
		var before, after unix.Rusage
		err := unix.Getrusage(unix.RUSAGE_CHILDREN, &before)
		trafficIn(b, path, "127.0.0.1", fmt.Sprint(packets), "100")
		if err = errors.Join(err, unix.Getrusage(unix.RUSAGE_CHILDREN, &after)); err != nil {
			b.Fatal(err)
		}
		return float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()) / packets
	}
	var without, with, more []float64
	for b.Loop() {
		bare := cost()
		a, err := NewAccount(defaultHierarchy(b))
		if err != nil {
			b.Fatal(err)
		}
		counted := cost()
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
		without, with, more = append(without, bare), append(with, counted), append(more, counted-bare)
	}
	median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
	b.ReportMetric(median(without), "ns/packet-without")
	b.ReportMetric(median(with), "ns/packet-with")
	b.ReportMetric(median(more)/2, "ns/run")

	a := account(b)
	for name, p := range a.object.Programs {
		const runs = 1_000_000
		_, took, err := p.Benchmark(make([]byte, 64), runs, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(took.Nanoseconds()), "ns-warm/"+name)
	}
}
