package main

import (
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// mostStopped bounds the units that are remembered after they have stopped, so that a
// host that makes up names for them does not fill the memory.
const mostStopped = 4096

// units are those known, each by the path of its control group. A unit that has stopped
// stays, and keeps its claim on the path: when it starts again its first event is its
// own. One goroutine uses it.
type units struct {
	config Config
	inv    discover.Inventory
	now    func() time.Time
	missed uint64 // facts, in all

	byPath  map[string]*known
	stopped int
	listing map[string]*known // since a reset of the facts; nil: there is none under way
}

// known is one unit.
type known struct {
	unit
	path              string
	cgroup            uint64
	started, finished time.Time // zero: not known; not yet
}

func newUnits(c Config, inv discover.Inventory, now func() time.Time) *units {
	return &units{config: c, inv: inv, now: now, byPath: map[string]*known{}}
}

// take takes one fact.
func (u *units) take(f *protov1.HostFact) error {
	switch f := f.GetFact().(type) {
	case *protov1.HostFact_Reset_:
		u.listing = map[string]*known{}
	case *protov1.HostFact_Synced:
		return u.listed()
	case *protov1.HostFact_Cgroup:
		switch f.Cgroup.GetChange() {
		case protov1.CgroupFact_CHANGE_PRESENT, protov1.CgroupFact_CHANGE_CREATED:
			return u.created(f.Cgroup)
		case protov1.CgroupFact_CHANGE_REMOVED:
			return u.removed(f.Cgroup)
		}
	}
	return nil
}

func (u *units) created(f *protov1.CgroupFact) error {
	name, ok := parse(f.GetPath())
	if f.GetHierarchy() != "" || !ok || !u.config.wants(name.name) || ofContainer(name.name) {
		return nil
	}
	k := &known{unit: name, path: f.GetPath(), cgroup: f.GetId()}
	if f.GetTimeUnixNano() != 0 {
		k.started = time.Unix(0, f.GetTimeUnixNano())
	}
	if u.listing != nil {
		u.listing[k.path] = k
		return nil
	}
	if old := u.byPath[k.path]; old != nil {
		if old.cgroup == k.cgroup && old.finished.IsZero() {
			return nil // told already
		}
		if !old.finished.IsZero() {
			u.stopped--
		}
	}
	u.byPath[k.path] = k
	return u.inv.Container(k.describe())
}

func (u *units) removed(f *protov1.CgroupFact) error {
	of := u.byPath
	if u.listing != nil {
		of = u.listing
	}
	k := of[f.GetPath()]
	if k == nil || k.cgroup != f.GetId() || !k.finished.IsZero() {
		return nil
	}
	if u.listing != nil {
		delete(u.listing, k.path)
		return nil
	}
	return u.stop(k)
}

// stop keeps a unit for the time that it may start again.
func (u *units) stop(k *known) error {
	k.finished = u.now()
	u.stopped++
	if err := u.inv.Container(k.describe()); err != nil {
		return err
	}
	for u.stopped > mostStopped {
		var oldest *known
		for _, other := range u.byPath {
			if !other.finished.IsZero() && (oldest == nil || other.finished.Before(oldest.finished)) {
				oldest = other
			}
		}
		if err := u.forget(oldest); err != nil {
			return err
		}
	}
	return nil
}

// listed follows a list of all control groups: units that it lacks have stopped. All
// that is known is told as a snapshot.
func (u *units) listed() error {
	if u.listing == nil {
		return nil
	}
	if err := u.inv.Reset(); err != nil {
		return err
	}
	for path, k := range u.byPath {
		now, there := u.listing[path]
		switch {
		case !there && k.finished.IsZero():
			k.finished = u.now()
			u.stopped++
			fallthrough
		case !there:
			if err := u.inv.Container(k.describe()); err != nil {
				return err
			}
		case !k.finished.IsZero():
			u.stopped--
		case now.cgroup == k.cgroup:
			now.started = k.started
		}
	}
	for path, k := range u.listing {
		u.byPath[path] = k
		if err := u.inv.Container(k.describe()); err != nil {
			return err
		}
	}
	u.listing = nil
	return u.inv.Synced()
}

// sweep forgets the units that have been stopped for long enough.
func (u *units) sweep() error {
	before := u.now().Add(-u.config.Keep)
	for _, k := range u.byPath {
		if k.finished.IsZero() || k.finished.After(before) || u.listing != nil {
			continue
		}
		if err := u.forget(k); err != nil {
			return err
		}
	}
	return nil
}

func (u *units) forget(k *known) error {
	delete(u.byPath, k.path)
	u.stopped--
	return u.inv.RemoveContainer(&protov1.ContainerRef{Id: k.id(), Scope: "systemd"})
}

// id of a unit among those of a host, the users' ones included.
func (k *known) id() string { return k.path }

func (k *known) describe() *protov1.Container {
	c := &protov1.Container{
		Id: k.id(), Scope: "systemd", Name: k.name, Runtime: "systemd",
		State: protov1.Container_STATE_RUNNING, Labels: k.labels(),
		CgroupPath: k.path, CgroupId: k.cgroup,
	}
	if !k.started.IsZero() {
		c.StartedUnixNano = k.started.UnixNano()
	}
	if !k.finished.IsZero() {
		c.State, c.FinishedUnixNano = protov1.Container_STATE_EXITED, k.finished.UnixNano()
		c.CgroupId = 0 // of another, perhaps, when it is used again
	}
	return c
}
