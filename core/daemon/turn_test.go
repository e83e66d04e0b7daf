package daemon

import (
	"log/slog"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// counts is a kernel that has seen one exec since it was last asked.
type counts struct{ generation uint32 }

func (*counts) Since() ([]kernel.Period, error) {
	return []kernel.Period{{Generation: 1, Rows: []kernel.Row{{Class: kernel.Class{Kind: event.ProcessExec}, Counts: kernel.Counts{Seen: 1, Kept: 1}}}}}, nil
}

func (c *counts) SetPolicy(kernel.Policy) (uint32, error) {
	c.generation++
	return c.generation, nil
}

func (*counts) SetBudget(kernel.Budget) {}

func (*counts) SetSharers(int) {}

func (*counts) SetGroup(uint64, uint32) error { return nil }

func (*counts) Capacity() (rows, groups int) { return 0, 0 }

func TestASamplerSpeaksOnlyInItsTurn(t *testing.T) {
	g := load.New(load.Options{Kernel: &counts{}, Sampler: "none yet", Log: slog.New(slog.DiscardHandler)})
	policy := func(p float64, reason string) *protov1.Answer {
		return &protov1.Answer{Answer: &protov1.Answer_Policy{Policy: &protov1.Policy{DefaultProbability: &p, Reason: reason}}}
	}
	keep := &protov1.Answer{Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
	in := func(when, source, reason string) {
		t.Helper()
		if now := g.Policy(); now.Source != source || now.Reason != reason || now.Refused != 0 {
			t.Errorf("%s: in force is %+v", when, now)
		}
	}
	one, two := &turn{governor: g}, &turn{governor: g}
	one.begin("one")
	one.answer(policy(0.5, "a half"))
	in("in its turn", "one", "a half")

	// The next waits: it hears nothing of the load, and what it says is not lost.
	two.answer(policy(0.25, "a quarter"))
	two.answer(keep)
	if r := two.report(); len(r.Classes) != 0 {
		t.Errorf("before its turn it hears of %v", r.Classes)
	}
	if r := one.report(); len(r.Classes) != 1 {
		t.Errorf("in its turn it hears of %v", r.Classes)
	}
	in("before the other's turn", "one", "a half")

	one.end()
	two.begin("two")
	in("in the other's turn", "two", "a quarter")
	one.answer(policy(1, "all"))
	two.answer(keep)
	in("after its turn", "two", "a quarter")
	if r := two.report(); len(r.Classes) != 1 {
		t.Errorf("in its turn the other hears of %v", r.Classes)
	}
}
