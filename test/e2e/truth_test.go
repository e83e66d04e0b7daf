package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// farOff is by how many standard deviations an estimate may be off before a test takes
// it for wrong: by chance one of 15,000 is.
const farOff = 4

// rowOf gives the row of a kind and priority.
func rowOf(t *testing.T, rows []*protov1.LedgerRow, kind, priority string) *protov1.LedgerRow {
	t.Helper()
	for _, r := range rows {
		if r.GetKind() == kind && r.GetPriority() == priority {
			return r
		}
	}
	t.Fatalf("the ledger has no row of %s %s", kind, priority)
	return nil
}

// checkEstimate holds an estimate against an exact count.
func checkEstimate(t *testing.T, e *protov1.Estimate, exact float64) {
	t.Helper()
	sd := math.Sqrt(e.GetVariance())
	t.Logf("%.0f events are estimated as %.0f, between %.0f and %.0f, from %d: off by %.2f standard deviations",
		exact, e.GetSeen(), e.GetLow(), e.GetHigh(), e.GetEvents(), (e.GetSeen()-exact)/max(sd, 1))
	if math.Abs(e.GetSeen()-exact) > farOff*sd+1 || !(e.GetLow() <= e.GetSeen() && e.GetSeen() <= e.GetHigh()) || e.GetCorrection() != 1 {
		t.Errorf("the estimate is %v", e)
	}
}

