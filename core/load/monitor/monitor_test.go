package monitor

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestAnObservationSaysHowBusyTheHostIsAndWhatIsTheMatter(t *testing.T) {
	h := busyHost(t)
	m := New(Options{Proc: h.proc(), Sys: h.sys()})
	if got := m.Last(); !got.Time.IsZero() || got.Host != nil || m.Summary(time.Minute).Readings != 0 {
		t.Errorf("before the first: %+v", got)
	}
	m.Observe(start, Flow{})
	h.later()
	got := m.Observe(start.Add(500*time.Millisecond), Flow{
		Ring: 0.1, Seen: 4096, Kept: 1024,
		Queues: []*protov1.QueueDepth{{Queue: "a", Depth: 1, Capacity: 10}, {Queue: "b", Depth: 4, Capacity: 10}, {Queue: "c", Depth: 4}},
	})
	// High: the disk at 90 % of 80 %, memory pressure far below, I/O pressure at 41 % of 40 %.
	if got.State.Level != High || got.State.String() != "disk nvme0c0n1 90 %" {
		t.Errorf("%v by %q", got.State.Level, got.State)
	}
	if f := got.Relief.Of(event.FileOpen, event.Info); f != 0.5 || got.Relief.Of(event.ProcessExec, event.Info) != 1 || len(got.Relief.Reasons) != 2 {
		t.Errorf("files × %v because of %q", f, got.Relief.Reasons)
	}
	if last := m.Last(); last.Host != got.Host || !last.Time.Equal(start.Add(500*time.Millisecond)) {
		t.Errorf("the last is %+v", last)
	}
	s := m.Summary(10 * time.Second)
	if s.Readings != 2 || s.Level != High || s.Stats[CPU].Readings != 1 || s.Stats[SeenEvents].Max != 4096 || s.Stats[KeptEvents].Mean != 512 {
		t.Errorf("%+v", s)
	}
	for f, want := range map[Figure]float64{
		NetworkBytes: 66e6, DiskBytes: 6_144_000, DaemonCPU: 0.5, DaemonMemory: float64(5120 * os.Getpagesize()), AvailableMemory: 2_048_000_000,
		Figure(Ring): 0.1, Figure(Queue): 0.4, Figure(Memory): 0.75,
	} {
		if got := s.Stats[f].Max; got < want*0.999999 || got > want*1.000001 {
			t.Errorf("%v is %v in the history, want %v", f, got, want)
		}
	}
	if r := m.Readings(time.Minute); len(r) != 2 || r[0].Level != High || r[1].Level != High { // 41 % of I/O pressure, both times
		t.Errorf("readings are %v", r)
	}
	full := m.Observe(start.Add(time.Second), Flow{Queues: []*protov1.QueueDepth{{Queue: "exporter/json", Depth: 9, Capacity: 10}}})
	if full.State.Level != Critical || full.State.String() != "queue exporter/json 90 %" {
		t.Errorf("%v by %q", full.State.Level, full.State)
	}
}

func TestALoadThatIsToldIsTakenForTheHosts(t *testing.T) {
	m := New(Options{Host: func(now time.Time) *protov1.HostLoad {
		return &protov1.HostLoad{CpuUtilization: new(now.Sub(start).Seconds() / 100)}
	}})
	got := m.Observe(start.Add(90*time.Second), Flow{})
	if got.Host.GetCpuUtilization() != 0.9 || got.State.String() != "cpu 90 %" || got.Relief.Of(event.FileOpen, event.Info) != 0.5 {
		t.Errorf("%v, %v by %q", got.Host, got.State.Level, got.State)
	}
}

func TestThresholdsAndRulesCanBeOverridden(t *testing.T) {
	h := busyHost(t)
	bounds, rules := DefaultThresholds(), DefaultRules()
	bounds[Memory].Critical, rules.HostMemory = 0.7, 0.7
	m := New(Options{Proc: h.proc(), Sys: h.sys(), Thresholds: bounds, Rules: rules})
	got := m.Observe(start, Flow{})
	if got.State.Level != Critical || got.State.String() != "memory 75 %" || got.Relief.Of(event.ProcessExec, event.Debug) != 0.1 {
		t.Errorf("%v by %q, %+v", got.State.Level, got.State, got.Relief)
	}
}

