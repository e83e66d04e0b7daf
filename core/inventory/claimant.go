package inventory

import "time"

const (
	// mostClaimants is how many discoverers can claim cgroups; what more there are
	// is not waited for.
	mostClaimants = 64
	// claimGrace is how long a claimant that is away is still waited for: longer
	// than it takes to start it again.
	claimGrace = 2 * time.Second
)

// claimants are the discoverers that answer for every new cgroup whether it is one
// of their containers'. Nothing in the path of such a cgroup tells. It is under the
// inventory's lock.
type claimants []claimant

// claimant has a bit by its place: 1 << index.
type claimant struct {
	name string    // "": the place is free
	gone time.Time // zero: it is there
}

func (c claimants) find(name string) int {
	for at := range c {
		if c[at].name == name {
			return at
		}
	}
	return -1
}

// asked are the claimants that a cgroup that has just come waits for, a bit each.
func (c claimants) asked(now time.Time) (bits uint64) {
	for at := range c {
		if c[at].name != "" && (c[at].gone.IsZero() || now.Sub(c[at].gone) < claimGrace) {
			bits |= 1 << at
		}
	}
	return bits
}

// away notes that a claimant does not answer for now.
func (c claimants) away(name string, now time.Time) {
	if at := c.find(name); at >= 0 && c[at].gone.IsZero() {
		c[at].gone = now
	}
}

// Claims says that a discoverer answers for cgroups from now on: for each that it is
// told of, with a container or with considered. Events of a new cgroup that may be its
// container's are Pending until then. Forget takes it back.
func (i *Inventory) Claims(name string) {
	i.lock()
	defer i.mu.Unlock()
	at := i.claimants.find(name)
	if at < 0 {
		at = i.claimants.find("")
	}
	switch {
	case at >= 0:
		i.claimants[at] = claimant{name: name}
	case len(i.claimants) < mostClaimants:
		i.claimants = append(i.claimants, claimant{name: name})
	default:
		i.stats.Refused++
	}
}

// considered takes a claimant's word that a cgroup is none of its containers'.
func (i *Inventory) considered(name string, id uint64) {
	at := i.claimants.find(name)
	if g := i.Lookup(id); g != nil && at >= 0 {
		g.answered(at)
	}
}

// answered notes that a claimant has nothing more to say of a cgroup.
func (c *Cgroup) answered(at int) {
	for {
		asked := c.asked.Load()
		if c.asked.CompareAndSwap(asked, asked&^(1<<at)) {
			return
		}
	}
}

// unclaim waits for a claimant no longer.
func (i *Inventory) unclaim(name string) {
	at := i.claimants.find(name)
	if at < 0 {
		return
	}
	i.cgroups.each(func(g *Cgroup) { g.answered(at) })
	i.claimants[at] = claimant{}
}
