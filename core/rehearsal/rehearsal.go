// Package rehearsal runs a sampler against a load that never happens, through all that
// would decide about a real one: the programs' decision in the kernel, the tables and
// the valve, and the governor's reports and checks. Only the time is told and the
// events are made up.
//
// It owns the virtual clock. It attaches nothing, and needs the rights to load a
// program. The events of a run are the same again for the same seed.
package rehearsal

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Sampler answers a report; report nil is the start of its stream. An answer of nil is
// none: the sampler has died, or hangs.
type Sampler func(report *protov1.Report) (*protov1.Answer, error)

// Options of Run.
type Options struct {
	Scenario simulation.Scenario
	Seed     uint64
	Sampler  Sampler // nil: none
	Name     string  // the sampler's
	// Budget in events/s, by which the run is scored as well; 0: the scenario's.
	Budget float64
	// Interval between reports; 0: 250 ms.
	Interval time.Duration
	// Lag is how long an answer takes; 0: 10 ms.
	Lag time.Duration
	Log *slog.Logger // nil: nothing is logged
	// Scorer takes the outcomes; nil: one is made.
	Scorer *simulation.Scorer
	// Progress is told the virtual time, each time the sampler is asked; nil: nobody is.
	Progress func(now time.Duration)
}

// cpus that events come on.
const cpus = 2

// run is one.
type run struct {
	Options
	kernel   *kernel.Simulator
	governor *load.Governor
	tally    *load.Tally
	events   []simulation.Event // of the batch
	now      int64
	next     int64           // when a report is due
	merged   uint64          // reports that were due while an answer was on its way
	waiting  *protov1.Answer // on its way
	arrives  int64           // when it does

	generation uint32 // of the policy in force
	result     Result
}

// start is when the virtual clock begins.
var start = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Run runs a sampler against a scenario, until ctx is done at the latest.
func Run(ctx context.Context, o Options) (result *Result, err error) {
	o.Scenario.Budget = cmp.Or(o.Budget, o.Scenario.Budget)
	o.Interval = cmp.Or(o.Interval, 250*time.Millisecond)
	o.Lag = cmp.Or(o.Lag, 10*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Scorer == nil {
		o.Scorer = simulation.NewScorer(o.Scenario)
	}
	r := &run{Options: o, tally: load.NewTally(), next: int64(o.Interval)}
	if r.kernel, err = kernel.NewSimulator(o.Seed, cpus); err != nil {
		return nil, err
	}
	defer func() {
		if e := r.kernel.Close(); err == nil && e != nil {
			err = fmt.Errorf("end the simulation: %w", e)
		}
	}()
	r.governor = load.New(load.Options{
		Kernel: r.kernel, Sampler: o.Name, Budget: kernel.Budget{EventsPerSecond: o.Scenario.Budget}, Tally: r.tally, Log: o.Log,
		Monitor: monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad { return &protov1.HostLoad{} }}),
		Now:     func() time.Time { return start.Add(time.Duration(r.now)) },
	})
	r.generation = r.governor.Policy().Generation
	if err := r.all(ctx); err != nil {
		return nil, err
	}
	r.result.Score = o.Scorer.Score()
	r.result.Refused = r.governor.Policy().Refused
	return &r.result, nil
}

func (r *run) all(ctx context.Context) error {
	if err := r.ask(nil); err != nil {
		return err
	}
	r.arrives = 0 // the start's answer is there when the load begins
	trials := r.kernel.Trials()
	for e := range r.Scenario.Events(r.Seed) {
		if len(r.events) == len(trials) || e.At >= r.due() {
			if err := r.until(ctx, e.At); err != nil {
				return err
			}
		}
		trials[len(r.events)] = kernel.Trial{
			TimeNS: uint64(e.At) + uint64(time.Second), Number: number(e.Lifecycle, r.Seed), CgroupID: uint64(e.Group),
			Kind: e.Kind, Priority: e.Priority, CPU: e.CPU,
		}
		r.events = append(r.events, e)
	}
	return r.decide()
}

// due is when something happens that is no event.
func (r *run) due() int64 {
	if r.waiting != nil {
		return min(r.next, r.arrives)
	}
	return r.next
}

// until decides what is at hand, and does what is due by then.
func (r *run) until(ctx context.Context, at int64) error {
	if err := r.decide(); err != nil {
		return err
	}
	for due := r.due(); due <= at; due = r.due() {
		r.now = due
		r.governor.Expire()
		if err := r.happen(ctx); err != nil {
			return err
		}
		p := r.governor.Policy()
		r.result.Promoted = max(r.result.Promoted, p.Promoted)
		if p.Generation != r.generation {
			r.generation = p.Generation
			r.result.Policies++
		}
	}
	r.now = at
	return nil
}

// happen does what is due now: an answer comes, or a report is made, unless the last
// one is not answered yet.
func (r *run) happen(ctx context.Context) error {
	if r.waiting != nil && r.now == r.arrives {
		r.governor.Answer(r.waiting)
		r.waiting = nil
		return nil
	}
	r.next += int64(r.Interval)
	if r.waiting != nil {
		r.merged++
		return nil
	}
	if r.Progress != nil {
		r.Progress(time.Duration(r.now))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	report := r.governor.Report()
	report.Merged, r.merged = r.merged, 0
	return r.ask(report)
}

// ask asks the sampler, whose answer is then on its way.
func (r *run) ask(report *protov1.Report) error {
	if r.Sampler == nil {
		return nil
	}
	began := time.Now()
	answer, err := r.Sampler(report)
	if err != nil {
		return fmt.Errorf("ask the sampler: %w", err)
	}
	if answer == nil {
		if r.result.Unanswered == 0 {
			r.result.AwayFrom = time.Duration(r.now)
		}
		r.result.Unanswered++
		return nil
	}
	if report != nil {
		r.result.Planning = max(r.result.Planning, time.Since(began))
	}
	r.waiting, r.arrives = answer, r.now+int64(r.Lag)
	return nil
}

// decide decides the batch and tells the scorer and the governor of it.
func (r *run) decide() error {
	if err := r.kernel.Decide(len(r.events)); err != nil {
		return err
	}
	for i, e := range r.events {
		t := &r.kernel.Trials()[i]
		if t.Kept == 0 {
			r.Scorer.Add(e, simulation.Outcome{})
			continue
		}
		kept := event.Event{Threshold: t.Threshold}
		weight := kept.Weight()
		r.Scorer.Add(e, simulation.Outcome{Kept: true, Weight: weight})
		if e.Group != 0 {
			r.tally.Add(uint64(e.Group), e.Kind, e.Priority, weight, func() string { return "g" + strconv.Itoa(int(e.Group)) })
		}
	}
	r.events = r.events[:0]
	return nil
}

// number is what a life draws: splitmix64. 0 stays 0: a fresh draw.
func number(life, seed uint64) uint64 {
	if life == 0 {
		return 0
	}
	x := life*0x9e3779b97f4a7c15 ^ seed
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31 | 1
}
