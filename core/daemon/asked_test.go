package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// matching stands for a kernel in which every filter has filtered one event.
type matching struct{ now kernel.Filters }

func (k *matching) FilterHits() (h kernel.Hits, err error) {
	for range k.now.Filters {
		h.Filters = append(h.Filters, 1)
	}
	for range k.now.Quick {
		h.Quick = append(h.Quick, 1)
	}
	return h, nil
}

func (k *matching) SetFilters(f kernel.Filters) (kernel.Hits, error) {
	ended, err := k.FilterHits()
	k.now = f
	return ended, err
}

func (k *matching) SetCgroupFilters(uint64, uint32) error { return nil }

// filtersOf gives a daemon as far as filters go, without probes.
func filtersOf(t *testing.T) (source, *matching) {
	t.Helper()
	k := &matching{}
	log := slog.New(slog.DiscardHandler)
	return source{&daemon{log: log, kernel: &kernel.Kernel{}, filters: filter.New(k, inventory.New(inventory.Options{}), log)}}, k
}

func TestAFilterIsListedAsItWasAskedFor(t *testing.T) {
	s, k := filtersOf(t)
	all := &protov1.Filter{
		Name: "all", Action: "only", Kinds: []string{"network.connect_failed"}, Comm: []string{"sh", "curl"}, Pid: []uint32{1, 7}, Uid: []uint32{0},
		Container: []string{"web-*"}, Image: []string{"nginx:1.*"}, Label: map[string]string{"app": "*"}, Cgroup: []string{"/system.slice"},
		Peer: []string{"10.0.0.0/8", "10.0.0.1", "2001:db8::1"}, Port: []uint32{443, 65535}, Error: []string{"ECONNREFUSED"}, Syscall: []string{"connect"},
	}
	ranks := &protov1.Filter{Name: "ranks", Action: "critical", Kinds: []string{"file.open"}, Error: []string{"EACCES"}}
	quick := &protov1.Filter{Name: "quick", Comm: []string{"sh"}}
	answer, err := s.AddFilters([]*protov1.Filter{all, ranks, quick}, time.Hour)
	if err != nil || len(answer.GetReplaced()) > 0 || answer.GetUntilUnixNano() < time.Now().UnixNano() {
		t.Fatal(answer, err)
	}
	if len(k.now.Filters) != 2 || len(k.now.Quick) != 1 || k.now.Filters[0].Action != kernel.Only || k.now.Filters[1].Action != kernel.Rank {
		t.Errorf("%+v", k.now)
	}
	list, err := s.Filters()
	if err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	quick.Action = "drop"
	for i, want := range []*protov1.Filter{all, ranks, quick} {
		v := list[i]
		if !proto.Equal(v.GetFilter(), want) || v.GetSource() != "api" || v.GetEvents() != 1 || v.GetUntilUnixNano() != answer.GetUntilUnixNano() {
			t.Errorf("%v, want %v", v, want)
		}
	}
	if list[0].Cgroups == nil || list[1].Cgroups != nil || fmt.Sprint(list[0].GetLooksAt(), list[1].GetLooksAt()) != "[network.connect_failed] [file.open]" {
		t.Errorf("%v", list)
	}
	replaced, err := s.AddFilters([]*protov1.Filter{quick}, 0)
	if err != nil || len(replaced.GetReplaced()) != 1 || replaced.GetUntilUnixNano() != 0 {
		t.Error(replaced, err)
	}
	if r, err := s.RemoveFilter("quick"); err != nil || !r.GetFound() || r.GetEvents() != 2 {
		t.Error(r, err)
	}
	if r, err := s.RemoveFilter("quick"); err != nil || r.GetFound() || r.GetSource() != "" {
		t.Error(r, err)
	}
}

