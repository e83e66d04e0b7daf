// Package rehearsal runs a sampler against a load that never happens, through all that
// would decide about a real one: the programs' decision in the kernel, the tables and
// the valve, and the governor's reports and checks. Only the time is told and the
// events are made up.
//
// It owns the virtual clock. It attaches nothing, and needs the rights to load a
// program. A run is the same again for the same seed and sampler.
package rehearsal

import (
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
	// Budget in events/s; 0: the scenario's.
	Budget float64
	// Interval between reports; 0: 250 ms.
	Interval time.Duration
	// Lag is how long an answer takes; 0: 10 ms.
	Lag time.Duration
	Log *slog.Logger // nil: nothing is logged
	// Scorer takes the outcomes; nil: one is made.
	Scorer *simulation.Scorer
}

// Result of Run.
type Result struct {
	simulation.Score
	Policies uint32        // put into force
	Refused  uint64        // policies of the sampler
	Promoted int           // classes with rows of their own, the most at a time
	Planning time.Duration // the longest that the sampler took, of real time
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
	waiting  *protov1.Answer // on its way
	arrives  int64           // when it does
	result   Result
}

// start is when the virtual clock begins.
var start = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Run runs a sampler against a scenario.
func Run(o Options) (result *Result, err error) {
	if o.Budget == 0 {
		o.Budget = o.Scenario.Budget
	}
	if o.Interval == 0 {
		o.Interval = 250 * time.Millisecond
	}
	if o.Lag == 0 {
		o.Lag = 10 * time.Millisecond
	}
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
		Kernel: r.kernel, Sampler: o.Name, Budget: kernel.Budget{EventsPerSecond: o.Budget}, Tally: r.tally, Log: o.Log,
		Monitor: monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad { return &protov1.HostLoad{} }}),
		Now:     func() time.Time { return start.Add(time.Duration(r.now)) },
	})
	if err := r.all(); err != nil {
		return nil, err
	}
	r.result.Score = o.Scorer.Score()
	r.result.Refused = r.governor.Policy().Refused
	r.result.Policies = r.governor.Policy().Generation - 1
	return &r.result, nil
}

func (r *run) all() error {
	if err := r.ask(nil); err != nil {
		return err
	}
	r.arrives = 0 // the start's answer is there when the load begins
	trials := r.kernel.Trials()
	for e := range r.Scenario.Events(r.Seed) {
		if len(r.events) == len(trials) || e.At >= r.due() {
			if err := r.until(e.At); err != nil {
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
func (r *run) until(at int64) error {
	if err := r.decide(); err != nil {
		return err
	}
	for due := r.due(); due <= at; due = r.due() {
		r.now = due
		r.governor.Expire()
		if r.waiting != nil && due == r.arrives {
			r.governor.Answer(r.waiting)
			r.waiting = nil
			r.result.Promoted = max(r.result.Promoted, r.governor.Policy().Promoted)
			continue
		}
		r.next += int64(r.Interval)
		if err := r.ask(r.governor.Report()); err != nil {
			return err
		}
	}
	r.now = at
	return nil
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
	if report != nil {
		r.result.Planning = max(r.result.Planning, time.Since(began))
	}
	if answer != nil {
		r.waiting, r.arrives = answer, r.now+int64(r.Lag)
	}
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
