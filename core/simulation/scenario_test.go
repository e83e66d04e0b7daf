package simulation

import (
	"encoding/binary"
	"hash/fnv"
	"iter"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// digest of the first events.
func digest(events iter.Seq[Event], most int) uint64 {
	h := fnv.New64a()
	var b [32]byte
	for e := range events {
		binary.LittleEndian.PutUint64(b[0:], uint64(e.At))
		binary.LittleEndian.PutUint64(b[8:], e.Lifecycle)
		binary.LittleEndian.PutUint32(b[16:], e.Group)
		binary.LittleEndian.PutUint16(b[20:], uint16(e.Kind))
		binary.LittleEndian.PutUint16(b[22:], e.Attribute)
		b[24], b[25] = byte(e.Priority), e.CPU
		h.Write(b[:])
		if most--; most == 0 {
			break
		}
	}
	return h.Sum64()
}

func TestASeedGivesTheSameEventsOnEveryRun(t *testing.T) {
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			events := s.Events(7)
			first := digest(events, 300_000)
			if again := digest(events, 300_000); again != first {
				t.Error("the second iteration differs from the first")
			}
			if again := digest(s.Events(7), 300_000); again != first {
				t.Error("the same seed gives other events")
			}
			if other := digest(s.Events(8), 300_000); other == first {
				t.Error("another seed gives the same events")
			}
		})
	}
}

// A figure measured long ago is compared with one of today: whoever changes a digest
// has made another scenario, and gives it another name.
func TestTheScenariosAreFrozen(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("the digests are of amd64; package math may round otherwise on %s", runtime.GOARCH)
	}
	frozen := map[string]uint64{
		"S1": 0x19798ca8738104d6, "S2": 0x5a02d26a549b8a1a, "S2b": 0x404b86bddd458b8a, "S3": 0x9944a476d92ce61d,
		"S4": 0x85aafe8fe59a04c8,
	}
	for _, s := range Scenarios() {
		if got := digest(s.Events(1), 1_000_000); got != frozen[s.Name] {
			t.Errorf("%s begins with events of digest %#x, want %#x", s.Name, got, frozen[s.Name])
		}
	}
}

func TestAScenarioIsFoundByItsName(t *testing.T) {
	for _, want := range Scenarios() {
		if got, ok := Find(want.Name); !ok || got.Doc != want.Doc {
			t.Errorf("%s: found %q, %v", want.Name, got.Doc, ok)
		}
	}
	if s, ok := Find("S0"); ok {
		t.Errorf("found %+v", s)
	}
}

// Each phase of a scenario, in events/s beside the 50 critical ones, and the events/s
// that new containers add.
func TestEachPhaseHasItsRate(t *testing.T) {
	const ofContainer = 3 + doings
	for name, phases := range map[string][]phase{
		"S1":  {{40 * time.Second, 100_000}},
		"S2":  {{15 * time.Second, 20_000}, {20 * time.Second, 2_000_000}, {35 * time.Second, 20_000}},
		"S2b": {{15 * time.Second, 20_000}, {18 * time.Second, 2_000_000}, {33 * time.Second, 20_000}},
		"S3": {
			{15 * time.Second, 20_000 + 200*ofContainer}, {25 * time.Second, 20_000 + 2000*ofContainer},
			{35 * time.Second, 20_000 + 200*ofContainer},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := Find(name)
			if !ok {
				t.Fatal("it is not there")
			}
			counts, grave := make([]float64, len(phases)), 0.0
			i, last := 0, int64(0)
			for e := range s.Events(1) {
				if e.At < last {
					t.Fatalf("an event at %d comes after one at %d", e.At, last)
				}
				last = e.At
				for e.At >= int64(phases[i].until) {
					i++
				}
				if e.Priority == event.Critical {
					grave++
				} else {
					counts[i]++
				}
			}
			if want := critical * s.Duration.Seconds(); math.Abs(grave-want) > 4*math.Sqrt(want) {
				t.Errorf("%v critical events, want about %v", grave, want)
			}
			var from time.Duration
			// A phase of S3 begins with the containers of the one before: a few.
			for i, p := range phases {
				got := counts[i] / (p.until - from).Seconds()
				if from = p.until; math.Abs(got/p.rate-1) > 0.01 {
					t.Errorf("until %v there are %v events/s, want %v", p.until, got, p.rate)
				}
			}
			if s.Duration != from {
				t.Errorf("it takes %v, want %v", s.Duration, from)
			}
			for i, p := range phases[:len(phases)-1] {
				if len(s.Steps) != len(phases)-1 || s.Steps[i] != p.until {
					t.Fatalf("it steps at %v", s.Steps)
				}
			}
			if s.Warmup != 5*time.Second || s.Budget != 10_000 {
				t.Errorf("warm-up %v, budget %v", s.Warmup, s.Budget)
			}
		})
	}
}

