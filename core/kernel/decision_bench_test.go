package kernel

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// BenchmarkDecision is what an event that is not kept costs, over an empty program on
// the same hook: the exit of openat, of a file that is not there. Both programs are
// attached, and the kernel's own statistics tell how long each ran, round by round. All
// of the decision is in it: whose cgroup, which row, the ladder, the valve, the draw, the
// counts. It took 20 ns where the empty program took 31; with an atomic addition in place of
// the plain one 26. Elsewhere it took 19 to 25 where the empty program took 49.
func BenchmarkDecision(b *testing.B) {
	programs := load.Build(b)
	absent := filepath.Join(b.TempDir(), "absent")
	k, err := Load(Options{Probes: []string{"file"}, RingBytes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	k.SetBudget(Budget{EventsPerSecond: 10_000})
	var p Policy
	for i := range p.Pooled {
		p.Pooled[i] = Rule{Probability: 1e-6, Expected: 1_000_000}
	}
	if _, err := k.SetPolicy(p); err != nil {
		b.Fatal(err)
	}
	nothing, err := empty("openat", k.loader.functions())
	if err != nil {
		b.Fatal(err)
	}
	defer nothing.Close()
	l, err := nothing.attach()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	defer counting.Close()
	file := k.probe("file").programs
	decide := file[slices.IndexFunc(file, func(p program) bool { return ofTracepoint(p.name) == "file_openat" })].Program
	stats := func(p *ebpf.Program) (ns, runs float64) {
		s, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		return float64(s.Runtime.Nanoseconds()), float64(s.RunCount)
	}
	var over, alone []float64
	for b.Loop() {
		ns, runs := stats(decide)
		ns0, runs0 := stats(nothing.Program)
		if _, err := programs.RunOpen(b.Context(), "-n", "50000", "-f", "100", absent); err != nil {
			b.Fatal(err)
		}
		ns1, runs1 := stats(decide)
		ns2, runs2 := stats(nothing.Program)
		base := (ns2 - ns0) / (runs2 - runs0)
		over, alone = append(over, (ns1-ns)/(runs1-runs)-base), append(alone, base)
	}
	b.ReportMetric(median(alone), "ns/empty")
	b.ReportMetric(median(over), "ns/decision")
	b.ReportMetric(0, "ns/op")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
