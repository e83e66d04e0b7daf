package resource

import "github.com/ebpf-tracer/ebpf-tracer/core/kernel"

// What a container sends and receives is what all the cgroups that are its own do,
// however deep: the kernel counts each by itself, and the inventory says whose it is. A
// cgroup that goes leaves its part with the container.

// entry is the traffic of one cgroup.
type entry struct {
	cgroup uint64
	now    kernel.Traffic
}

// charge is how much of a cgroup's traffic was given to a container, or was nobody's that
// is read.
type charge struct {
	to   *container // nil: nobody's
	upTo kernel.Traffic
}

// list reads the traffic of all cgroups.
func (m *Monitor) list() {
	m.listed = m.listed[:0]
	if m.options.Traffic == nil {
		return
	}
	err := m.options.Traffic.Each(func(cgroup uint64, t kernel.Traffic) bool {
		m.listed = append(m.listed, entry{cgroup, t})
		return true
	})
	if err != nil {
		m.fault("read the traffic of containers", err)
	}
}

func (m *Monitor) fault(what string, err error) {
	m.options.Log.Debug(what, "error", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Faults++
}

// charge gives the containers what was listed. The entries of cgroups of which the
// inventory knows no more are taken out. One that it never knew may be too new: it has
// a pass to become known.
func (m *Monitor) charge() {
	strange := map[uint64]struct{}{}
	for _, e := range m.listed {
		if m.give(e) {
			continue
		}
		_, known := m.charged[e.cgroup]
		_, again := m.strange[e.cgroup]
		if known || again {
			m.release(e.cgroup)
		} else {
			strange[e.cgroup] = struct{}{}
		}
	}
	m.strange = strange
}

// give gives a cgroup's traffic to its container; false: there is no such cgroup.
func (m *Monitor) give(e entry) bool {
	g := m.options.Inventory.Lookup(e.cgroup)
	if g == nil {
		return false
	}
	c, before := m.owners[g.Handle()], m.charged[e.cgroup]
	if c == nil || e.cgroup < c.group { // ids only ever grow
		// The host's, of a container that is not read, or of its last run: it is known
		// whose it is.
		if before.to == nil {
			m.charged[e.cgroup] = charge{upTo: e.now}
		}
		return true
	}
	if before.to != c {
		before.upTo = kernel.Traffic{} // it turned out to be another's
	}
	c.traffic.Add(e.now.Sub(before.upTo))
	m.charged[e.cgroup] = charge{c, e.now}
	return true
}

// release takes out the entry of a cgroup that is gone, and gives what is left of it.
func (m *Monitor) release(cgroup uint64) {
	last, err := m.options.Traffic.Forget(cgroup)
	if err != nil {
		m.options.Log.Debug("take out the traffic of a cgroup that is gone", "error", err)
		m.stats.Faults++
		return
	}
	before, known := m.charged[cgroup]
	delete(m.charged, cgroup)
	to := before.to
	switch {
	case !known:
		m.unplaced.Add(last)
	case to != nil && m.owners[to.handle] == to && cgroup >= to.group: // else of one that is gone, or of its last run
		to.traffic.Add(last.Sub(before.upTo))
	}
}

// mostAsked is how many cgroups of a container are read with it: the rest is as of the
// beginning of the pass.
const mostAsked = 64

// refresh reads the traffic of one container's cgroups.
func (m *Monitor) refresh(c *container) { m.ask(c.cgroups, func(e entry) { m.give(e) }) }

// sum reads the traffic of a container that is not among those that are read.
func (m *Monitor) sum(c *container) {
	m.ask(c.cgroups, func(e entry) {
		if e.cgroup >= c.group {
			c.traffic.Add(e.now)
		}
	})
}

func (m *Monitor) ask(cgroups []uint64, with func(entry)) {
	if m.options.Traffic == nil {
		return
	}
	for _, id := range cgroups[:min(len(cgroups), mostAsked)] {
		now, err := m.options.Traffic.Of(id)
		if err != nil {
			m.options.Log.Debug("read the traffic of a container", "error", err)
			m.stats.Faults++
			return
		}
		if now != (kernel.Traffic{}) {
			with(entry{id, now})
		}
	}
}
