package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// tolerance is how many times the budget may be kept in a second.
	tolerance = 1.1
	// pause between two readings of the ledger.
	pause = time.Second
	// slow is how long a reading may take, before it is tried again: its time would
	// not be known well enough.
	slow = 20 * time.Millisecond
	// silence of the sampler's reports, after which the host's load is read anyway.
	silence = 3 * pause / 2
)

// ledger is a Kernel that tells its totals. Of one that does not, nothing is watched.
type ledger interface {
	Ledger() (rows []kernel.Row, generation uint32, swaps uint64, err error)
}

// reading of the ledger: totals since the start, without what feeds the daemon itself.
type reading struct {
	at                            time.Time
	seen, kept, dropped, filtered uint64  // of the kernel and of programs
	kernel                        uint64  // kept, of the kernel alone
	swaps, unsteady               uint64  // policies put into force, and those by no steering sampler
	budget                        float64 // in force
}

// Window is the load over some time up to the last reading.
type Window struct {
	Duration              time.Duration
	Seen, Kept, Filtered  float64 // events a second
	Kernel                float64 // those of the kernel that were kept, which the budget is for
	SamplingRate          float64 // share that was kept of those that no filter left out; 1: there was none
	DropRate              float64 // the rest
	Adaptations, unsteady uint64
	decided               uint64
}

// Bound is how well the budget holds. A second counts from one reading to the next.
type Bound struct {
	Seconds, Within uint64
	Worst           float64   // most kept, as a share of the budget
	WorstAt         time.Time // when that second ended
}

// Alert is a condition that the log warns of, once when it begins.
type Alert struct {
	Name   string
	Active bool
	Since  time.Time // when it last began or ended; zero: it never did
	Times  uint64    // that it began
	Text   string    // what was seen when it began last
}

// Truth is what really happened, by the ledger.
type Truth struct {
	Second, Minute Window
	Bound          Bound
	Alerts         []Alert
}

// truth keeps the readings of the last minute.
type truth struct {
	mu       sync.Mutex
	readings []reading // the oldest first
	bound    Bound
	alarms   [alarms]alarm
}

const minute = 60 // readings

// add takes a reading; steering says that the sampler changes its policy all the time.
func (t *truth) add(r reading, steering bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.readings); n > 0 {
		last := t.readings[n-1]
		if !r.at.After(last.at) {
			return
		}
		r.unsteady = last.unsteady
		if !steering {
			r.unsteady += since(r.swaps, last.swaps)
		}
		// Where it changed in between, either held for some of the time.
		if budget := max(r.budget, last.budget); r.budget > 0 && last.budget > 0 {
			ratio := float64(since(r.kernel, last.kernel)) / r.at.Sub(last.at).Seconds() / budget
			t.bound.Seconds++
			if ratio <= tolerance {
				t.bound.Within++
			}
			if ratio > t.bound.Worst {
				t.bound.Worst, t.bound.WorstAt = ratio, r.at
			}
		}
		if n > minute {
			t.readings = append(t.readings[:0], t.readings[1:]...)
		}
	}
	t.readings = append(t.readings, r)
}

// since is b - a of counts, of which kept may fall by what turns out to be lost.
func since(b, a uint64) uint64 { return b - min(a, b) }

// window is over the last readings, as many as there are. With mu.
func (t *truth) window(most int) Window {
	n := len(t.readings)
	if n < 2 {
		return Window{SamplingRate: 1}
	}
	a, b := t.readings[max(n-1-most, 0)], t.readings[n-1]
	w := Window{Duration: b.at.Sub(a.at), Adaptations: since(b.swaps, a.swaps), unsteady: since(b.unsteady, a.unsteady), SamplingRate: 1}
	seconds := w.Duration.Seconds()
	kept, dropped := since(b.kept, a.kept), since(b.dropped, a.dropped)
	w.Seen, w.Kept = float64(since(b.seen, a.seen))/seconds, float64(kept)/seconds
	w.Kernel = float64(since(b.kernel, a.kernel)) / seconds
	w.Filtered = float64(since(b.filtered, a.filtered)) / seconds
	if w.decided = kept + dropped; w.decided > 0 {
		w.SamplingRate = float64(kept) / float64(w.decided)
		w.DropRate = float64(dropped) / float64(w.decided)
	}
	return w
}

// told gives what there is to tell.
func (t *truth) told() Truth {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Truth{Second: t.window(1), Minute: t.window(minute), Bound: t.bound}
	for i, a := range t.alarms {
		out.Alerts = append(out.Alerts, Alert{Name: alarmNames[i], Active: a.on, Since: a.since, Times: a.times, Text: a.text})
	}
	return out
}

