package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// firstRetry is how long after a failure a container is looked at again; each time
	// it takes twice as long, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// round is in how long the first process of every container is looked for again,
	// for those whose end no runtime tells.
	round = 30 // ticks
	// grace is how long ByPID knows a namespace that is gone, for the events that are
	// still on their way.
	grace = 10 * time.Second

	mostCgroups = 64  // of one container whose processes are listed
	mostProcs   = 256 // of one cgroup that are considered for the first one
)

// retry is a container that could not be read.
type retry struct {
	at    time.Time
	pause time.Duration
}

// departure is a pid namespace whose containers are gone.
type departure struct {
	owner *owner
	inode uint32
	at    time.Time
}

// all looks at all containers that there are, and forgets those that are gone.
func (n *Namespaces) all() {
	n.behind.Store(false)
	there := map[key]bool{}
	for _, v := range n.options.Inventory.Containers() {
		k := key{v.Container.GetScope(), v.Container.GetId()}
		there[k] = true
		n.consider(k, v)
	}
	for k := range n.members {
		if !there[k] {
			n.forget(k)
		}
	}
	for k := range n.retries {
		if !there[k] {
			delete(n.retries, k)
		}
	}
}

// look looks at one container.
func (n *Namespaces) look(k key) {
	v, ok := n.options.Inventory.Get(k.ref())
	if !ok {
		delete(n.retries, k)
		n.forget(k)
		return
	}
	n.consider(k, v)
}

// consider reads a container's first process, unless that was done.
func (n *Namespaces) consider(k key, v inventory.View) {
	old := n.members[k] // written by this goroutine only
	switch {
	case !runs(v.Container):
		delete(n.retries, k)
		if old != nil {
			n.forget(k)
		}
		return
	case old != nil && old.is(v):
		return
	case old != nil:
		n.forget(k)
	}
	m, uids, gids, err := n.first(k, v)
	if err != nil {
		n.failed(k, err)
		return
	}
	delete(n.retries, k)
	n.link(m, uids, gids)
}

// runs tells whether a container may have processes. Not every source tells its state.
func runs(c *protov1.Container) bool {
	switch c.GetState() {
	case protov1.Container_STATE_EXITED, protov1.Container_STATE_DEAD, protov1.Container_STATE_REMOVING:
		return false
	case protov1.Container_STATE_CREATED:
		return c.GetPid() != 0 // some runtimes make the process before they start it
	}
	return true
}

// failed has a container looked at again later.
func (n *Namespaces) failed(k key, err error) {
	n.mu.Lock()
	switch {
	case errors.Is(err, fs.ErrPermission):
		n.stats.Unreadable++
	case errors.Is(err, errAnothers):
		n.stats.Others++
	}
	n.mu.Unlock()
	r := n.retries[k]
	r.pause = min(max(2*r.pause, firstRetry), lastRetry)
	r.at = n.options.Now().Add(r.pause)
	n.retries[k] = r
}

// tick does what is to be done from time to time.
func (n *Namespaces) tick() {
	if n.behind.Load() {
		n.mu.Lock()
		n.stats.Missed++
		n.mu.Unlock()
		n.all()
	}
	now := n.options.Now()
	for k, r := range n.retries {
		if !now.Before(r.at) {
			n.look(k)
		}
	}
	n.verify()
	for len(n.leaving) > 0 && now.Sub(n.leaving[0].at) >= grace {
		n.table.dropIf(n.leaving[0].inode, n.leaving[0].owner)
		n.leaving = n.leaving[1:]
	}
}

// verify looks whether the first processes of some containers are still there; in a
// round of ticks, of all. Their ends are told by the runtimes, but not by one that is
// away.
func (n *Namespaces) verify() {
	if len(n.rounds) == 0 {
		for k := range n.members {
			n.rounds = append(n.rounds, k)
		}
	}
	some := min(len(n.rounds), len(n.members)/round+1)
	for _, k := range n.rounds[:some] {
		m := n.members[k]
		if m == nil || n.there(m) {
			continue
		}
		n.forget(k)
		n.look(k)
	}
	n.rounds = n.rounds[some:]
}

// there tells whether a container's first process still is.
func (n *Namespaces) there(m *member) bool {
	now := n.options.Monotonic()
	start, err := startOf(n.options.Proc, m.pid)
	if err != nil {
		return !errors.Is(err, errGone)
	}
	if start != m.start {
		return false
	}
	m.seen.Store(now)
	if o := n.table.get(uint32(m.set[PID])); o != nil && o.handle == m.handle {
		o.seen.Store(now)
	}
	return true
}

// errAnothers says that a process is not the container's whose pid it has.
var errAnothers = errors.New("the process is not the container's")

// errNoProcess says that a container has no process that is known.
var errNoProcess = errors.New("no process of the container is known")