func TestFiltersOfTheFileAreListedAndAreNobodyElsesToRemove(t *testing.T) {
	s, _ := filtersOf(t)
	if err := s.filters.Set(filter.Config, filterRules(config.Config{
		Filters:    []config.Filter{{Name: "f", Action: "keep", Selector: config.Selector{Comm: []string{"sh"}}}},
		Priorities: []config.Priority{{Name: "p", Level: "error", Match: []string{"critical"}}},
	})); err != nil {
		t.Fatal(err)
	}
	list, err := s.Filters()
	if err != nil || len(list) != 2 || list[0].GetSource() != "config" || list[0].GetFilter().GetAction() != "keep" ||
		list[1].GetFilter().GetAction() != "error" || fmt.Sprint(list[1].GetPriorities()) != "[critical]" {
		t.Error(list, err)
	}
	if r, err := s.RemoveFilter("f"); err != nil || r.GetFound() || r.GetSource() != "config" {
		t.Error(r, err)
	}
}

func TestAFilterThatIsAskedForIsCheckedAsOneOfTheFile(t *testing.T) {
	s, k := filtersOf(t)
	right := &protov1.Filter{Name: "right", Comm: []string{"sh"}}
	for _, test := range []struct {
		name   string
		filter *protov1.Filter
		has    string
	}{
		{"a port that there is not", &protov1.Filter{Name: "a", Port: []uint32{80, 65616}}, `filter "a": port[1]: Value not allowed: 65616`},
		{"a port 0", &protov1.Filter{Name: "a", Port: []uint32{0}}, `filter "a": port[0]: Value not allowed`},
		{"nothing", &protov1.Filter{Name: "a"}, `filter "a": Filter of everything`},
		{"no name", &protov1.Filter{Comm: []string{"sh"}}, `name: Malformed name`},
		{"a name twice", &protov1.Filter{Name: "right", Comm: []string{"sh"}}, `name: Name used twice`},
		{"an action", &protov1.Filter{Name: "a", Action: "hide", Comm: []string{"sh"}}, `action: Value not allowed`},
		{"a peer", &protov1.Filter{Name: "a", Peer: []string{"x"}}, `peer[0]: Malformed address`},
		{"an error", &protov1.Filter{Name: "a", Error: []string{"x"}}, `error[0]: Unknown error`},
	} {
		_, err := s.AddFilters([]*protov1.Filter{right, test.filter}, 0)
		var refusal *diag.Refusal
		if !errors.As(err, &refusal) || !strings.Contains(err.Error(), test.has) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if len(k.now.Quick)+len(k.now.Filters) > 0 {
		t.Errorf("what was refused is in force: %+v", k.now)
	}
	var many []*protov1.Filter
	for i := range kernel.MaxQuick + 1 {
		many = append(many, &protov1.Filter{Name: fmt.Sprint(i), Pid: []uint32{uint32(i + 1)}})
	}
	if _, err := s.AddFilters(many, 0); !errors.Is(err, filter.ErrNoRoom) {
		t.Error(err)
	}
	if _, err := s.AddFilters(many[1:], 0); err != nil || len(k.now.Quick) != kernel.MaxQuick {
		t.Error(err, len(k.now.Quick))
	}
}

func TestFiltersOfASamplerHaveTheirPlacesForNamesAndComeLast(t *testing.T) {
	s, k := filtersOf(t)
	if _, err := s.AddFilters([]*protov1.Filter{{Name: "0", Comm: []string{"a"}}}, 0); err != nil {
		t.Fatal(err)
	}
	theirs := []*protov1.Filter{{Comm: []string{"b"}}, {Name: "named", Comm: []string{"c"}}, {Comm: []string{"d"}}}
	if err := s.filterForSampler(theirs); err != nil {
		t.Fatal(err)
	}
	list, err := s.Filters()
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, v := range list {
		names += v.GetSource() + " " + v.GetFilter().GetName() + ", "
	}
	if names != "api 0, sampler 0, sampler named, sampler 2, " || theirs[0].GetName() != "" {
		t.Error(names)
	}
	if err := s.filterForSampler([]*protov1.Filter{{Comm: []string{"a-name-that-is-too-long"}}}); err == nil || !strings.Contains(err.Error(), `filter "0": comm[0]`) || len(k.now.Quick) != 4 {
		t.Error(err, k.now)
	}
	if err := s.filterForSampler(nil); err != nil || len(k.now.Quick) != 1 {
		t.Error(err, k.now)
	}
}

func TestMetricsOfFiltersHaveTheirNames(t *testing.T) {
	s, _ := filtersOf(t)
	var b strings.Builder
	write := func(wanted bool) string {
		b.Reset()
		if err := s.writeFilterMetrics(&b, func(name string) bool { return wanted && name == "ebpf_tracer_filter_events_total" }); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := write(true); got != "" {
		t.Errorf("without filters: %s", got)
	}
	if _, err := s.AddFilters([]*protov1.Filter{{Name: "a", Comm: []string{"a"}}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.filterForSampler([]*protov1.Filter{{Comm: []string{"b"}}, {Comm: []string{"c"}}}); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP ebpf_tracer_filter_events_total Events that a filter left out, or gave another priority. Without a name: of all others of the source.
# TYPE ebpf_tracer_filter_events_total counter
ebpf_tracer_filter_events_total{source="api",name="a"} 2
ebpf_tracer_filter_events_total{source="sampler"} 2
`
	if got := write(true); got != want {
		t.Errorf("%s", got)
	}
	if got := write(false); got != "" {
		t.Errorf("nobody wants it: %s", got)
	}
}

func TestFiltersOfAPolicyAreInForceUntilItEnds(t *testing.T) {
	s, k := filtersOf(t)
	now := time.Unix(1_700_000_000, 0)
	g := load.New(load.Options{Kernel: &counts{}, Sampler: "mine", Log: s.log, Filters: s.filterForSampler, Now: func() time.Time { return now },
		Monitor: monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad { return &protov1.HostLoad{} }})})
	say := func(filters ...*protov1.Filter) *protov1.PolicyResult {
		t.Helper()
		g.Answer(&protov1.Answer{Answer: &protov1.Answer_Policy{Policy: &protov1.Policy{DefaultProbability: proto.Float64(1), Filters: filters}}})
		return g.Report().GetPolicies()[0]
	}
	if r := say(&protov1.Filter{Comm: []string{"a"}}, &protov1.Filter{Comm: []string{"b", "c"}}); !r.GetAccepted() || len(k.now.Quick) != 1 || len(k.now.Filters) != 1 {
		t.Fatal(r, k.now)
	}
	if r := say(&protov1.Filter{Name: "x", Port: []uint32{70_000}}); r.GetAccepted() || !strings.Contains(r.GetReason(), `filter "x": port[0]`) {
		t.Error(r)
	}
	// There is no room beside those of others: the policy is refused, and the one before goes on.
	for i := range kernel.MaxFilters - 1 {
		if _, err := s.AddFilters([]*protov1.Filter{{Name: fmt.Sprint(i), Comm: []string{"y", "z"}}}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if r := say(&protov1.Filter{Comm: []string{"b", "c"}}, &protov1.Filter{Comm: []string{"d", "e"}}); r.GetAccepted() || !strings.Contains(r.GetReason(), "no room for more filters") {
		t.Error(r)
	}
	if len(k.now.Quick) != 1 || len(k.now.Filters) != kernel.MaxFilters {
		t.Errorf("%d and %d", len(k.now.Quick), len(k.now.Filters))
	}
	now = now.Add(time.Minute)
	g.Expire()
	if len(k.now.Quick) != 0 || len(k.now.Filters) != kernel.MaxFilters-1 {
		t.Errorf("the policy has ended, and in force are %d and %d", len(k.now.Quick), len(k.now.Filters))
	}
}
