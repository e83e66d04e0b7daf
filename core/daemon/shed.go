package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// How long a load has to last before a probe is detached for it, and calm before one
// comes back.
const (
	shedAfter   = 5 * time.Second
	returnAfter = 30 * time.Second
)

// shedding decides which probes are detached under critical load, in the order that the
// operator gave, and when they come back, in the opposite order.
type shedding struct {
	order []string
	away  int       // so many of them are detached
	since time.Time // that the load is critical, or calm, or that the last step was taken
	level monitor.Level
}

// next says of a load, seen at now, which probe is to go or to come; both "": none.
func (s *shedding) next(now time.Time, level monitor.Level) (detach, attach string) {
	critical, calm := level == monitor.Critical, level <= monitor.Medium
	wasCritical, wasCalm := s.level == monitor.Critical, s.level <= monitor.Medium
	if s.since.IsZero() || critical != wasCritical || calm != wasCalm {
		s.since = now
	}
	s.level = level
	switch lasted := now.Sub(s.since); {
	case critical && lasted >= shedAfter && s.away < len(s.order):
		s.since = now
		s.away++
		return s.order[s.away-1], ""
	case calm && lasted >= returnAfter && s.away > 0:
		s.since = now
		s.away--
		return "", s.order[s.away]
	}
	return "", ""
}

// shed probes, and the lock under which probes change.
type shed struct {
	sync.Mutex
	away []string
}

// keepShedding detaches probes while the load is critical, until ctx is done.
func (d *daemon) keepShedding(ctx context.Context, m *monitor.Monitor) {
	s := shedding{order: d.config.Load.Shed}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		seen := m.Last()
		if seen.Time.IsZero() {
			continue
		}
		detach, attach := s.next(time.Now(), seen.State.Level)
		if detach != "" {
			d.shed(detach, seen.State.String())
		}
		if attach != "" {
			d.unshed(attach)
		}
	}
}

// probeNamed finds a probe by its name.
func probeNamed(name string) func(kernel.Probe) bool {
	return func(p kernel.Probe) bool { return p.Name == name }
}

// shed detaches a probe, if it is there.
func (d *daemon) shed(name, why string) {
	d.shedding.Lock()
	defer d.shedding.Unlock()
	if !slices.ContainsFunc(d.kernel.Probes(), probeNamed(name)) {
		return
	}
	if err := d.kernel.DetachProbe(name); err != nil {
		d.log.Error("detach a probe for the load", "probe", name, "error", err)
		return
	}
	d.shedding.away = append(d.shedding.away, name)
	d.log.Warn("the load is critical: a probe is detached until it is not", "probe", name, "load", why)
}

// unshed attaches a probe that was detached for the load.
func (d *daemon) unshed(name string) {
	d.shedding.Lock()
	defer d.shedding.Unlock()
	i := slices.Index(d.shedding.away, name)
	if i < 0 {
		return // it was not there, or a reload has seen to it
	}
	if err := d.kernel.AttachProbe(name); err != nil {
		d.log.Error("attach a probe again", "probe", name, "error", err)
		return
	}
	d.shedding.away = slices.Delete(d.shedding.away, i, i+1)
	d.log.Info("the load is bearable: a probe is attached again", "probe", name)
}

// shedProbes are those that are detached for the load.
func (d *daemon) shedProbes() (out []*protov1.ProbeStats) {
	d.shedding.Lock()
	defer d.shedding.Unlock()
	for _, name := range d.shedding.away {
		out = append(out, &protov1.ProbeStats{Name: name, State: "shed", Reason: "the load is critical, or was a moment ago; what it would see is not seen"})
	}
	return out
}
