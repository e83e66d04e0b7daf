package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
)

// TestOfASetThatFailsNothingIsLeft has a set fail for its last values, when its others are
// in the kernel already, and looks for them there.
func TestOfASetThatFailsNothingIsLeft(t *testing.T) {
	k, err := Load(Options{Probes: []string{"file"}, RingBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	id := cgroup(t, filepath.Join(defaultHierarchy(t), "filter-maps-"+strconv.Itoa(os.Getpid())))
	stays := Filters{
		Quick:   []Quick{{Comm: "stays"}},
		Filters: []Filter{{Action: Drop, Comms: []string{"both", "mine"}}},
	}
	if _, err := k.SetFilters(stays); err != nil {
		t.Fatal(err)
	}
	there := func(name string) (v filterValue, ok bool) {
		t.Helper()
		err := k.filters.comms.m.Lookup(comm(name), &v)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatal(err)
		}
		return v, err == nil
	}
	want := map[string]filterValue{}
	for _, name := range []string{"stays", "both", "mine"} {
		v, ok := there(name)
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		want[name] = v
	}
	many := make([]uint32, 2*maxValues+1)
	for i := range many {
		many[i] = uint32(i + 1)
	}
	fails := Filters{
		Quick:   []Quick{{Comm: "goes"}},
		Filters: []Filter{{Action: Drop, Comms: []string{"both", "other"}}, {Action: Drop, PIDs: many}, {Action: Drop, InCgroup: true}},
		Cgroups: map[uint64]uint32{id: 1 << 2},
	}
	for range 2 { // the second time nothing of the first is in its way
		if _, err := k.SetFilters(fails); err == nil {
			t.Fatal("more values than there is room for are taken")
		}
		for name, value := range want {
			if v, _ := there(name); v != value {
				t.Errorf("%s is %+v, and was %+v", name, v, value)
			}
		}
		for _, name := range []string{"goes", "other"} {
			if v, ok := there(name); ok {
				t.Errorf("%s is there: %+v", name, v)
			}
		}
		for _, place := range placesOf(t, k.states, id) {
			if word := k.states.states[place].Filters; word != 0 {
				t.Errorf("the control group is named by %#x", word)
			}
		}
	}
	if hits, err := k.FilterHits(); err != nil || len(hits.Quick) != 1 || len(hits.Filters) != 1 {
		t.Errorf("in force are %+v, %v", hits, err)
	}
	// And what is taken next is taken as ever.
	if _, err := k.SetFilters(Filters{Quick: []Quick{{Comm: "next"}}}); err != nil {
		t.Fatal(err)
	}
	if _, ok := there("stays"); ok {
		t.Error("what ended is there")
	}
	if _, ok := there("next"); !ok {
		t.Error("what is in force is not there")
	}
}
