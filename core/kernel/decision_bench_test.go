package kernel

import (
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// BenchmarkDecision is what an event that is not kept costs, over an empty program on
// the same hook: the exit of openat, of a file that is not there. The load's own CPU time
// for each call is compared in rounds that take turns: nothing, the empty program, the
// probe. All of the decision is in it: whose cgroup, which row, the ladder, the valve, the
// draw, the counts.
func BenchmarkDecision(b *testing.B) {
	programs := load.Build(b)
	absent := filepath.Join(b.TempDir(), "absent")
	k, err := Load(Options{Probes: []string{"process"}, RingBytes: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	k.SetBudget(Budget{EventsPerSecond: 10_000})
	var p Policy
	for i := range p.Pooled {
		p.Pooled[i] = Rule{Probability: 0.001, Expected: 1_000_000}
	}
	kind, priority := event.FileOpen, event.Warning
	p.Pooled[event.Row(kind, priority)].Probability = 1e-6
	if _, err := k.SetPolicy(p); err != nil {
		b.Fatal(err)
	}
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.TracePoint, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer empty.Close()
	const opens = 100_000
	round := func() float64 {
		did, err := programs.RunOpen(b.Context(), "-n", strconv.Itoa(opens), "-f", "100", absent)
		if err != nil {
			b.Fatal(err)
		}
		return did.CPUSelf * 1e9 / opens
	}
	var nothing, over, decided []float64
	for b.Loop() {
		without := round()
		l, err := attachTracepoint("syscalls/sys_exit_openat", empty)
		if err != nil {
			b.Fatal(err)
		}
		base := round()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		if err := k.AttachProbe("file"); err != nil {
			b.Fatal(err)
		}
		cost := round()
		if err := k.DetachProbe("file"); err != nil {
			b.Fatal(err)
		}
		nothing, over, decided = append(nothing, without), append(over, base-without), append(decided, cost-base)
	}
	b.ReportMetric(median(nothing), "ns/open")
	b.ReportMetric(median(over), "ns/empty")
	b.ReportMetric(median(decided), "ns/decision")
	b.ReportMetric(0, "ns/op")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