func TestClassesFollowZipfsLaw(t *testing.T) {
	for name, want := range map[string]struct {
		classes  int
		exponent float64
	}{"S1": {2200, 1.1}, "S2": {20, 0.5}, "S2b": {500, 1.1}} {
		type key struct {
			group    uint32
			kind     event.Kind
			priority event.Priority
		}
		s, _ := Find(name)
		counts, total := map[key]float64{}, 0.0
		for e := range s.Events(1) {
			if e.Priority != event.Critical {
				counts[key{e.Group, e.Kind, e.Priority}]++
				total++
			}
		}
		if len(counts) != want.classes {
			t.Errorf("%s has %d classes, want %d", name, len(counts), want.classes)
		}
		most := 0.0
		for _, n := range counts {
			most = max(most, n)
		}
		sum := 0.0
		for i := range want.classes {
			sum += math.Pow(float64(i+1), -want.exponent)
		}
		if got := most / total; math.Abs(got*sum-1) > 0.01 {
			t.Errorf("%s: the most frequent class has a share of %v, want %v", name, got, 1/sum)
		}
	}
}

func TestAttributesAreOneOverTheirNumberAndCPUsAreEqual(t *testing.T) {
	s, _ := Find("S1")
	var counts [attributes][2]float64
	total := 0.0
	for e := range s.Events(1) {
		counts[e.Attribute][e.CPU]++
		total++
	}
	sum := 0.0
	for i := range attributes {
		sum += 1 / float64(i+1)
	}
	for i := range counts {
		for cpu, got := range counts[i] {
			if want := total / float64(i+1) / sum / 2; math.Abs(got/want-1) > 0.02 {
				t.Errorf("attribute %d on CPU %d has %v events, want %v", i, cpu, got, want)
			}
		}
	}
}

// What a container of S3 does.
func TestAContainerForksFirstAndExitsLast(t *testing.T) {
	type life struct {
		kinds  []event.Kind
		at     []int64
		lives  map[event.Kind]uint64
		failed bool
	}
	s, _ := Find("S3")
	containers := map[uint32]*life{}
	for e := range s.Events(1) {
		if e.Group <= 100 {
			if e.Lifecycle != 0 {
				t.Fatalf("%+v of the background has an identity", e)
			}
			continue
		}
		c := containers[e.Group]
		if c == nil {
			c = &life{lives: map[event.Kind]uint64{}}
			containers[e.Group] = c
		}
		c.kinds, c.at = append(c.kinds, e.Kind), append(c.at, e.At)
		c.lives[e.Kind] = e.Lifecycle
		c.failed = c.failed || e.Priority == event.Error
	}
	ended, did, failed, long := 0.0, 0.0, 0.0, 0.0
	identities := map[uint64]bool{}
	for group, c := range containers {
		last := len(c.kinds) - 1
		if c.kinds[last] != event.ProcessExit {
			if c.at[0] < int64(s.Duration)-longest {
				t.Fatalf("container %d did not exit: %v", group, c.kinds)
			}
			continue // it outlives the scenario
		}
		identity := c.lives[event.ProcessFork]
		if c.kinds[0] != event.ProcessFork || c.kinds[1] != event.ProcessExec || identity == 0 || identities[identity] ||
			c.lives[event.ProcessExec] != identity || c.lives[event.ProcessExit] != identity || c.lives[event.FileOpen] != 0 {
			t.Fatalf("container %d: %v, identities %v", group, c.kinds, c.lives)
		}
		identities[identity] = true
		length := c.at[last] - c.at[0]
		if length < shortest-1 || length > longest {
			t.Fatalf("container %d lives %d ns", group, length)
		}
		if length > 50e6 { // half of the lives, in a logarithm
			long++
		}
		if c.failed {
			failed++
		}
		ended++
		did += float64(last - 2)
	}
	if want := float64(15*200 + 10*2000 + 10*200); math.Abs(ended/want-1) > 0.02 {
		t.Errorf("%v containers, want about %v", ended, want)
	}
	if mean := did / ended; math.Abs(mean-doings) > 0.2 {
		t.Errorf("a container does %v things, want about %v", mean, doings)
	}
	if got := long / ended; math.Abs(got-0.5) > 0.02 {
		t.Errorf("%v live longer than 50 ms, want half", got)
	}
	if got := failed / ended; math.Abs(got-failures) > 0.01 {
		t.Errorf("%v fail, want %v", got, failures)
	}
}

func TestAnAliasTableDrawsEachIndexByItsWeight(t *testing.T) {
	weights := []float64{1, 0, 2, 5}
	a := newAlias(weights)
	// The lower half goes through equal steps for each slot: the shares are exact.
	counts, steps := make([]float64, len(weights)), 1<<12
	for slot := range uint64(len(weights)) {
		for i := range uint64(steps) {
			counts[a.draw(slot<<62|i<<20)]++
		}
	}
	for i, w := range weights {
		if got := counts[i] / float64(steps) / 4; math.Abs(got-w/8) > 1e-3 {
			t.Errorf("index %d is drawn with %v, want %v", i, got, w/8)
		}
	}
}

func TestIteratingAllocatesNothingForEachEvent(t *testing.T) {
	for _, s := range Scenarios() {
		allocations := func(events int) float64 {
			return testing.AllocsPerRun(3, func() {
				n := 0
				for range s.Events(1) {
					if n++; n == events {
						break
					}
				}
			})
		}
		// The heap of S3 grows a few times.
		if few, many := allocations(1000), allocations(200_000); many > few+20 {
			t.Errorf("%s: 1,000 events allocate %v times, 200,000 %v times", s.Name, few, many)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	for _, s := range Scenarios() {
		b.Run(s.Name, func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; {
				for range s.Events(1) {
					if n++; n >= b.N {
						break
					}
				}
			}
		})
	}
}