// first reads the first process of a container: the one that its sources name, and
// where that is none of its own, one of its cgroups'.
func (n *Namespaces) first(k key, v inventory.View) (m *member, uids, gids Map, err error) {
	m = &member{key: k, handle: v.Handle(), told: v.Container.GetPid(), since: v.Container.GetStartedUnixNano()}
	err = errNoProcess
	if m.told != 0 {
		if uids, gids, err = n.readInto(m, m.told, v); err == nil {
			return m, uids, gids, nil
		}
	}
	pid, ok := n.firstOfCgroups(v)
	if !ok || pid == m.told {
		return nil, nil, nil, err
	}
	uids, gids, other := n.readInto(m, pid, v)
	if other != nil {
		return nil, nil, nil, errors.Join(err, other)
	}
	return m, uids, gids, nil
}

// readInto reads a process of a container.
func (n *Namespaces) readInto(m *member, pid uint32, v inventory.View) (uids, gids Map, err error) {
	p, err := open(n.options.Proc, pid)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	m.seen.Store(n.options.Monotonic())
	if m.start, err = p.start(); err != nil {
		return nil, nil, err
	}
	if m.set, err = p.namespaces(); err != nil {
		return nil, nil, err
	}
	if err := n.check(p, pid, m, v); err != nil {
		return nil, nil, err
	}
	s, err := p.status()
	if err != nil {
		return nil, nil, err
	}
	m.pid, m.pids = pid, s.pids
	if n.IsHost(ID{User, m.set[User]}) {
		return nil, nil, nil
	}
	if uids, gids, err = p.maps(); err == nil && len(uids) == 0 {
		err = fmt.Errorf("read process %d: its user namespace is not mapped yet", pid)
	}
	return uids, gids, err
}

// check holds a process against the container that it is said to be of: by its cgroup,
// and where that is nobody's, by the names of its cgroups in the other hierarchies or
// by its mounts and its age.
func (n *Namespaces) check(p *process, pid uint32, m *member, v inventory.View) error {
	g, err := n.options.OfPID(pid)
	if err != nil {
		return ofProcess(p.name, err)
	}
	if g != nil {
		if h := g.Handle(); h == v.Handle() {
			return p.still(m.start) // the cgroup was found by the pid
		} else if h != (inventory.Handle{}) {
			return errAnothers
		}
	}
	if named, err := p.named(v.Container.GetId(), v.Container.GetCgroupPath()); err != nil || named {
		return err
	}
	if n.IsHost(ID{Mount, m.set[Mount]}) {
		return errAnothers // no container does without a mount namespace
	}
	since := v.Container.GetStartedUnixNano()
	if since == 0 {
		if len(v.CgroupIDs) > 0 {
			return errAnothers
		}
		return nil // there is nothing to hold it against
	}
	at, err := startedAt(m.start)
	if err != nil {
		return err
	}
	if at.After(latest(since, time.Now())) {
		return errAnothers // it was given the pid after the container's was gone
	}
	return nil
}

// latest is the latest start that the first process of a container may seem to have by
// now: a runtime tells the time after it has started it, some in whole seconds. The
// clocks may have gone apart since.
func latest(since int64, now time.Time) time.Time {
	at := time.Unix(0, since).Add(2 * clockTick)
	if since%int64(time.Second) == 0 {
		at = at.Add(time.Second)
	}
	return at.Add(now.Sub(at).Abs() / 1000)
}

// still tells by an error when a process is gone.
func (p *process) still(start uint64) error {
	if now, err := p.start(); err != nil || now != start {
		return errGone
	}
	return nil
}

// firstOfCgroups finds the first process of a container in its cgroups: that which is
// the first in its pid namespace, else the oldest.
func (n *Namespaces) firstOfCgroups(v inventory.View) (first uint32, ok bool) {
	var oldest uint64
	for _, id := range v.CgroupIDs[:min(len(v.CgroupIDs), mostCgroups)] {
		g := n.options.Inventory.Lookup(id)
		if g == nil {
			continue
		}
		pids, err := n.options.Inventory.Procs(g, mostProcs)
		if err != nil {
			continue // it is gone, or has threads: the others may tell
		}
		for _, pid := range pids {
			start, own, err := n.glance(pid)
			switch {
			case err != nil: // gone
			case own == 1:
				return pid, true
			case first == 0 || start < oldest:
				first, oldest = pid, start
			}
		}
	}
	return first, first != 0
}

// glance tells when a process was started and its pid in its own namespace.
func (n *Namespaces) glance(pid uint32) (start uint64, own uint32, err error) {
	p, err := open(n.options.Proc, pid)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if start, err = p.start(); err != nil {
		return 0, 0, err
	}
	s, err := p.status()
	return start, s.own(), err
}