// judge looks whether there is something to warn of, and gives what began and ended.
func (t *truth) judge(now time.Time, s monitor.State) (began, ended []Alert) {
	const (
		lately = 10  // readings
		few    = 100 // events, of which a share means little
		often  = 10  // adaptations in a minute
	)
	t.mu.Lock()
	defer t.mu.Unlock()
	w, m := t.window(lately), t.window(minute)
	some := w.decided >= few && w.Duration > (lately-1)*pause
	for i, c := range [alarms]struct {
		met, clear bool
		text       string
	}{
		highDropRate: {some && w.DropRate > 0.5, !some || w.DropRate < 0.45,
			fmt.Sprintf("%.1f %% of the events of the last %d s were dropped, more than half: there is far more than the policy and the budget let through", 100*w.DropRate, lately)},
		lowSamplingRate: {some && w.SamplingRate < 0.1, !some || w.SamplingRate > 0.11,
			fmt.Sprintf("%.1f %% of the events of the last %d s were kept, less than a tenth: what is rare may be missing; filter what nobody needs, or raise the budget", 100*w.SamplingRate, lately)},
		frequentAdaptations: {m.unsteady > often, m.unsteady < often-1,
			fmt.Sprintf("%d policies were put into force within a minute, more than %d: the load is unstable", m.unsteady, often)},
		resourceExhaustion: {s.Level == monitor.Critical, s.Level < monitor.Critical, fmt.Sprintf("the host is at its end: %v", s)},
	} {
		switch a := &t.alarms[i]; a.observe(now, c.met, c.clear) {
		case +1:
			a.text = c.text
			began = append(began, Alert{Name: alarmNames[i], Text: c.text})
		case -1:
			ended = append(ended, Alert{Name: alarmNames[i]})
		}
	}
	return began, ended
}

const (
	highDropRate = iota
	lowSamplingRate
	frequentAdaptations
	resourceExhaustion
	alarms
)

var alarmNames = [alarms]string{"high_drop_rate", "low_sampling_rate", "frequent_adaptations", "resource_exhaustion"}

// calm is for how long a condition must have been over.
const calm = 30 * time.Second

// alarm is a condition that begins at once and ends slowly.
type alarm struct {
	on           bool
	since, below time.Time
	times        uint64
	text         string
}

// observe gives +1 when it begins now and -1 when it ends.
func (a *alarm) observe(now time.Time, met, clear bool) int {
	switch {
	case met && !a.on:
		a.on, a.since, a.below = true, now, time.Time{}
		a.times++
		return +1
	case !a.on:
	case !clear:
		a.below = time.Time{}
	case a.below.IsZero():
		a.below = now
	case now.Sub(a.below) >= calm:
		a.on, a.since = false, now
		return -1
	}
	return 0
}

// Truth of the last minute, and since the start.
func (g *Governor) Truth() Truth { return g.truth.told() }

// Estimates are made of the kept events, by event.Row.
func (g *Governor) Estimates() [event.PooledRows]Sum { return g.options.Tally.Sums() }

// Observation of the host's load that was made last.
func (g *Governor) Observation() monitor.Observation { return g.options.Monitor.Last() }

// watch reads the ledger each second, until ctx is done.
func (g *Governor) watch(ctx context.Context, l ledger) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		if err := g.look(l); err != nil {
			g.options.Log.Error("read the kernel's totals", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look reads the ledger once, and warns.
func (g *Governor) look(l ledger) error {
	var rows []kernel.Row
	var r reading
	for range 2 {
		var err error
		before := g.options.Now()
		if rows, _, r.swaps, err = l.Ledger(); err != nil {
			return err
		}
		after := g.options.Now()
		r.at = before.Add(after.Sub(before) / 2)
		if after.Sub(before) < slow {
			break
		}
	}
	for _, row := range rows {
		if !row.Kind.Internal() {
			r.seen += row.Seen
			r.kernel += row.Kept
			r.dropped += row.SampledOut + row.Lost
			r.filtered += row.Filtered
		}
	}
	r.kept = r.kernel
	for _, row := range g.user.Rows() {
		r.seen += row.Events + row.SampledOut
		r.kept += row.Events
		r.dropped += row.SampledOut
	}
	var steering bool
	r.budget, steering = g.steered()
	g.truth.add(r, steering)
	g.unheard(r.at)
	began, ended := g.truth.judge(r.at, g.options.Monitor.Last().State)
	for _, a := range began {
		g.options.Log.Warn(a.Text, "alert", a.Name)
	}
	for _, a := range ended {
		g.options.Log.Info("an alert is over", "alert", a.Name)
	}
	return nil
}

// steered gives the budget in force, and whether whose policy it is changes it all the
// time, to fill the budget: that is no sign of an unstable load.
func (g *Governor) steered() (budget float64, steering bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now.Budget, g.plan.fill
}

// unheard observes the host's load when no report did so lately.
func (g *Governor) unheard(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.options.Monitor.Last().Time) < silence {
		return
	}
	second := g.truth.told().Second
	g.relieve(now, monitor.Flow{Ring: g.options.Ring(), Queues: depths(g.options.Queues()), Seen: second.Seen, Kept: second.Kept})
}

func depths(queues []Queue) []*protov1.QueueDepth {
	out := make([]*protov1.QueueDepth, len(queues))
	for i, q := range queues {
		out[i] = &protov1.QueueDepth{Queue: q.Name, Depth: q.Depth, Capacity: q.Capacity}
	}
	return out
}
