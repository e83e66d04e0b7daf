package load

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// filtering is a governor whose filters are noted, each set by its names; a filter that
// is named bad is refused.
func filtering(t *testing.T) (g *Governor, puts *[]string, clock *time.Time) {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	var sets []string
	g = New(Options{Kernel: &table{}, Sampler: "test", Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		Monitor: monitor.New(monitor.Options{Host: func(time.Time) *protov1.HostLoad { return &protov1.HostLoad{} }}), // an idle host
		Filters: func(filters []*protov1.Filter) error {
			names := ""
			for _, f := range filters {
				if f.GetName() == "bad" {
					return errors.New(`filter "bad": comm[0]: Malformed name`)
				}
				names += f.GetName()
			}
			sets = append(sets, names)
			return nil
		}})
	return g, &sets, &now
}

func filters(names ...string) (out []*protov1.Filter) {
	for _, n := range names {
		out = append(out, &protov1.Filter{Name: n, Comm: []string{"sh"}})
	}
	return out
}

func wantPuts(t *testing.T, puts *[]string, want ...string) {
	t.Helper()
	if got := strings.Join(*puts, ","); got != strings.Join(want, ",") {
		t.Fatalf("put into force were %q, want %q", *puts, want)
	}
}

func keep() *protov1.Answer { return &protov1.Answer{Answer: &protov1.Answer_Keep{}} }

func TestFiltersHoldAsLongAsTheirPolicy(t *testing.T) {
	g, puts, now := filtering(t)
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(1)}))
	wantPuts(t, puts)
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(1), Filters: filters("a", "b")}))
	wantPuts(t, puts, "ab")
	// The same ones again are not put again.
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5), Filters: filters("a", "b")}))
	g.Answer(keep())
	wantPuts(t, puts, "ab")
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5), Filters: filters("c")}))
	wantPuts(t, puts, "ab", "c")
	// A policy that has none ends them.
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5)}))
	wantPuts(t, puts, "ab", "c", "")
	// And so does the end of its time; to keep it brings them back.
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5), Filters: filters("d"), TtlNano: int64(time.Second)}))
	*now = now.Add(2 * time.Second)
	g.Expire()
	wantPuts(t, puts, "ab", "c", "", "d", "")
	g.Answer(keep())
	wantPuts(t, puts, "ab", "c", "", "d", "", "d")
	// Those of the last sampler go on until the next one says otherwise.
	g.SetSampler("other")
	wantPuts(t, puts, "ab", "c", "", "d", "", "d")
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(1)}))
	wantPuts(t, puts, "ab", "c", "", "d", "", "d", "")
}

func TestAPolicyWithAFilterThatCanNotBeIsRefusedWithTheReason(t *testing.T) {
	g, puts, _ := filtering(t)
	g.Answer(policy(&protov1.Policy{Sequence: 1, DefaultProbability: p(0.25), Filters: filters("a")}))
	g.Report()
	for _, test := range []struct {
		name    string
		filters []*protov1.Filter
		reason  string
	}{
		{"what is malformed", filters("b", "bad"), `filter "bad": comm[0]: Malformed name`},
		{"what does not drop", []*protov1.Filter{{Name: "a", Action: "keep", Comm: []string{"sh"}}}, `filters[0]: action is "keep"`},
		{"too many", filters(make([]string, 1025)...), "more than 1024 filters"},
	} {
		before := g.Policy()
		g.Answer(policy(&protov1.Policy{Sequence: 2, DefaultProbability: p(0.75), Filters: test.filters}))
		r := g.Report()
		if len(r.Policies) != 1 || r.Policies[0].Accepted || !strings.Contains(r.Policies[0].Reason, test.reason) {
			t.Errorf("%s: %v", test.name, r.Policies)
		}
		if now := g.Policy(); now.Generation != before.Generation || now.Refused != before.Refused+1 {
			t.Errorf("%s: %+v", test.name, now)
		}
		// The one before is still there to be kept.
		g.Answer(keep())
		if now := g.Policy(); now.Generation != before.Generation || now.Refused != before.Refused+1 {
			t.Errorf("%s, and then keep: %+v", test.name, now)
		}
	}
	wantPuts(t, puts, "a")
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.25), Filters: []*protov1.Filter{{Action: "drop", Comm: []string{"sh"}}}}))
	wantPuts(t, puts, "a", "")
}

func TestWhereNothingFiltersAPolicyHoldsWithoutAndIsToldSo(t *testing.T) {
	g, _ := governor()
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(2), Filters: filters("a")}))
	r := g.Report()
	if len(r.Policies) != 1 || !r.Policies[0].Accepted || !strings.Contains(fmt.Sprint(r.Policies[0].Reason), "above 1; nothing filters here") {
		t.Errorf("%v", r.Policies)
	}
}
