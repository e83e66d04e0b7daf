package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// filterer keeps what was added.
type filterer struct {
	*answers
	views []*protov1.FilterView
	ttl   time.Duration
	err   error
}

func (f *filterer) Filters() ([]*protov1.FilterView, error) { return f.views, f.err }

func (f *filterer) AddFilters(filters []*protov1.Filter, ttl time.Duration) (*protov1.AddFiltersResponse, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.ttl = ttl
	for _, one := range filters {
		f.views = append(f.views, &protov1.FilterView{Source: "api", Filter: one})
	}
	return &protov1.AddFiltersResponse{Unseen: []string{"something"}}, nil
}

func (f *filterer) RemoveFilter(name string) (*protov1.RemoveFilterResponse, error) {
	if f.err != nil {
		return nil, f.err
	}
	i := slices.IndexFunc(f.views, func(v *protov1.FilterView) bool { return v.GetFilter().GetName() == name })
	if i < 0 {
		return &protov1.RemoveFilterResponse{Source: map[string]string{"c": "config", "s": "sampler"}[name]}, nil
	}
	f.views = slices.Delete(f.views, i, i+1)
	return &protov1.RemoveFilterResponse{Found: true, Events: 5}, nil
}

func TestFiltersAreAddedListedAndRemoved(t *testing.T) {
	f := &filterer{answers: &answers{}}
	r := run(t, f)
	answer, err := r.client.AddFilters(t.Context(), time.Minute, &protov1.Filter{Name: "a", Comm: []string{"sh"}}, &protov1.Filter{Name: "b", Port: []uint32{22}})
	if err != nil || answer.GetUnseen()[0] != "something" || f.ttl != time.Minute {
		t.Fatal(answer, err, f.ttl)
	}
	list, err := r.client.ListFilters(t.Context())
	if err != nil || len(list) != 2 || list[1].GetFilter().GetPort()[0] != 22 {
		t.Error(list, err)
	}
	if n, err := r.client.RemoveFilter(t.Context(), "a"); n != 5 || err != nil {
		t.Error(n, err)
	}
	for name, has := range map[string]string{"a": "get filters", "c": "of the configuration", "s": "of the sampler"} {
		if _, err := r.client.RemoveFilter(t.Context(), name); !errors.Is(err, client.ErrNoFilter) || !strings.Contains(err.Error(), has) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestThousandsOfFiltersAreOneCallAndComeInPages(t *testing.T) {
	f := &filterer{answers: &answers{}}
	r := run(t, f)
	var many []*protov1.Filter
	for i := range 4096 {
		many = append(many, &protov1.Filter{Name: fmt.Sprintf("a-name-as-long-as-one-gives-to-a-filter-%d", i), Action: "drop", Peer: []string{fmt.Sprintf("2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x", i)}})
	}
	if _, err := r.client.AddFilters(t.Context(), 0, many...); err != nil {
		t.Fatal(err)
	}
	// And one that nearly fills a page by itself, twice.
	big := &protov1.Filter{Name: "big"}
	for i := range 8000 {
		big.Container = append(big.Container, fmt.Sprintf("%0100d", i))
	}
	for range 2 {
		if _, err := r.client.AddFilters(t.Context(), 0, big); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := r.client.ListFilters(t.Context()); err != nil || len(list) != 4098 || list[4095].GetFilter().GetPeer()[0] != many[4095].GetPeer()[0] {
		t.Error(len(list), err)
	}
}

func TestWhatIsWrongWithFiltersIsTold(t *testing.T) {
	f := &filterer{answers: &answers{}}
	r := run(t, f)
	add := func(ttl time.Duration, filters ...*protov1.Filter) error {
		_, err := r.client.AddFilters(t.Context(), ttl, filters...)
		return err
	}
	one := &protov1.Filter{Name: "a", Comm: []string{"sh"}}
	failing := func(err error) error {
		f.err = err
		defer func() { f.err = nil }()
		return add(0, one)
	}
	for _, test := range []struct {
		name string
		err  error
		code codes.Code
		has  string
	}{
		{"no filter", add(0), codes.InvalidArgument, "which filter?"},
		{"a time before now", add(-time.Second, one), codes.InvalidArgument, "ttl: -1s is not allowed"},
		{"a time that is too far", add(30*24*time.Hour+1, one), codes.InvalidArgument, "ends within 720h0m0s"},
		{"a field", failing(fmt.Errorf("filter %q: %w", "a", diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("comm"), diag.Index(0)}, "Malformed name", "it is too long")}.Err())),
			codes.InvalidArgument, `filter "a": comm[0]: Malformed name: it is too long`},
		{"no room", failing(fmt.Errorf("%w: 33, and 0 by one value; at most 32 and 4096", filter.ErrNoRoom)), codes.ResourceExhausted, "no room for more filters: 33"},
		{"the kernel's word", failing(errors.New("set the filters: out of memory")), codes.Internal, "out of memory"},
	} {
		if status.Code(test.err) != test.code || !strings.Contains(fmt.Sprint(test.err), test.has) {
			t.Errorf("%s: %v", test.name, test.err)
		}
		if errors.Is(test.err, client.ErrNoRoom) != (test.code == codes.ResourceExhausted) {
			t.Errorf("%s: %v is, or is not, for want of room", test.name, test.err)
		}
	}
	if len(f.views) > 0 {
		t.Errorf("what was refused was added: %v", f.views)
	}
	if err := add(30*24*time.Hour, one); err != nil {
		t.Error(err)
	}
	if _, err := r.client.RemoveFilter(t.Context(), ""); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

func TestASourceWithoutFiltersSaysSo(t *testing.T) {
	r := run(t, &answers{})
	_, list := r.client.ListFilters(t.Context())
	_, add := r.client.AddFilters(t.Context(), 0, &protov1.Filter{Name: "a", Comm: []string{"sh"}})
	_, remove := r.client.RemoveFilter(t.Context(), "a")
	for _, err := range []error{list, add, remove} {
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "another version") {
			t.Error(err)
		}
	}
}
