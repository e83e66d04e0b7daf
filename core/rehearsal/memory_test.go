package rehearsal

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// mapMemory is what the kernel accounts for the maps of this process, in bytes, but for
// the rings.
func mapMemory(t *testing.T) (sum int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || !strings.Contains(to, "bpf-map") {
			continue
		}
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		kind, memory := 0, 0
		for _, line := range strings.Split(string(info), "\n") {
			if _, err := fmt.Sscanf(line, "map_type:\t%d", &kind); err == nil {
				continue
			}
			_, _ = fmt.Sscanf(line, "memlock:\t%d", &memory)
		}
		const ring = 27
		if kind != ring {
			sum += memory
		}
	}
	return sum
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestAllThatManagesTheLoadTakesLessThanTenMegabytes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading programs needs root")
	}
	const groups = 1000
	before, maps := heap(), mapMemory(t)
	k, err := kernel.Load(kernel.Options{Probes: []string{"process"}, RingBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	tally := load.NewTally()
	now := time.Now()
	m := monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad { return &protov1.HostLoad{} }})
	g := load.New(load.Options{
		Kernel: k, Sampler: "test", Budget: kernel.Budget{EventsPerSecond: 10_000}, Tally: tally, Monitor: m,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
	})
	kinds := []event.Kind{event.ProcessFork, event.ProcessExec, event.ProcessExit, event.FileOpen}
	busy := func() *protov1.Policy {
		p := &protov1.Policy{DefaultProbability: proto.Float64(0.5)}
		for n := range groups {
			name := fmt.Sprintf("container/%064d", n)
			for _, kind := range kinds {
				tally.Add(uint64(n+1)<<32, kind, event.Info, 2, func() string { return name })
				p.Rules = append(p.Rules, &protov1.Rule{
					Match:       &protov1.ClassPattern{Kind: proto.String(kind.String()), Priority: proto.String("info"), Group: &name},
					Probability: proto.Float64(0.25), ExpectedEventsPerSecond: proto.Float64(100),
				})
			}
		}
		return p
	}
	for range 2400 { // ten minutes of reports fill the history
		now = now.Add(250 * time.Millisecond)
		m.Observe(now, monitor.Flow{})
	}
	for range 3 {
		p := busy()
		g.Report()
		g.Answer(&protov1.Answer{Answer: &protov1.Answer_Policy{Policy: p}})
	}
	if now := g.Policy(); now.Promoted != groups*len(kinds) {
		t.Fatalf("in force is %+v", now)
	}
	inHeap, inMaps := heap()-before, mapMemory(t)-maps
	runtime.KeepAlive(g)
	t.Logf("%d classes of %d groups, 2,400 readings: heap %.2f MB, maps %.2f MB on %d CPUs", groups*len(kinds), groups,
		float64(inHeap)/1e6, float64(inMaps)/1e6, runtime.NumCPU())
	if most := 10_000_000; inHeap+inMaps*2/max(runtime.NumCPU(), 2) > most {
		t.Errorf("%d bytes in the heap and %d in maps", inHeap, inMaps)
	}
}
