package inventory

import (
	"context"
	"time"
)

const (
	// QueueSize is how many changes of cgroups may wait to be applied.
	QueueSize = 65536

	hold   = 500 * time.Microsecond // that the lock is held in one go
	few    = 8                      // steps between two looks at the clock
	sweeps = time.Second            // between two sweeps of Run
)

// news is one change of a cgroup, as the kernel told it.
type news struct {
	cgroup  *Cgroup
	removed bool
	at      time.Time // when, by the kernel; zero: not known
}

// CgroupCreated tells of a cgroup of the default hierarchy, its path from the
// hierarchy's root and when it was made by the kernel's word, which observers are told
// in turn. It never waits for the inventory's lock: Lookup finds the
// cgroup when it returns, its owner follows when the lock is free, at the latest
// when the next piece of somebody else's work is done. Till then the cgroup is
// Pending.
func (i *Inventory) CgroupCreated(id uint64, path string, at time.Time) {
	if g, made := i.cgroups.add(id, path); made {
		i.hear(news{cgroup: g, at: at})
	}
}

// CgroupRemoved tells that a cgroup is gone and since when. It is remembered for a
// while. It never waits for the inventory's lock.
func (i *Inventory) CgroupRemoved(id uint64, at time.Time) {
	if g := i.Lookup(id); g != nil {
		i.hear(news{cgroup: g, removed: true, at: at})
	}
}

// hear queues news, in order, and applies a few where the lock is free.
func (i *Inventory) hear(n news) {
	select {
	case i.news <- n:
	default:
		i.missed.Add(1)
		i.options.Rescan()
	}
	if i.mu.TryLock() {
		i.since = time.Now()
		i.sweep(few)
		i.catchUp(few)
		more := i.behind()
		i.mu.Unlock()
		if !more {
			return
		}
	}
	select {
	case i.wake <- struct{}{}:
	default: // it is awake
	}
}

// Run does until ctx is done what nobody waits for: it applies what the kernel
// told while the lock was taken, and once a second forgets what has been gone
// for the grace period, and what a discoverer told that has been away for
// Options.StaleTTL. It is to be called once.
func (i *Inventory) Run(ctx context.Context) {
	ticks := time.NewTicker(sweeps)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-i.wake:
			i.lock()
		case <-ticks.C:
			i.lock()
			i.tidy()
		}
		i.finish()
		i.mu.Unlock()
	}
}

// tidy forgets all whose time is up.
func (i *Inventory) tidy() {
	for i.sweep(few) {
		i.pause()
	}
	i.expire()
}

// lock takes the lock. While it is held, pause is called between pieces of work.
func (i *Inventory) lock() {
	i.mu.Lock()
	i.since = time.Now()
}

// pause lets others at the lock when it has been held for long enough, after
// applying what the kernel told meanwhile. Whoever calls it must look up again
// what it knew before.
func (i *Inventory) pause() {
	if time.Since(i.since) < hold {
		return
	}
	i.catchUp(few)
	i.mu.Unlock()
	i.lock()
}

// finish does all work that is left, with pauses.
func (i *Inventory) finish() {
	for i.work(few) {
		i.pause()
	}
}

// work does up to n pieces of each kind of work that is left, and tells whether
// there is more.
func (i *Inventory) work(n int) (more bool) {
	i.catchUp(n)
	i.makeAnew(n)
	return i.behind()
}

// catchUp applies up to n pieces of news and looks for up to n owners.
func (i *Inventory) catchUp(n int) {
	for range min(n, len(i.news)) { // only who has the lock receives
		if one := <-i.news; one.removed {
			i.remove(one.cgroup, one.at)
		} else {
			i.link(one.cgroup, one.at)
		}
	}
	i.settle(n)
}

// behind tells whether there is work left.
func (i *Inventory) behind() bool {
	return len(i.news)+len(i.tree.unsettled)+len(i.unmade) > 0
}
