package simulation

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/recording"
)

// recordingOf is one of events.
func recordingOf(t *testing.T, duration time.Duration, lost uint64, events ...recording.Event) *bytes.Reader {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "trace"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := recording.NewWriter(f, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(duration, lost); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b)
}

// two groups and three lives within 10 s.
func short() []recording.Event {
	at := func(s int64, e recording.Event) recording.Event { e.At = s * 1e9; return e }
	return []recording.Event{
		at(1, recording.Event{Group: 1, Kind: event.ProcessFork, Lifecycle: 1}),
		at(2, recording.Event{Group: 1, Kind: event.ProcessExec, Priority: event.Info, Lifecycle: 1, Attribute: 700}),
		at(4, recording.Event{Group: 2, Kind: event.ProcessExec, Priority: event.Info, Lifecycle: 2, Attribute: 700}),
		at(5, recording.Event{Group: 2, Kind: event.ProcessExec, Priority: event.Info, Lifecycle: 3, Attribute: 9}),
		at(5, recording.Event{Kind: event.FileOpen, Attribute: 9}),
		at(9, recording.Event{Group: 1, Kind: event.ProcessExit, Priority: event.Info, Lifecycle: 1}),
	}
}

func TestARecordingIsPlayedOnceAtItsOwnSpeed(t *testing.T) {
	s, err := FromRecording("mine", recordingOf(t, 10*time.Second, 0, short()...))
	if err != nil {
		t.Fatal(err)
	}
	const length = 10*time.Second + time.Microsecond
	if s.Name != "mine" || s.Duration != length || s.Warmup != 2*time.Second || s.Budget != budget || s.Steps != nil {
		t.Errorf("%+v", s)
	}
	if want := "a recording of 10s: 6 events of 2 groups, 1 events/s"; s.Doc != want {
		t.Errorf("%q, want %q", s.Doc, want)
	}
	starts := map[int64]bool{}
	for seed := range uint64(30) {
		events := slices.Collect(s.Events(seed))
		if len(events) != 6 {
			t.Fatalf("seed %d plays %d events", seed, len(events))
		}
		// Wherever it began, each event is as far behind the fork as it was recorded, or
		// that less its length.
		fork := slices.IndexFunc(events, func(e Event) bool { return e.Kind == event.ProcessFork })
		starts[events[fork].At] = true
		var last int64
		for i, want := range short() {
			got := events[(fork+i)%len(events)]
			distance := (got.At - events[fork].At + int64(length)) % int64(length)
			group := got.Group
			if group > 2 {
				group -= 2 // the same, in the second round
			}
			if distance != want.At-1e9 || group != want.Group || got.Kind != want.Kind || got.Priority != want.Priority {
				t.Errorf("seed %d: %+v, recorded as %+v", seed, got, want)
			}
			if at := events[i].At; at < last || at >= int64(length) {
				t.Errorf("seed %d: event %d is at %d", seed, i, at)
			}
			last = events[i].At
		}
	}
	if len(starts) < 20 {
		t.Errorf("30 seeds begin at %d places", len(starts))
	}
}

func TestALossIsInTheWordsAboutARecording(t *testing.T) {
	s, err := FromRecording("mine", recordingOf(t, 10*time.Second, 12, short()...))
	if err != nil || !strings.HasSuffix(s.Doc, "; 12 more were lost") {
		t.Errorf("%q, %v", s.Doc, err)
	}
}

