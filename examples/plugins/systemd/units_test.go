package main

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// told is what the daemon knows by what an Inventory was given.
type told struct {
	states map[string]protov1.Container_State // by id
	next   map[string]protov1.Container_State // of a snapshot; nil: none
	last   map[string]*protov1.Container
	calls  int
}

func newTold() *told {
	return &told{states: map[string]protov1.Container_State{}, last: map[string]*protov1.Container{}}
}

func (o *told) Reset() error  { o.next = map[string]protov1.Container_State{}; o.calls++; return nil }
func (o *told) Synced() error { o.states, o.next = o.next, nil; o.calls++; return nil }
func (o *told) Container(c *protov1.Container) error {
	o.calls++
	o.last[c.GetId()] = c
	if o.next != nil {
		o.next[c.GetId()] = c.GetState()
		return nil
	}
	o.states[c.GetId()] = c.GetState()
	return nil
}
func (o *told) RemoveContainer(r *protov1.ContainerRef) error {
	o.calls++
	delete(o.states, r.GetId())
	return nil
}
func (*told) Pod(*protov1.Pod) error             { return nil }
func (*told) Service(*protov1.Service) error     { return nil }
func (*told) RemovePod(string) error             { return nil }
func (*told) RemoveService(string) error         { return nil }
func (*told) Lifecycle(*protov1.Lifecycle) error { return nil }
func (*told) Considered(uint64) error            { return nil }
func (*told) Degraded(string)                    {}

const (
	running = protov1.Container_STATE_RUNNING
	exited  = protov1.Container_STATE_EXITED

	web  = "/system.slice/web.service"
	mail = "/system.slice/mail.service"
)

var (
	reset  = &protov1.HostFact{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}}
	synced = &protov1.HostFact{Fact: &protov1.HostFact_Synced{Synced: &protov1.Synced{}}}
)

func fact(change protov1.CgroupFact_Change, id uint64, path string) *protov1.HostFact {
	return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: change, Id: id, Path: path}}}
}

func present(id uint64, path string) *protov1.HostFact {
	return fact(protov1.CgroupFact_CHANGE_PRESENT, id, path)
}

func created(id uint64, path string) *protov1.HostFact {
	return fact(protov1.CgroupFact_CHANGE_CREATED, id, path)
}

func removed(id uint64, path string) *protov1.HostFact {
	return fact(protov1.CgroupFact_CHANGE_REMOVED, id, path)
}

func TestUnitsFollowTheirControlGroups(t *testing.T) {
	type states = map[string]protov1.Container_State
	for _, tt := range []struct {
		name  string
		facts []*protov1.HostFact
		want  states
	}{
		{"what the list holds is running", []*protov1.HostFact{reset, present(1, web), present(2, "/docker/x"), synced}, states{web: running}},
		{"nothing is told before the list has ended", []*protov1.HostFact{reset, present(1, web)}, states{}},
		{"one that is made is running", []*protov1.HostFact{reset, synced, created(1, web)}, states{web: running}},
		{"one that is taken off has stopped, and is remembered", []*protov1.HostFact{reset, present(1, web), synced, removed(1, web)}, states{web: exited}},
		{"it runs again under another id", []*protov1.HostFact{reset, present(1, web), synced, removed(1, web), created(2, web)}, states{web: running}},
		{"the end of an earlier group is not the end of the later", []*protov1.HostFact{reset, present(1, web), synced, created(2, web), removed(1, web)}, states{web: running}},
		{"one that is gone before the list has ended is none", []*protov1.HostFact{reset, present(1, web), removed(1, web), synced}, states{}},
		{"what a second list lacks has stopped", []*protov1.HostFact{reset, present(1, web), present(2, mail), synced, reset, present(2, mail), synced}, states{web: exited, mail: running}},
		{"what a second list holds again runs", []*protov1.HostFact{reset, present(1, web), synced, removed(1, web), reset, present(3, web), synced}, states{web: running}},
		{"a group of another hierarchy is none", []*protov1.HostFact{reset, synced, {Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: protov1.CgroupFact_CHANGE_CREATED, Id: 1, Path: web, Hierarchy: "pids"}}}}, states{}},
		{"a unit that is not asked for is none", []*protov1.HostFact{reset, present(1, "/init.scope"), synced}, states{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newTold()
			u := newUnits(Config{Units: []string{"*.service"}, Keep: time.Hour}, o, time.Now)
			for _, f := range tt.facts {
				if err := u.take(f); err != nil {
					t.Fatal(err)
				}
			}
			if !maps.Equal(o.states, tt.want) {
				t.Errorf("the daemon knows %v, want %v", o.states, tt.want)
			}
		})
	}
}

func TestAUnitThatHasStoppedKeepsItsPathUntilItsTimeIsUp(t *testing.T) {
	now := time.Unix(1000, 0)
	o := newTold()
	u := newUnits(Config{Units: []string{"*.service"}, Keep: time.Minute}, o, func() time.Time { return now })
	for _, f := range []*protov1.HostFact{reset, synced, created(1, web), removed(1, web)} {
		if err := u.take(f); err != nil {
			t.Fatal(err)
		}
	}
	if c := o.last[web]; c.GetCgroupPath() != web || c.GetCgroupId() != 0 || c.GetFinishedUnixNano() != now.UnixNano() {
		t.Errorf("it is described as %v", c)
	}
	now = now.Add(59 * time.Second)
	if err := u.sweep(); err != nil || len(o.states) != 1 {
		t.Fatalf("before its time the daemon knows %v (%v)", o.states, err)
	}
	now = now.Add(time.Second)
	if err := u.sweep(); err != nil || len(o.states) != 0 || u.stopped != 0 || len(u.byPath) != 0 {
		t.Errorf("after its time the daemon knows %v, and the plugin %d (%v)", o.states, len(u.byPath), err)
	}
}

func TestTheUnitsThatHaveStoppedAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	o := newTold()
	u := newUnits(Config{Units: []string{"*.service"}, Keep: time.Hour}, o, func() time.Time { return now })
	for id := range uint64(mostStopped + 10) {
		now = now.Add(time.Millisecond)
		path := fmt.Sprintf("/system.slice/%d.service", id)
		for _, f := range []*protov1.HostFact{created(id+1, path), removed(id+1, path)} {
			if err := u.take(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(o.states) != mostStopped || u.stopped != mostStopped {
		t.Errorf("%d are known, %d of them stopped", len(o.states), u.stopped)
	}
	if left := slices.Sorted(maps.Keys(o.states)); slices.Contains(left, "/system.slice/9.service") || !slices.Contains(left, "/system.slice/10.service") {
		t.Error("it was not the oldest that were forgotten")
	}
}
