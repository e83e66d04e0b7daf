package load

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestWindowsAndTheBoundAreOfWhatTheLedgerSays(t *testing.T) {
	var tr truth
	r := reading{at: start, budget: 100}
	tr.add(r, false)
	if w := tr.told(); w.Second.SamplingRate != 1 || w.Bound.Seconds != 0 {
		t.Errorf("of one reading: %+v", w)
	}
	for i := range 90 {
		r.at = r.at.Add(time.Second)
		kept := uint64(100)
		switch i {
		case 40:
			kept = 110 // no more than 1.1 times
		case 50:
			kept = 150
		case 60:
			r.budget = 50 // in the middle of a second
		case 89:
			kept = 20
		}
		if i > 60 {
			kept = min(kept, 50)
		}
		r.seen += 1000
		r.kept += kept
		r.kernel += kept
		r.dropped += 900 - kept
		r.filtered += 100
		r.swaps++
		tr.add(r, i >= 30)
	}
	got := tr.told()
	if b := got.Bound; b.Seconds != 90 || b.Within != 89 || b.Worst != 1.5 || !b.WorstAt.Equal(start.Add(51*time.Second)) {
		t.Errorf("the bound: %+v", b)
	}
	if s := got.Second; s.Seen != 1000 || s.Kept != 20 || s.Filtered != 100 || math.Abs(s.SamplingRate-20.0/900) > 1e-9 || math.Abs(s.DropRate-880.0/900) > 1e-9 || s.Adaptations != 1 {
		t.Errorf("the last second: %+v", s)
	}
	if m := got.Minute; m.Duration != time.Minute || m.Seen != 1000 || m.Adaptations != 60 || m.unsteady != 0 {
		t.Errorf("the last minute: %+v", m)
	}
	if len(tr.readings) > minute+1 {
		t.Errorf("%d readings are kept", len(tr.readings))
	}
}

func TestACountThatFallsIsNoHugeRate(t *testing.T) {
	var tr truth
	tr.add(reading{at: start, kept: 10, kernel: 10, seen: 10, budget: 1}, false)
	tr.add(reading{at: start.Add(time.Second), kept: 8, kernel: 8, seen: 12, dropped: 2, budget: 1}, false) // two were lost after all
	if got := tr.told(); got.Second.Kept != 0 || got.Bound.Worst != 0 {
		t.Errorf("%+v", got)
	}
}

func TestAlertsAreToldOnceAndEndSlowly(t *testing.T) {
	var tr truth
	r := reading{at: start}
	var log []string
	second := func(kept, dropped, swaps uint64, steering bool, level monitor.Level) {
		r.at = r.at.Add(time.Second)
		r.kept += kept
		r.dropped += dropped
		r.seen += kept + dropped
		r.swaps += swaps
		tr.add(r, steering)
		began, ended := tr.judge(r.at, monitor.State{Level: level, Resource: monitor.CPU, Share: 0.97})
		for _, a := range began {
			log = append(log, "+"+a.Name)
		}
		for _, a := range ended {
			log = append(log, "-"+a.Name)
		}
	}
	said := func(when, want string) {
		t.Helper()
		if got := strings.Join(log, " "); got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
		log = nil
	}
	tr.add(r, false)
	for range 60 {
		second(100, 50, 0, false, monitor.High)
	}
	said("while all is well", "")
	for range 60 { // above and below one half
		second(45, 55, 0, false, monitor.High)
		second(52, 48, 0, false, monitor.High)
	}
	said("at the edge", "+high_drop_rate")
	for range 20 {
		second(5, 95, 0, false, monitor.Critical)
	}
	said("in a flood", "+resource_exhaustion +low_sampling_rate")
	for range 29 {
		second(100, 0, 0, false, monitor.Low)
	}
	said("just after it", "")
	for range 20 {
		second(100, 0, 0, false, monitor.Low)
	}
	if strings.Count(strings.Join(log, " "), "-") != 3 {
		t.Errorf("at rest: %q", log)
	}
	log = nil
	for range 120 {
		second(100, 0, 2, true, monitor.Low)
	}
	said("while a sampler steers", "")
	for range 20 {
		second(100, 0, 1, false, monitor.Low)
	}
	said("in an unstable load", "+frequent_adaptations")
	for range 15 { // nothing comes any more: a few say nothing of a share
		second(0, 1, 0, false, monitor.Low)
	}
	said("of a few events", "")
	if a := tr.told().Alerts; a[frequentAdaptations].Times != 1 || !a[frequentAdaptations].Active || a[highDropRate].Active || a[resourceExhaustion].Text == "" {
		t.Errorf("%+v", a)
	}
}

