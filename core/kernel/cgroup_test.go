package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// placesOf are the places that a cgroup has: by what they say, and by their owners.
func placesOf(t *testing.T, s *cgroupStates, id uint64) (places []uint32) {
	t.Helper()
	for place := range s.states {
		if atomic.LoadUint64(&s.states[place].ID) == id {
			places = append(places, uint32(place))
		}
	}
	var owned []uint32
	for _, place := range s.near(id) {
		var owner uint64
		if s.owners.Lookup(place, &owner) == nil && owner == id {
			owned = append(owned, place)
		}
	}
	if !slices.Equal(places, owned) {
		t.Errorf("cgroup %d has places %v, and owns %v", id, places, owned)
	}
	return places
}

// crowd gives ids that all have the same place for their own.
func crowd(s *cgroupStates, n int) (ids []uint64) {
	home := s.near(1)[0]
	for id := uint64(1); len(ids) < n; id++ {
		if s.near(id)[0] == home {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestCgroupsWithTheSameHomeHaveEachAPlaceWhoeverComesFirst(t *testing.T) {
	s := simulated(t)
	var p Policy
	for i := range p.Pooled {
		p.Pooled[i].Probability = 1
	}
	ids := crowd(s.states, near+1)
	p.Promoted = map[Class]Rule{}
	for i := range ids {
		p.Promoted[Class{event.FileOpen, event.Debug, uint32(i + 1)}] = Rule{Probability: 1}
	}
	if _, err := s.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	now := uint64(1e9)
	// row decides about an event of a cgroup and gives the row that it is charged to.
	row := func(id uint64) uint32 {
		now += 1e6
		s.Trials()[0] = Trial{TimeNS: now, Kind: event.FileOpen, CgroupID: id}
		if err := s.Decide(1); err != nil {
			t.Fatal(err)
		}
		return s.Trials()[0].Row
	}
	pooled := uint32(event.Row(event.FileOpen, event.Debug))
	rows := map[uint32]uint64{}
	for i, id := range ids[:near] {
		if i%2 == 0 && row(id) != pooled { // the program first
			t.Errorf("cgroup %d is of a group before it is given one", id)
		}
		if err := s.SetGroup(id, uint32(i+1)); err != nil {
			t.Fatal(err)
		}
		r := row(id)
		if other, taken := rows[r]; r == pooled || taken {
			t.Errorf("cgroup %d has row %d, which is the pooled one or that of %d", id, r, other)
		}
		rows[r] = id
		if places := placesOf(t, s.states, id); len(places) != 1 {
			t.Errorf("cgroup %d has places %v", id, places)
		}
	}
	late := ids[near]
	if err := s.SetGroup(late, near+1); err == nil {
		t.Error("there are more cgroups than places near their home, and nothing says so")
	}
	if got := row(late); got != pooled {
		t.Errorf("a cgroup without a place has row %d", got)
	}
	// The first goes. The others stay where they are, and another gets its place.
	home := placesOf(t, s.states, ids[0])[0]
	if err := s.states.giveBack(home, ids[0]); err != nil {
		t.Fatal(err)
	}
	for r, id := range rows {
		if got := row(id); id != ids[0] && got != r {
			t.Errorf("cgroup %d has row %d, and had %d before another went", id, got, r)
		}
	}
	if got := placesOf(t, s.states, late); len(got) != 0 {
		t.Errorf("it has places %v", got)
	}
}

func TestWhatIsKnownOfACgroupEndsWithIt(t *testing.T) {
	k, err := Load(Options{Probes: []string{"process"}, RingBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	k.SetBudget(Budget{EventsPerSecond: 1e6})
	path := filepath.Join(defaultHierarchy(t), fmt.Sprintf("kernel-test-%d", os.Getpid()))
	id := cgroup(t, path)
	if err := k.SetGroup(id, 7); err != nil {
		t.Fatal(err)
	}
	trafficIn(t, path, "127.0.0.1", "1", "64")
	places := placesOf(t, k.states, id)
	if len(places) != 1 {
		t.Fatalf("it has places %v", places)
	}
	if got := k.states.states[places[0]]; got.Group != 7 || got.Told == 0 {
		t.Errorf("of a cgroup in group 7, which had processes, is known %+v", got)
	}
	// One that there never was, as if somebody had spoken of it after its end.
	if _, err := k.states.take(k.states.near(1 << 60)[0], 1<<60); err != nil {
		t.Fatal(err)
	}
	if err := k.ForgetGone(); err != nil {
		t.Fatal(err)
	}
	if got := placesOf(t, k.states, 1<<60); len(got) != 0 {
		t.Errorf("a cgroup that there is not has places %v", got)
	}
	if got := placesOf(t, k.states, id); len(got) != 1 {
		t.Errorf("one that there is has places %v", got)
	}
	err = os.Remove(path)
	for range 1000 {
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond) // its last process is not quite gone
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := placesOf(t, k.states, id); len(got) != 0 {
		t.Errorf("after its removal it has places %v", got)
	}
	if err := k.SetGroup(id, 7); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("a group for a cgroup that is gone: %v", err)
	}
}
