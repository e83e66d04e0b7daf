package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// daemon is one that hands out a table and adds up what it is told, each report once.
type daemon struct {
	protov1.UnimplementedTracerServer
	mu       sync.Mutex
	table    *protov1.UserTable
	err      error // comes after the report was counted, as when an answer is lost
	told     uint64
	sum      protov1.UserCounts
	names    map[string]bool
	recorded uint64
	dropped  uint64
	last     bool
}

func (d *daemon) ExchangeUserEvents(_ context.Context, r *protov1.UserReport) (*protov1.UserTable, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.GetSequence() != d.told {
		d.told = r.GetSequence()
		for _, c := range r.GetCounts() {
			d.sum.Kept += c.GetKept()
			d.sum.SampledOut += c.GetSampledOut()
			d.sum.Weight += c.GetWeight()
			d.sum.Variance += c.GetVariance()
			d.names[c.GetName()+" "+c.GetPriority()] = true
		}
		d.recorded += r.GetRecorded()
		d.dropped += r.GetDropped()
		d.last = d.last || r.GetLast()
	}
	return d.table, d.err
}

func (d *daemon) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *daemon) set(t *protov1.UserTable) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table = t
}

// tableOf has one probability for all but critical events.
func tableOf(p, budget float64) *protov1.UserTable {
	t := &protov1.UserTable{EventsPerSecond: budget, Reserve: 0.5, Load: &protov1.LoadStats{CurrentLoad: 41.7, SystemLoad: &protov1.SystemLoad{CpuUsage: new(12.5)}}}
	for i, name := range priorityNames {
		probability := p
		if i == critical {
			probability = 1
		}
		t.Rules = append(t.Rules, &protov1.UserRule{Priority: name, Probability: probability})
	}
	return t
}

