package filter

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"context"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// counting stands for the kernel: every filter in force has filtered as many events as
// its place and one.
type counting struct{ now kernel.Filters }

func (k *counting) hits() (h kernel.Hits) {
	for i := range k.now.Filters {
		h.Filters = append(h.Filters, uint64(i)+1)
	}
	for i := range k.now.Quick {
		h.Quick = append(h.Quick, uint64(i)+100)
	}
	return h
}

func (k *counting) SetFilters(f kernel.Filters) (kernel.Hits, error) {
	ended := k.hits()
	k.now = f
	return ended, nil
}

func (k *counting) SetCgroupFilters(uint64, uint32) error { return nil }

func (k *counting) FilterHits() (kernel.Hits, error) { return k.hits(), nil }

// nowhere is a host without control groups.
type nowhere struct{}

func (nowhere) Cgroups() []*protov1.HostFact                          { return nil }
func (nowhere) Lookup(uint64) *inventory.Cgroup                       { return nil }
func (nowhere) CgroupsOfPod(string) []uint64                          { return nil }
func (nowhere) Get(*protov1.ContainerRef) (v inventory.View, ok bool) { return v, false }
func (nowhere) Observe(inventory.Observer) (stop func())              { return func() {} }

func list(t *testing.T, table *Table) map[string]uint64 {
	t.Helper()
	all, err := table.List()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, s := range all {
		out[s.Source.String()+" "+s.Name] = s.Filtered
	}
	return out
}

func TestARuleThatGoesOnUnderItsNameGoesOnCounting(t *testing.T) {
	k := &counting{}
	table := New(k, nowhere{}, slog.New(slog.DiscardHandler))
	a, b := Rule{Name: "a", Comms: []string{"x"}}, Rule{Name: "b", Ports: []uint16{80}}
	if err := table.Set(Config, []Rule{a, b}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, table); got["config a"] != 1 || got["config b"] != 2 {
		t.Errorf("%v", got)
	}
	if replaced, err := table.Put(API, Rule{Name: "a", PIDs: []uint32{7}}); err != nil || len(replaced) > 0 {
		t.Fatal(replaced, err)
	}
	if got := list(t, table); got["config a"] != 2 || got["config b"] != 4 || got["api a"] != 100 {
		t.Errorf("%v", got)
	}
	if len(k.now.Quick) != 1 || k.now.Quick[0].Number != (kernel.Number{Ask: kernel.AskPID, Value: 7}) {
		t.Errorf("a rule by one value is quick: %+v", k.now)
	}
	if err := table.Set(Config, []Rule{b}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, table); len(got) != 2 || got["config b"] != 4+1 || got["api a"] != 200 {
		t.Errorf("%v", got)
	}
	if n, there, err := table.Remove(API, "a"); !there || err != nil || n != 200 {
		t.Error(n, there, err)
	}
	if _, there, err := table.Remove(API, "a"); there || err != nil {
		t.Error(there, err)
	}
}

func TestMoreRulesThanThereIsRoomForChangeNothing(t *testing.T) {
	k := &counting{}
	table := New(k, nowhere{}, slog.New(slog.DiscardHandler))
	if err := table.Set(Config, []Rule{{Name: "a", Comms: []string{"x", "y"}}}); err != nil {
		t.Fatal(err)
	}
	many := make([]Rule, kernel.MaxFilters)
	for i := range many {
		many[i] = Rule{Name: fmt.Sprint(i), Ports: []uint16{1, 2}}
	}
	if err := table.Set(API, many); !errors.Is(err, ErrNoRoom) {
		t.Errorf("%v", err)
	}
	if got := list(t, table); len(got) != 1 {
		t.Errorf("in force are %v", got)
	}
	quick := make([]Rule, kernel.MaxQuick)
	for i := range quick {
		quick[i] = Rule{Name: fmt.Sprint(i), Peers: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}}
	}
	if err := table.Set(API, quick); err != nil {
		t.Errorf("thousands of rules by one value: %v", err)
	}
}

func TestRulesAreAddedAllOrNoneAndTakeThePlacesOfTheirNames(t *testing.T) {
	k := &counting{}
	table := New(k, nowhere{}, slog.New(slog.DiscardHandler))
	names := func() (out []string) {
		all, err := table.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			out = append(out, s.Name+" "+strings.Join(s.Comms, ","))
		}
		return out
	}
	two := func(name string) Rule { return Rule{Name: name, Comms: []string{name, "x"}} }
	if replaced, err := table.Put(API, two("a"), two("b"), two("c")); err != nil || len(replaced) > 0 {
		t.Fatal(replaced, err)
	}
	replaced, err := table.Put(API, Rule{Name: "b", Comms: []string{"y", "z"}}, two("d"))
	if err != nil || !slices.Equal(replaced, []string{"b"}) || !slices.Equal(names(), []string{"a a,x", "b y,z", "c c,x", "d d,x"}) {
		t.Errorf("%v %v: %v", replaced, err, names())
	}
	var many []Rule
	for i := range kernel.MaxFilters - 3 {
		many = append(many, two(fmt.Sprint(i)))
	}
	if _, err := table.Put(API, many...); !errors.Is(err, ErrNoRoom) || len(names()) != 4 {
		t.Errorf("%v: %v", err, names())
	}
	if !table.Has(API, "a") || table.Has(Config, "a") || table.Has(API, "0") {
		t.Error("rules are of one source")
	}
}

