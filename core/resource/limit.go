package resource

import (
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
)

// Limit is a limit that a container can be near to.
type Limit uint8

const (
	OfMemory Limit = iota // the working set, of the most memory
	OfPids                // tasks, of the most
	OfCPU                 // periods in which the CPU quota was used up, of all in which it was in force

	Limits
)

var limitNames = [Limits]string{"memory", "pids", "cpu"}

func (l Limit) String() string { return limitNames[l] }

const (
	// ends is the share of Options.WarnAt below which a warning is over, so that a
	// container that goes up and down around it is told of once.
	ends = 0.9
	// fewPeriods are too few to judge by: one second of the usual ones.
	fewPeriods = 10
	// mostLogged warnings go into the log in a minute; the rest is counted.
	mostLogged = 30
	mostName   = 128 // bytes of a name in the log
)

// warning says that a container has come near to a limit, or is so no longer.
type warning struct {
	workload *inventory.Workload // whose
	limit    Limit
	used, of uint64  // bytes, tasks, periods
	share    float64 // used of of
	ended    bool    // it is not near any more
	time     time.Time
}

// limits are the warnings of all containers.
type limits struct {
	warnings [Limits]uint64 // so many there were
	minute   time.Time      // in which ...
	logged   int            // ... so many were logged
	unlogged int            // and so many were not
}

// measure gives how near a container is to a limit; false: it has none, or there is
// nothing to judge by.
func (c *container) measure(l Limit) (used, of uint64, ok bool) {
	u := &c.usage
	switch l {
	case OfMemory:
		used, ok = u.Get(WorkingSet)
		of = u.v[MemoryLimit]
		ok = ok && u.has&(1<<MemoryLimit) != 0
	case OfPids:
		used, ok = u.Get(Pids)
		of = u.v[PidsLimit]
		ok = ok && u.has&(1<<PidsLimit) != 0
	case OfCPU:
		periods, there := u.Get(Periods)
		before, was := c.last.Get(Periods)
		if !there || !was || periods < before {
			return 0, 0, false
		}
		used, of = u.v[ThrottledPeriods]-min(u.v[ThrottledPeriods], c.last.v[ThrottledPeriods]), periods-before
		if of == 0 {
			return 0, 1, true // it was idle, or has no quota
		}
		ok = of >= fewPeriods
	}
	return used, of, ok && of > 0
}

// judge warns where a container has come near to a limit since its last reading.
func (m *Monitor) judge(c *container, now time.Time) {
	if m.options.WarnAt == 0 {
		return
	}
	for l := range Limits {
		used, of, ok := c.measure(l)
		if !ok {
			if l != OfCPU { // no limit: no longer near one. Few periods say nothing.
				c.share[l] = 0
				m.turn(c, warning{limit: l, time: now}, false)
			}
			continue
		}
		share := float64(used) / float64(of)
		c.share[l] = share
		near := share >= m.options.WarnAt || c.near[l] && share >= m.options.WarnAt*ends
		m.turn(c, warning{limit: l, used: used, of: of, share: share, time: now}, near)
	}
}

// turn notes whether a container is near a limit, and that somebody is to be told if
// that is new.
func (m *Monitor) turn(c *container, w warning, near bool) {
	if c.near[w.limit] == near {
		return
	}
	c.near[w.limit] = near
	if w.ended = !near; near {
		m.limits.warnings[w.limit]++
	}
	w.workload = c.handle.Workload()
	if w.workload != nil {
		m.waiting = append(m.waiting, w)
	}
}

// tell logs the warnings that wait, without the lock.
func (m *Monitor) tell() {
	for _, w := range m.waiting {
		m.log(w)
	}
	clear(m.waiting)
	m.waiting = m.waiting[:0]
}

func (m *Monitor) log(w warning) {
	l := &m.limits
	if w.time.Sub(l.minute) >= time.Minute {
		if l.unlogged > 0 {
			m.options.Log.Warn("more containers came near to limits, or went away from them, than are logged", "count", l.unlogged)
		}
		l.minute, l.logged, l.unlogged = w.time, 0, 0
	}
	if l.logged++; l.logged > mostLogged {
		l.unlogged++
		return
	}
	c := w.workload.Container
	say := m.options.Log.Warn
	message := "a container is near to a limit"
	if w.ended {
		say, message = m.options.Log.Info, "a container is no longer near to a limit"
	}
	say(message, "resource", w.limit.String(), "container", cut(c.GetName(), mostName), "id", cut(c.GetId(), mostName),
		"used", w.used, "limit", w.of, "share", float64(int(w.share*1000))/1000)
}
