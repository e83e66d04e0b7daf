package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/selector"
)

// divided stands for the kernel, and keeps what it was told.
type divided struct {
	portions map[uint32]float64
	of       map[uint64]uint32
	kept     map[uint32]uint64
	gone     map[uint64]bool
}

func newDivided() *divided {
	return &divided{map[uint32]float64{}, map[uint64]uint32{}, map[uint32]uint64{}, map[uint64]bool{}}
}

func (d *divided) SetShare(share uint32, portion float64) error {
	if d.portions[share] = portion; portion == 0 {
		delete(d.portions, share)
	}
	return nil
}

func (d *divided) SetCgroupShare(cgroup uint64, share uint32) error {
	if d.gone[cgroup] {
		return kernel.ErrNoCgroup
	}
	if d.of[cgroup] = share; share == 0 {
		delete(d.of, cgroup)
	}
	return nil
}

func (d *divided) ShareKept(share uint32) uint64 { return d.kept[share] }

func of(name string, portion float64, paths ...string) Share {
	return Share{Name: name, Portion: portion, Selector: selector.Selector{Cgroups: paths}}
}

func TestTheFirstShareThatMeansAControlGroupIsItsOwnAndFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := inventory.New(inventory.Options{})
		k := newDivided()
		table := New(k, i, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go i.Run(ctx)
		go table.Run(ctx)
		synctest.Wait()
		check := func(when string, want map[uint64]uint32) {
			t.Helper()
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if !maps.Equal(k.of, want) {
				t.Errorf("%s: %v have a share, want %v", when, k.of, want)
			}
		}
		i.CgroupCreated(2, "/a/one", time.Now())
		i.CgroupCreated(3, "/b/two", time.Now())
		check("without shares", map[uint64]uint32{})
		if err := table.Set([]Share{of("a", 0.3, "/a/*"), of("all", 0.2, "/a/*", "/b/*")}); err != nil {
			t.Fatal(err)
		}
		check("of what is there", map[uint64]uint32{2: 1, 3: 2})
		i.CgroupCreated(4, "/a/new", time.Now())
		check("of what comes", map[uint64]uint32{2: 1, 3: 2, 4: 1})
		k.gone[5] = true
		i.CgroupCreated(5, "/a/short", time.Now())
		check("of what is gone already", map[uint64]uint32{2: 1, 3: 2, 4: 1})
		delete(k.of, 2) // the kernel forgets it by itself
		i.CgroupRemoved(2, time.Now())
		check("of what goes", map[uint64]uint32{3: 2, 4: 1})
		if got := table.List(); len(got) != 2 || got[0].Cgroups != 2 && got[0].Cgroups != 1 || got[1].Cgroups != 1 {
			t.Errorf("it tells of %+v", got)
		}
		// A share goes, another comes, and one stays what it is.
		if err := table.Set([]Share{of("all", 0.5, "/a/*", "/b/*"), of("b", 0.1, "/b/*")}); err != nil {
			t.Fatal(err)
		}
		check("of others", map[uint64]uint32{3: 2, 4: 2})
		if want := (map[uint32]float64{1: 0.1, 2: 0.5}); !maps.Equal(k.portions, want) {
			t.Errorf("the kernel's shares are %v, want %v", k.portions, want)
		}
		if err := table.Set(nil); err != nil {
			t.Fatal(err)
		}
		check("of none", map[uint64]uint32{})
		if len(k.portions) > 0 {
			t.Errorf("the kernel's shares are %v", k.portions)
		}
	})
}

func TestAShareGoesOnCountingUnderItsName(t *testing.T) {
	k := newDivided()
	i := inventory.New(inventory.Options{})
	table := New(k, i, slog.New(slog.DiscardHandler))
	kept := func(want ...uint64) {
		t.Helper()
		var got []uint64
		for _, v := range table.List() {
			got = append(got, v.Kept)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("kept are %v, want %v", got, want)
		}
	}
	set := func(shares ...Share) {
		t.Helper()
		if err := table.Set(shares); err != nil {
			t.Fatal(err)
		}
	}
	set(of("a", 0.1, "/a"), of("b", 0.2, "/b"))
	k.kept[1], k.kept[2] = 10, 20
	kept(10, 20)
	set(of("b", 0.3, "/b"), of("c", 0.3, "/c")) // c has the number that a had
	k.kept[1], k.kept[2] = 15, 25
	kept(25, 5)
	set(of("c", 0.3, "/c"), of("a", 0.3, "/a"), of("b", 0.3, "/b"))
	kept(5, 0, 25)
}

func TestThereAreAsManySharesAsTheKernelHas(t *testing.T) {
	k := newDivided()
	i := inventory.New(inventory.Options{})
	table := New(k, i, slog.New(slog.DiscardHandler))
	var shares []Share
	for n := range kernel.MaxShares {
		shares = append(shares, of(fmt.Sprint(n), 0.01, "/a"))
	}
	if err := table.Set(shares); err != nil {
		t.Fatal(err)
	}
	if err := table.Set(append(shares, of("more", 0.01, "/a"))); err == nil {
		t.Error("one more is taken")
	}
	if len(k.portions) != kernel.MaxShares {
		t.Errorf("the kernel has %d", len(k.portions))
	}
}

// refusing is a kernel that is closed.
type refusing struct{ *divided }

var errClosed = errors.New("closed")

func (refusing) SetShare(uint32, float64) error { return errClosed }

func TestWhatTheKernelRefusesIsAnError(t *testing.T) {
	table := New(refusing{newDivided()}, inventory.New(inventory.Options{}), slog.New(slog.DiscardHandler))
	if err := table.Set([]Share{of("a", 0.1, "/a")}); !errors.Is(err, errClosed) {
		t.Errorf("%v", err)
	}
	if len(table.List()) > 0 {
		t.Error("it is in force")
	}
}