// The figures of this machine, compared with loads that are made.
func TestThisMachineIsObserved(t *testing.T) {
	m := New(Options{})
	m.Observe(time.Now(), Flow{})
	var got Observation
	for range 100 { // the kernel counts in ticks, when it comes to it
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		}
		if got = m.Observe(time.Now(), Flow{}); got.Host.GetCpuUtilization() > 0 && got.Host.GetDaemonCpuCores() > 0 {
			break
		}
	}
	l := got.Host
	for name, share := range map[string]*float64{
		"cpu": l.CpuUtilization, "network": l.NetworkUtilization, "disk": l.DiskUtilization,
	} {
		if share != nil && !(*share >= 0 && *share <= 1) {
			t.Errorf("%s is %v", name, *share)
		}
	}
	if l.GetCpuUtilization() <= 0 || l.GetDaemonCpuCores() <= 0 || l.DaemonMemoryBytes < 1<<20 || l.Cpus == 0 {
		t.Errorf("%v", l)
	}
	if l.MemoryTotalBytes == 0 || l.MemoryAvailableBytes == 0 || l.MemoryAvailableBytes > l.MemoryTotalBytes {
		t.Errorf("%d bytes of which %d are available", l.MemoryTotalBytes, l.MemoryAvailableBytes)
	}
	if _, err := os.ReadFile("/proc/pressure/cpu"); (err == nil) != (l.PressureCpu != nil) { // it may be there and refuse
		t.Errorf("pressure is %v, reading it says %v", l.PressureCpu, err)
	}
	if l.NetworkBytesPerSecond == nil && len(m.reader.network.links) > 0 {
		t.Errorf("%v count and tell no rate", m.reader.network.links)
	}
	if l.DiskBytesPerSecond == nil && len(m.reader.disks.names) > 0 {
		t.Errorf("%v count and tell no rate", m.reader.disks.names)
	}
	for _, name := range m.reader.disks.names {
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "dm-") || strings.HasPrefix(name, "zram") {
			t.Errorf("%s counts", name)
		}
	}
	if _, ok := m.reader.network.links["lo"]; ok {
		t.Error("lo counts")
	}
	t.Logf("links %v, disks %v, %v by %q, %v", m.reader.network.links, m.reader.disks.names, got.State.Level, got.State, l)
}

// What is written to a file and pushed to the disk is there in the disk's rate.
func TestWhatIsWrittenToThisMachinesDiskIsSeen(t *testing.T) {
	m := New(Options{})
	m.Observe(time.Now(), Flow{})
	f, err := os.Create(filepath.Join(t.TempDir(), "written"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	began := time.Now()
	m.Observe(began, Flow{})
	const size = 16 << 20
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	l := m.Observe(now, Flow{}).Host
	if none := len(m.reader.disks.names) == 0; none != (l.DiskBytesPerSecond == nil) {
		t.Fatalf("disks %v, and told is %v", m.reader.disks.names, l)
	} else if none {
		return // there is nothing to see, and nothing is said
	}
	moved := l.GetDiskBytesPerSecond() * now.Sub(began).Seconds()
	if moved < size {
		var on unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &on); err != nil || on.Type == unix.TMPFS_MAGIC {
			t.Logf("the temporary directory is in memory, or can't be asked about: %v", err)
			return
		}
		t.Errorf("%.0f bytes went to the disks, wrote %d to %s", moved, size, f.Name())
	}
}

func TestAMonitorIsAskedWhileItObserves(t *testing.T) {
	h := busyHost(t)
	m := New(Options{Proc: h.proc(), Sys: h.sys()})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				m.Last()
				m.Summary(time.Minute)
				m.Readings(time.Second)
			}
		})
	}
	for i := range 50 {
		m.Observe(start.Add(time.Duration(i)*time.Second), Flow{})
	}
	wg.Wait()
	if n := m.Summary(time.Hour).Readings; n != 50 {
		t.Errorf("%d readings, want 50", n)
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkObserve observes this machine, and a large node as files in memory or on disk
// show it: the kernel's own work for it is in the first only.
func BenchmarkObserve(b *testing.B) {
	run := func(m *Monitor) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			now, before := start, cpuTime(b)
			for b.Loop() {
				now = now.Add(250 * time.Millisecond)
				m.Observe(now, Flow{})
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		}
	}
	b.Run("this machine", run(New(Options{})))
	h := busyHost(b)
	var stat strings.Builder
	stat.WriteString("cpu  100 0 50 800 50 0 0 0 0 0\n")
	for i := range 128 {
		fmt.Fprintf(&stat, "cpu%d 1234567 8901 234567 89012345 67890 0 12345 678 0 0\n", i)
	}
	stat.WriteString("intr 123456789" + strings.Repeat(" 0 12345", 1000) + "\n")
	h.write("proc/stat", stat.String())
	all := map[string]traffic{"eth0": {}, "eth1": {}}
	for i := range 300 {
		name := fmt.Sprintf("veth%08x", i)
		h.virtual(name)
		all[name] = traffic{1234567890, 1234567890}
	}
	h.netDev(all)
	b.Run("128 CPUs and 300 interfaces", run(New(Options{Proc: h.proc(), Sys: h.sys()})))
}

func BenchmarkSummary(b *testing.B) {
	h := newHistory()
	for i := range capacity {
		h.add(start.Add(time.Duration(i)*250*time.Millisecond), Low, cpuOnly(0.5))
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range Windows() {
			h.summary(w)
		}
	}
}