func TestRulesThatAreAddedAtOneTimeAreAllThere(t *testing.T) {
	table := New(&counting{}, nowhere{}, slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if _, err := table.Put(API, Rule{Name: fmt.Sprint(i), PIDs: []uint32{uint32(i)}}); err != nil {
				t.Error(err)
			}
			if _, _, err := table.Remove(API, fmt.Sprint(i-1)); err != nil {
				t.Error(err)
			}
			if _, err := table.Put(API, Rule{Name: fmt.Sprint(i, " stays"), UIDs: []uint32{uint32(i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	stay := 0
	for name := range list(t, table) {
		if strings.HasSuffix(name, "stays") {
			stay++
		}
	}
	if stay != 50 {
		t.Errorf("%d of 50 are left", stay)
	}
}

func TestCountsNeverFallButWhereARuleEndsThatHasOneOfItsOwn(t *testing.T) {
	k := &counting{}
	table := New(k, nowhere{}, slog.New(slog.DiscardHandler))
	counts := func() map[Count]bool {
		all, err := table.Counts()
		if err != nil {
			t.Fatal(err)
		}
		out := map[Count]bool{}
		for _, c := range all {
			out[c] = true
		}
		return out
	}
	if got := counts(); len(got) != 0 {
		t.Errorf("without rules: %v", got)
	}
	many := make([]Rule, MaxCounts+1)
	for i := range many {
		many[i] = Rule{Name: fmt.Sprint(i), PIDs: []uint32{uint32(i)}}
	}
	if err := table.Set(API, many); err != nil {
		t.Fatal(err)
	}
	got := counts()
	if len(got) != MaxCounts+1 || !got[Count{API, "0", 100}] || !got[Count{API, "", 100 + MaxCounts}] {
		t.Errorf("%d counts: %v", len(got), got)
	}
	// One without a count of its own ends: the sum has what it had. The next one has
	// no count of its own before one of those that have ends.
	if _, _, err := table.Remove(API, fmt.Sprint(MaxCounts)); err != nil {
		t.Fatal(err)
	}
	if got := counts(); !got[Count{API, "", 100 + MaxCounts}] {
		t.Errorf("the sum forgot: %v", got)
	}
	if _, _, err := table.Remove(API, "0"); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Put(API, Rule{Name: "new", PIDs: []uint32{9999}}, Rule{Name: "newer", PIDs: []uint32{9998}}); err != nil {
		t.Fatal(err)
	}
	got = counts()
	own := 0
	for c := range got {
		if c.Name != "" {
			own++
		}
		if c.Name == "newer" || c.Name == "0" {
			t.Errorf("%v has a count of its own", c)
		}
	}
	if own != MaxCounts {
		t.Errorf("%d have counts of their own", own)
	}
	// Those of samplers never have one.
	if err := table.Set(Sampler, []Rule{{Name: "s", PIDs: []uint32{5}}}); err != nil {
		t.Fatal(err)
	}
	for c := range counts() {
		if c.Source == Sampler && c.Name != "" {
			t.Errorf("%v", c)
		}
	}
}

func TestARuleWithATimeEndsThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &counting{}
		table := New(k, nowhere{}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); table.Run(ctx) }()
		for i, ttl := range []time.Duration{time.Minute, time.Second, 0} {
			r := Rule{Name: fmt.Sprint(i), Comms: []string{"x"}}
			if ttl > 0 {
				r.Until = time.Now().Add(ttl)
			}
			if _, err := table.Put(API, r); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct {
			wait time.Duration
			left int
		}{{500 * time.Millisecond, 3}, {time.Second, 2}, {50 * time.Second, 2}, {10 * time.Second, 1}, {time.Hour, 1}} {
			time.Sleep(step.wait)
			synctest.Wait()
			if got := list(t, table); len(got) != step.left {
				t.Errorf("after %v more: %v", step.wait, got)
			}
		}
		cancel()
		<-done
	})
}

func TestAControlGroupThatIsGoneIsNamedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := inventory.New(inventory.Options{})
		k := &counting{}
		table := New(k, i, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go i.Run(ctx)
		go table.Run(ctx)
		synctest.Wait()
		if _, err := table.Put(API, Rule{Name: "a", Cgroups: []string{"/a/*"}}); err != nil {
			t.Fatal(err)
		}
		wait := func() {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		named := func() int {
			wait()
			all, err := table.List()
			if err != nil {
				t.Fatal(err)
			}
			return all[0].Cgroups
		}
		const n = 50
		for round := range 100 {
			for id := range n {
				i.CgroupCreated(uint64(2+round*n+id), fmt.Sprintf("/a/%d-%d", round, id), time.Now())
			}
			if got := named(); got != n {
				t.Fatalf("round %d: %d are named", round, got)
			}
			for id := range n {
				i.CgroupRemoved(uint64(2+round*n+id), time.Now())
			}
			if got := named(); got != 0 {
				t.Fatalf("round %d: of those that are gone %d are named", round, got)
			}
			table.Look([]uint64{uint64(2 + round*n)}) // as of its container
			if got := named(); got != 0 {
				t.Fatalf("round %d: one is named again", round)
			}
		}
	})
}
