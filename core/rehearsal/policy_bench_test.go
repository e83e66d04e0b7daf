package rehearsal

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// BenchmarkPolicy is what the daemon does with the answer of a sampler that decides about
// 4,000 classes of 1,000 groups, each time anew: it checks it, makes a table of it, puts
// that into the kernel and reads what the last one counted; and what a report of as many
// classes takes to make.
func BenchmarkPolicy(b *testing.B) {
	const groups = 1000
	k, err := kernel.NewSimulator(1, 2)
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	tally := load.NewTally()
	g := load.New(load.Options{
		Kernel: k, Sampler: "bench", Budget: kernel.Budget{EventsPerSecond: 10_000}, Tally: tally, Log: slog.New(slog.DiscardHandler),
		Monitor: monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad { return &protov1.HostLoad{} }}),
	})
	classes := []struct {
		kind     event.Kind
		priority event.Priority
	}{{event.ProcessExec, event.Info}, {event.ProcessExit, event.Info}, {event.FileOpen, event.Debug}, {event.NetworkConnect, event.Info}}
	name := func(n int) string { return fmt.Sprintf("container/%d", n) }
	busy := func() {
		trials := k.Trials()
		for n := range groups {
			for i, c := range classes {
				tally.Add(uint64(n+1), c.kind, c.priority, 1, func() string { return name(n + 1) })
				trials[n*len(classes)+i] = kernel.Trial{TimeNS: uint64(time.Now().UnixNano()), Kind: c.kind, Priority: c.priority, CgroupID: uint64(n + 1)}
			}
		}
		if err := k.Decide(groups * len(classes)); err != nil {
			b.Fatal(err)
		}
	}
	answer := func(p float64) *protov1.Answer {
		policy := &protov1.Policy{DefaultProbability: proto.Float64(1), FillBudget: true}
		for n := range groups {
			for _, c := range classes {
				policy.Rules = append(policy.Rules, &protov1.Rule{
					Match:       &protov1.ClassPattern{Kind: proto.String(c.kind.String()), Priority: proto.String(c.priority.String()), Group: proto.String(name(n + 1))},
					Probability: proto.Float64(p), ExpectedEventsPerSecond: proto.Float64(100),
				})
			}
		}
		return &protov1.Answer{Answer: &protov1.Answer_Policy{Policy: policy}}
	}
	busy()
	g.Report()
	g.Answer(answer(0.5)) // the classes get their rows
	b.Run("answer", func(b *testing.B) {
		b.ReportAllocs()
		answers := []*protov1.Answer{answer(0.25), answer(0.125)}
		for i := 0; b.Loop(); i++ {
			g.Answer(answers[i%2])
		}
		if now := g.Policy(); now.Promoted != groups*len(classes) || now.Refused != 0 {
			b.Errorf("in force is %+v", now)
		}
	})
	b.Run("report", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			busy()
			b.StartTimer()
			if r := g.Report(); len(r.Classes) < groups*len(classes) {
				b.Fatalf("%d classes are told", len(r.Classes))
			}
		}
	})
}