// keys gives the names that a JSON object has, in order.
func keys(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

func TestStatsTellTheTruthOfALoad(t *testing.T) {
	const budget = 5000
	programs := load.Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tr := harness.Start(t, fmt.Sprintf("probe \"file\" {}\nbudget { events_per_second = %d }\nsampler \"adaptive\" {}", budget))
	did, err := programs.RunOpen(t.Context(), "-s", "14", "-t", "2", file)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // for the tail, and for the reading after it
	shown := tr.Ask("get", "stats")
	t.Log("\n" + shown)
	var told struct {
		Load map[string]any `json:"load"`
	}
	if err := json.Unmarshal([]byte(tr.Ask("get", "stats", "-o", "json")), &told); err != nil {
		t.Fatal(err)
	}
	s := tr.Stats()
	log := tr.Log()
	ledger := tr.Stop()

	// What was seen is exact; what was kept estimates it. Others open files meanwhile, so
	// that the load's own opens are told by their path.
	row := rowOf(t, s.GetKernel(), "file.open", "debug")
	exact := float64(row.GetSeen() - row.GetFiltered())
	if row.GetSeen() < uint64(did.Opens) {
		t.Errorf("%d opens were seen, the load alone made %d", row.GetSeen(), did.Opens)
	}
	checkEstimate(t, row.GetEstimate(), exact)
	var weight, variance float64
	for _, e := range harness.Select(tr.Events(), "file.open", func(e *harness.Event) bool { return e.File.Path == file }) {
		weight += e.Weight
		variance += e.Weight * (e.Weight - 1)
	}
	if sd := math.Sqrt(variance); math.Abs(weight-float64(did.Opens)) > farOff*sd+1 {
		t.Errorf("the load's %d opens are estimated as %.0f ± %.0f", did.Opens, weight, sd)
	}

	l := s.GetLoad()
	minute := l.GetWindows()[1]
	seconds := minute.GetSeconds()
	if seen := minute.GetSeenPerSecond() * seconds; math.Abs(seen/float64(row.GetSeen())-1) > 0.1 {
		t.Errorf("in %.1f s %.0f were seen, in all %d", seconds, seen, row.GetSeen())
	}
	if want := float64(row.GetKept()) / float64(row.GetSeen()); math.Abs(minute.GetSamplingRate()/want-1) > 0.2 || math.Abs(minute.GetSamplingRate()+minute.GetDropRate()-1) > 1e-9 {
		t.Errorf("sampling rate %v and drop rate %v, the ledger says %v", minute.GetSamplingRate(), minute.GetDropRate(), want)
	}
	b := l.GetBudget()
	if b.GetEventsPerSecond() != budget || b.GetSeconds() < 14 || b.GetSecondsWithin() != b.GetSeconds() || b.GetWorstRatio() < 0.8 || b.GetWorstRatio() > 1.1 {
		t.Errorf("the bound: %v", b)
	}
	if l.GetLevel().GetLevel() == "" || l.GetHost().GetMemoryTotalBytes() == 0 || l.GetAdaptationCount() != s.GetPolicy().GetSwaps() {
		t.Errorf("the load: %v", l)
	}
	for _, alert := range []string{"high_drop_rate", "low_sampling_rate"} {
		if n := strings.Count(log, "alert="+alert); n != 1 {
			t.Errorf("the log warns %d times of %s", n, alert)
		}
	}
	for _, want := range []string{"budget 5000/s", "kept within 1.1 times the budget", "ALERT since", "OFF BY", "host: cpu"} {
		if !strings.Contains(shown, want) {
			t.Errorf("get stats does not show %q", want)
		}
	}

	// The keys of the design.
	short := keys(told.Load)
	for _, key := range []string{"current_load", "current_sampling_rate", "processed_events", "dropped_events", "drop_rate", "adaptation_count", "system_load"} {
		if !slices.Contains(strings.Fields(short), key) {
			t.Errorf("the load has no %s, but %s", key, short)
		}
	}
	if host, ok := told.Load["system_load"].(map[string]any); !ok || host["cpu_usage"] == nil || host["memory_usage"] == nil {
		t.Errorf("system_load is %v", told.Load["system_load"])
	}
	checkLedger(t, ledger, true, map[string]int64{"file.open": did.Opens})
}

func TestProgramsDecideOnTheirOwnEventsWithinABudget(t *testing.T) {
	const budget = 1000 // a tenth of the kernel's
	tr := harness.Start(t, fmt.Sprintf("probe \"process\" {}\nbudget { events_per_second = %d }\nsampler \"fixed\" { rate = 0.5 }", 10*budget))
	c, err := client.Dial(t.Context(), tr.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	m, err := c.LoadManager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var kept, dropped, alarms, single uint64
	attrs := map[string]string{"method": "GET", "status": "200", "priority": "normal"}
	began := time.Now()
	var slowest time.Duration
	for time.Since(began) < 4*time.Second {
		for range 100 {
			at := time.Now()
			keep := m.ShouldSample("http_request", attrs)
			slowest = max(slowest, time.Since(at))
			if keep {
				kept++
				m.RecordEvent()
			} else {
				dropped++
				m.RecordDrop()
			}
		}
		if alarms < uint64(20*time.Since(began).Seconds()) {
			alarms++
			if d := m.Sample("error_event", map[string]string{"level": "critical"}); d != (client.Decision{Keep: true, Weight: 1}) {
				t.Fatalf("of a critical event: %+v", d)
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
	took := time.Since(began).Seconds()
	// Slowly, so that there is budget for them: of a hundred that are mostly left out the few
	// that are kept would not tell how far off they may be.
	for range 100 { // each a call of its own
		if _, err := c.ShouldSample(t.Context(), "debug_event", map[string]string{"level": "debug"}); err != nil {
			t.Fatal(err)
		}
		single++
		time.Sleep(5 * time.Millisecond)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := c.GetStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown := tr.Ask("get", "stats")
	t.Log("\n" + shown)
	for _, row := range []struct {
		kind, priority string
		seen           uint64
	}{{"user.http_request", "info", kept + dropped}, {"user.error_event", "critical", alarms}, {"user.debug_event", "debug", single}} {
		r := rowOf(t, s.GetUser(), row.kind, row.priority)
		if r.GetSeen() != row.seen || r.GetSeen() != r.GetKept()+r.GetSampledOut() {
			t.Errorf("the ledger has %v, the program asked %d times", r, row.seen)
		}
		if !strings.Contains(shown, row.kind) {
			t.Errorf("get stats does not show %s", row.kind)
		}
		checkEstimate(t, r.GetEstimate(), float64(row.seen))
	}
	perSecond := float64(kept) / took
	t.Logf("%.0f of %.0f events/s were kept; the slowest decision took %v", perSecond, float64(kept+dropped)/took, slowest)
	if most := budget * 1.1; perSecond > most || perSecond < budget*0.5 {
		t.Errorf("%.0f a second were kept, of a budget of %d", perSecond, budget)
	}
	if u := s.GetUserEvents(); u.GetRecorded() != kept || u.GetDropped() != dropped || u.GetPrograms() != 0 || u.GetEventsPerSecond() != budget {
		t.Errorf("the programs: %v", u)
	}
	short := s.LoadStats()
	if short.ProcessedEvents < kept || short.DroppedEvents < dropped || short.DropRate <= 0 {
		t.Errorf("in short: %+v", short)
	}
	tr.Stop()
	if want := fmt.Sprintf("user.http_request info: seen %d = kept %d + sampled out %d", kept+dropped, kept, dropped); !strings.Contains(tr.Log(), want) {
		t.Errorf("the last ledger does not say %q", want)
	}
}