func TestAttributesOfAClassAreNumberedFrom0(t *testing.T) {
	tr, err := readTrace(recordingOf(t, 10*time.Second, 0, short()...))
	if err != nil {
		t.Fatal(err)
	}
	var got []uint16
	for _, e := range tr.events {
		got = append(got, e.Attribute)
	}
	if want := []uint16{0, 0, 0, 1, 0, 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Ten seconds at once, twice as fast for four, and once more.
func TestATraceIsPlayedFasterAndOverAndOver(t *testing.T) {
	tr, err := readTrace(recordingOf(t, 10*time.Second-time.Microsecond, 0, short()...))
	if err != nil {
		t.Fatal(err)
	}
	tempos := []tempo{{10 * time.Second, 1}, {15 * time.Second, 4}, {25 * time.Second, 1}}
	for seed := range uint64(30) {
		counts, lives, last := [3]int{}, map[uint64][]Event{}, int64(0)
		passing, staying := map[uint32]bool{}, map[uint32]bool{}
		for e := range tr.play(seed, tempos) {
			if e.At < last || e.At >= int64(25*time.Second) {
				t.Fatalf("seed %d: an event at %d after one at %d", seed, e.At, last)
			}
			last = e.At
			i := 0
			for e.At >= int64(tempos[i].until) {
				i++
			}
			counts[i]++
			if e.Group%2 == 0 && e.Group > 0 {
				passing[e.Group] = true
			} else {
				staying[e.Group] = true
			}
			if e.Lifecycle != 0 {
				lives[e.Lifecycle] = append(lives[e.Lifecycle], e)
			}
		}
		if want := [3]int{6, 12, 6}; counts != want {
			t.Errorf("seed %d: %v events in the tempos, want %v", seed, counts, want)
		}
		// Group 2 is there in the middle of the trace only.
		if len(passing) < 4 || len(passing) > 5 || !maps.Equal(staying, map[uint32]bool{0: true, 1: true}) {
			t.Errorf("seed %d: groups %v come and go, %v stay", seed, passing, staying)
		}
		// A life is one process's, with one fork, exec and exit at most.
		if len(lives) < 4*3 || len(lives) > 5*3 {
			t.Errorf("seed %d: %d lives in four rounds", seed, len(lives))
		}
		for life, events := range lives {
			for i, e := range events {
				if e.Group != events[0].Group || i > 0 && e.Kind == events[i-1].Kind {
					t.Errorf("seed %d: life %d is %+v", seed, life, events)
				}
			}
		}
	}
}

func TestARecordingThatCanNotBePlayedIsRefused(t *testing.T) {
	if _, err := FromRecording("none", recordingOf(t, time.Second, 0)); err == nil || !strings.Contains(err.Error(), "no event") {
		t.Errorf("without events: %v", err)
	}
	if _, err := FromRecording("long", recordingOf(t, 25*time.Hour, 0, short()...)); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("of 25 h: %v", err)
	}
	if _, err := FromRecording("text", strings.NewReader(strings.Repeat("no recording ", 10))); !errors.Is(err, recording.ErrMalformed) {
		t.Errorf("of text: %v", err)
	}
	whole := recordingOf(t, time.Second, 0, short()...)
	cut := make([]byte, whole.Len()-1)
	if _, err := whole.Read(cut); err != nil {
		t.Fatal(err)
	}
	if _, err := FromRecording("cut", bytes.NewReader(cut)); !errors.Is(err, recording.ErrMalformed) {
		t.Errorf("that is cut: %v", err)
	}
}

// What the words about S4 say.
func TestS4IsARecordingThatPassesTheBudgetAHundredfold(t *testing.T) {
	h, err := recording.NewReader(bytes.NewReader(s4Trace))
	if err != nil {
		t.Fatal(err)
	}
	if !h.Header().Complete || h.Header().Events != 398_163 || s4().groups != 182 || len(s4Trace) > 1_500_000 {
		t.Errorf("%+v of %d groups, in %d bytes", h.Header(), s4().groups, len(s4Trace))
	}
	s, ok := Find("S4")
	if !ok {
		t.Fatal("it is not there")
	}
	if want := []time.Duration{15 * time.Second, 20 * time.Second, 26 * time.Second, 30 * time.Second}; !slices.Equal(s.Steps, want) ||
		s.Duration != 36*time.Second || s.Warmup != warmup || s.Budget != budget {
		t.Errorf("%+v", s)
	}
	for seed := range uint64(3) {
		bounds := append(slices.Clone(s.Steps), s.Duration)
		counts := make([]float64, len(bounds))
		kinds := map[event.Kind]int{}
		var last int64
		for e := range s.Events(seed) {
			if e.At < last || e.At >= int64(s.Duration) || e.CPU > 1 {
				t.Fatalf("%+v comes after one at %d", e, last)
			}
			last = e.At
			i := 0
			for e.At >= int64(bounds[i]) {
				i++
			}
			counts[i]++
			kinds[e.Kind]++
		}
		var from time.Duration
		for i, want := range []float64{1.65, 16.5, 1.65, 82.5, 1.65} {
			got := counts[i] / (bounds[i] - from).Seconds() / s.Budget
			from = bounds[i]
			if math.Abs(got/want-1) > 0.25 { // it is not even
				t.Errorf("seed %d: until %v there is %.2f times the budget, want about %v", seed, bounds[i], got, want)
			}
		}
		for _, k := range []event.Kind{
			event.ProcessFork, event.ProcessExec, event.ProcessExit, event.NetworkConnect, event.NetworkConnectFailed,
			event.NetworkAccept, event.NetworkClose, event.FileOpen,
		} {
			if kinds[k] == 0 {
				t.Errorf("seed %d: there is no event of %s", seed, k)
			}
		}
	}
}