func TestEstimatesHoldTheExactCountInTheirInterval(t *testing.T) {
	const rounds, events, share = 400, 2000, 0.05
	rng := rand.New(rand.NewPCG(3, 4))
	within := 0
	for range rounds {
		tally := NewTally()
		for i := range events {
			p := share
			if i%3 == 0 {
				p = 0.5
			}
			if rng.Float64() < p {
				tally.Add(uint64(i%2), event.FileOpen, event.Debug, 1/p, func() string { return "" })
			}
		}
		sum := tally.Sums()[event.Row(event.FileOpen, event.Debug)]
		if low, high := sum.Interval(); low <= events && events <= high {
			within++
		}
	}
	if within < rounds*92/100 || within > rounds*98/100 {
		t.Errorf("%d of %d intervals of 95 %% hold the count", within, rounds)
	}
}

func BenchmarkTally(b *testing.B) {
	tally := NewTally()
	name := func() string { return "cgroup/x" }
	b.ReportAllocs()
	for b.Loop() {
		tally.Add(7, event.FileOpen, event.Debug, 3.5, name)
	}
}

// counting is a kernel that keeps a tenth of a thousand events a second.
type counting struct {
	table
	began time.Time
}

func (c *counting) Ledger() ([]kernel.Row, uint32, uint64, error) {
	n := uint64(time.Since(c.began).Seconds() * 1000)
	return []kernel.Row{
		{Class: kernel.Class{Kind: event.FileOpen}, Counts: kernel.Counts{Seen: n, Kept: n / 20, SampledOut: n - n/20}},
		{Class: kernel.Class{Kind: event.CgroupCreate}, Counts: kernel.Counts{Seen: n, Kept: n}}, // the daemon's own
	}, 1, uint64(c.puts), nil
}

func TestTheGovernorWatchesTheLedgerAndTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		k := &counting{began: time.Now()}
		reads := 0
		g := New(Options{Kernel: k, Sampler: "test", Budget: kernel.Budget{EventsPerSecond: 100},
			Log: slog.New(slog.NewTextHandler(&log, nil)), Monitor: monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad {
				reads++
				return &protov1.HostLoad{CpuUtilization: p(0.97)}
			}})})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		time.Sleep(20*time.Second + time.Millisecond)
		g.User().Decide("a", "info")
		time.Sleep(time.Second)
		cancel()
		<-done
		got := g.Truth()
		if got.Second.Seen != 1001 || got.Second.Kept != 51 || got.Second.Kernel != 50 || got.Bound.Within != got.Bound.Seconds || got.Bound.Worst != 0.5 {
			t.Errorf("%+v", got)
		}
		if reads == 0 || g.Observation().Host.GetCpuUtilization() != 0.97 {
			t.Errorf("the host was read %d times, though nobody reports", reads)
		}
		for _, alert := range []string{"high_drop_rate", "low_sampling_rate", "resource_exhaustion"} {
			if n := strings.Count(log.String(), "level=WARN") - 3; n != 0 || strings.Count(log.String(), "alert="+alert) != 1 {
				t.Errorf("the log says of %s:\n%s", alert, log.String())
			}
		}
	})
}