// manage serves d and makes a LoadManager of it.
func manage(t testing.TB, d *daemon) *LoadManager {
	t.Helper()
	d.names = map[string]bool{}
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	protov1.RegisterTracerServer(g, d)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m, err := c.LoadManager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestThePriorityOfAnEventIsByTheWordsOfItsAttributes(t *testing.T) {
	for _, c := range []struct {
		attrs map[string]string
		want  string
	}{
		{nil, "info"},
		{map[string]string{"method": "GET", "status": "200", "priority": "normal"}, "info"},
		{map[string]string{"level": "error", "component": "database"}, "error"},
		{map[string]string{"level": "debug", "component": "cache"}, "debug"},
		{map[string]string{"level": "exception"}, "error"},
		{map[string]string{"priority": "high"}, "error"},
		{map[string]string{"priority": "critical"}, "critical"},
		{map[string]string{"level": "FATAL "}, "critical"},
		{map[string]string{"level": "warn"}, "warning"},
		{map[string]string{"level": "debug", "priority": "critical"}, "debug"},
		{map[string]string{"level": "of water", "priority": "low"}, "debug"},
		{map[string]string{"level": "of water"}, "info"},
	} {
		if got := priorityNames[priorityOf(c.attrs)]; got != c.want {
			t.Errorf("%v: %s, want %s", c.attrs, got, c.want)
		}
	}
}

func TestAKindBecomesANameThatTheDaemonTakes(t *testing.T) {
	for kind, want := range map[string]string{
		"http_request": "http_request", "a/b c": "a_b_c", "": "other", "ä": "__", strings.Repeat("x", 70): strings.Repeat("x", 64),
	} {
		if got := nameOf(kind); got != want {
			t.Errorf("%q: %q, want %q", kind, got, want)
		}
	}
}

func TestAProgramDecidesByTheTableAndTellsEachEventOnce(t *testing.T) {
	d := &daemon{table: tableOf(0.25, 0)}
	m := manage(t, d)
	const events = 40_000
	kept := 0
	for i := range events {
		attrs := map[string]string{"level": "info"}
		if i%100 == 0 {
			attrs["level"] = "critical"
		}
		got := m.Sample("work", attrs)
		if got.Keep != (got.Weight >= 1) || i%100 == 0 && got != (Decision{true, 1}) {
			t.Fatalf("event %d: %+v", i, got)
		}
		if got.Keep {
			kept++
			m.RecordEvent()
		} else {
			m.RecordDrop()
		}
		switch i {
		case events / 4: // the answer is lost, though the report came
			d.fail(status.Error(codes.Unavailable, "gone"))
			if err := m.Flush(t.Context()); !errors.Is(err, ErrNotRunning) {
				t.Error(err)
			}
		case events / 2:
			d.fail(nil)
			if err := m.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if got := m.GetStats(); got.CurrentLoad != 42 || got.SystemLoad.CPUUsage != 12.5 {
		t.Errorf("%+v", got)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if d.sum.Kept != uint64(kept) || d.sum.Kept+d.sum.SampledOut != events || d.recorded != uint64(kept) || d.recorded+d.dropped != events || !d.last {
		t.Errorf("kept %d of %d, and the daemon heard %v, %d recorded, %d dropped", kept, events, &d.sum, d.recorded, d.dropped)
	}
	if sd := math.Sqrt(d.sum.Variance); math.Abs(d.sum.Weight-events) > 4*sd {
		t.Errorf("%d events are estimated as %.0f ± %.0f", events, d.sum.Weight, sd)
	}
}

func TestAProgramStaysWithinItsPartOfTheBudget(t *testing.T) {
	d := &daemon{table: tableOf(1, 1000)}
	m := manage(t, d)
	began, kept := time.Now(), 0
	for time.Since(began) < 600*time.Millisecond {
		if m.ShouldSample("flood", nil) {
			kept++
		}
	}
	// 50 ms of credit, and some 90 ms of debt in so great a flood.
	if most := 1000 * (time.Since(began).Seconds() + 0.2); float64(kept) > most {
		t.Errorf("%d were kept, want at most %.0f", kept, most)
	}
	if !m.ShouldSample("alarm", map[string]string{"level": "critical"}) {
		t.Error("a critical event was left out in the flood")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestANewTableHoldsAtOnceAndByName(t *testing.T) {
	d := &daemon{table: tableOf(1, 0)}
	m := manage(t, d)
	if !m.ShouldSample("a", nil) || !m.ShouldSample("b", nil) {
		t.Error("left out at probability 1")
	}
	next := tableOf(0, 0)
	next.Rules = append(next.Rules, &protov1.UserRule{Name: "b", Priority: "info", Probability: 1}, &protov1.UserRule{Name: "new", Priority: "info", Probability: 1})
	d.set(next)
	if err := m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.ShouldSample("a", nil) || !m.ShouldSample("b", nil) || !m.ShouldSample("new", nil) || m.ShouldSample("newer", nil) {
		t.Error("the next table is not in force")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNamesAreBounded(t *testing.T) {
	d := &daemon{table: tableOf(1, 0)}
	m := manage(t, d)
	for i := range 500 {
		m.ShouldSample(fmt.Sprint("name-", i), nil)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if len(d.names) != mostNames+1 || !d.names["other info"] || d.sum.Kept != 500 {
		t.Errorf("%d names with %d events", len(d.names), d.sum.Kept)
	}
}

func TestSeveralGoroutinesMayAsk(t *testing.T) {
	d := &daemon{table: tableOf(0.5, 1e6)}
	m := manage(t, d)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 2000 {
				m.ShouldSample(fmt.Sprint("name-", (g+i)%70), map[string]string{"level": "error"})
				if i%500 == 0 {
					if err := m.Flush(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if n := d.sum.Kept + d.sum.SampledOut; n != 16_000 {
		t.Errorf("the daemon heard of %d events", n)
	}
}

func TestTheLoadHasTheKeysOfTheDesign(t *testing.T) {
	s := &Stats{&protov1.Stats{Load: &protov1.LoadStats{
		CurrentLoad: 1234.4, CurrentSamplingRate: 0.25, ProcessedEvents: 3, DroppedEvents: 9, DropRate: 0.75, AdaptationCount: 5,
		SystemLoad: &protov1.SystemLoad{CpuUsage: new(81.5), MemoryUsage: new(40.0)},
	}}}
	text, err := json.Marshal(s.LoadStats())
	want := `{"current_load":1234,"current_sampling_rate":0.25,"processed_events":3,"dropped_events":9,"drop_rate":0.75,"adaptation_count":5,` +
		`"system_load":{"cpu_usage":81.5,"memory_usage":40,"network_usage":0,"disk_usage":0}}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
	if got := fmt.Sprint(s.LoadMap()); got != "map[adaptation_count:5 current_load:1234 current_sampling_rate:0.25 drop_rate:0.75 dropped_events:9 processed_events:3 system_load:map[cpu_usage:81.5 memory_usage:40]]" {
		t.Error(got)
	}
	if got := (&Stats{&protov1.Stats{}}).LoadMap()["system_load"]; len(got.(map[string]any)) != 0 {
		t.Errorf("of a daemon that tells nothing: %v", got)
	}
}

func BenchmarkShouldSample(b *testing.B) {
	m := manage(b, &daemon{table: tableOf(0.5, 1000)})
	attrs := map[string]string{"method": "GET", "status": "200", "priority": "normal"}
	b.ReportAllocs()
	for b.Loop() {
		m.ShouldSample("http_request", attrs)
	}
	b.StopTimer()
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}
}
