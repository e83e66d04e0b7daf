package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// simulated gives a simulator with a budget of 10,000 events a second.
func simulated(t testing.TB) *Simulator {
	t.Helper()
	s, err := NewSimulator(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.SetBudget(Budget{EventsPerSecond: 10_000})
	return s
}

// arrive decides about events that come at random, rate of them a second from one time
// to another, and calls seen with each.
func arrive(t testing.TB, s *Simulator, from, to time.Duration, rate float64, fill func(*Trial), seen func(*Trial)) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(from)+1, 7))
	at := float64(from)
	for n := 0; at < float64(to); n = 0 {
		trials := s.Trials()
		for ; n < len(trials) && at < float64(to); n++ {
			trials[n] = Trial{TimeNS: uint64(at) + 1e9, Kind: event.FileOpen, CPU: uint8(random.Uint32() & 1)}
			if fill != nil {
				fill(&trials[n])
			}
			at += random.ExpFloat64() * 1e9 / rate
		}
		if err := s.Decide(n); err != nil {
			t.Fatal(err)
		}
		for i := range trials[:n] {
			seen(&trials[i])
		}
	}
}

// sums counts events and the weight of the kept.
type sums struct {
	seen, kept int
	weight     float64
	tenths     map[uint64]int // kept in each 100 ms
}

func (c *sums) add(e *Trial) {
	c.seen++
	if e.Kept == 0 {
		return
	}
	c.kept++
	ev := event.Event{Threshold: e.Threshold}
	c.weight += ev.Weight()
	if c.tenths == nil {
		c.tenths = map[uint64]int{}
	}
	c.tenths[e.TimeNS/1e8]++
}

func TestTheValveHoldsTheBudgetWithoutASampler(t *testing.T) {
	s := simulated(t)
	var calm, burst sums
	arrive(t, s, 0, 2*time.Second, 5_000, nil, calm.add)
	arrive(t, s, 2*time.Second, 12*time.Second, 1_000_000, nil, burst.add)
	if calm.kept != calm.seen {
		t.Errorf("below the budget %d of %d are kept", calm.kept, calm.seen)
	}
	worst := 0
	for _, n := range burst.tenths {
		worst = max(worst, n)
	}
	bias := burst.weight/float64(burst.seen) - 1
	t.Logf("burst: seen %d, kept %d, the most in 100 ms %d, bias %+.4f", burst.seen, burst.kept, worst, bias)
	if math.Abs(float64(burst.kept)-100_000) > 3_000 || worst > 2_000 {
		t.Errorf("kept %d in 10 s, %d in 100 ms", burst.kept, worst)
	}
	if math.Abs(bias) > 0.03 {
		t.Errorf("bias %v", bias)
	}
}

func TestANoisyCgroupDoesNotStarveTheOthers(t *testing.T) {
	const quiet, noisy = 9, 10
	for _, test := range []struct {
		sharers int
		least   float64 // of what the quiet ones do, kept
	}{{0, 0}, {noisy, 0.2}} {
		s := simulated(t)
		s.SetSharers(test.sharers)
		random := rand.New(rand.NewPCG(3, 3))
		var all sums
		seen, kept := map[uint64]float64{}, map[uint64]float64{}
		arrive(t, s, 0, 5*time.Second, 1_000_000, func(e *Trial) {
			if e.CgroupID = noisy; random.Float64() < 0.001 {
				e.CgroupID = random.Uint64N(quiet) + 1
			}
		}, func(e *Trial) {
			all.add(e)
			seen[e.CgroupID]++
			kept[e.CgroupID] += float64(e.Kept)
		})
		var of, few float64
		for id := range uint64(quiet) {
			of, few = of+kept[id+1], few+seen[id+1]
		}
		bias := all.weight/float64(all.seen) - 1
		t.Logf("%d sharers: of %d quiet cgroups %.1f %% is kept, of the noisy one %.2f %%; %d in all, bias %+.4f",
			test.sharers, quiet, 100*of/few, 100*kept[noisy]/seen[noisy], all.kept, bias)
		if of/few < test.least {
			t.Errorf("of quiet cgroups %.1f %% is kept", 100*of/few)
		}
		if all.kept > 55_000 || math.Abs(bias) > 0.03 {
			t.Errorf("kept %d of a budget of 50,000, bias %v", all.kept, bias)
		}
	}
}

// TestAShareOfTheBudgetIsKeptForItsCgroups: whatever the others do, what a tenant does
// within its share is kept, and what it leaves is there for them.
func TestAShareOfTheBudgetIsKeptForItsCgroups(t *testing.T) {
	const tenant, noisy = 1, 2 // shares, and the first digits of cgroups
	for _, test := range []struct {
		name        string
		probability float64 // of the policy
		tenant      float64 // events a second
		least, most float64 // of them, kept a second
	}{
		{"below its share", 1, 3_000, 2_850, 3_000},
		{"below its share, against the policy", 0.01, 3_000, 2_850, 3_000},
		{"above its share", 1, 100_000, 3_800, 7_000},
		{"away", 1, 1, 0, 1.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := simulated(t)
			s.SetSharers(10)
			var p Policy
			for i := range p.Pooled {
				p.Pooled[i].Probability = test.probability
			}
			if _, err := s.SetPolicy(p); err != nil {
				t.Fatal(err)
			}
			for share := range uint32(2) {
				if err := s.SetShare(share+1, 0.4); err != nil {
					t.Fatal(err)
				}
			}
			for i := range uint64(5) {
				for _, share := range []uint64{tenant, noisy} {
					if err := s.SetCgroupShare(10*share+i, uint32(share)); err != nil {
						t.Fatal(err)
					}
				}
			}
			const rate, seconds = 1_000_000, 5
			random := rand.New(rand.NewPCG(4, 4))
			of := [3]sums{{}, {}, {}}
			var all sums
			arrive(t, s, 0, seconds*time.Second, rate+test.tenant, func(e *Trial) {
				x := random.Float64() * (rate + test.tenant)
				switch {
				case x < test.tenant:
					e.CgroupID = 10*tenant + random.Uint64N(5)
				case x < test.tenant+10_000: // of those without a share
					e.CgroupID = 1 + random.Uint64N(3)
				default:
					e.CgroupID = 10*noisy + random.Uint64N(5)
				}
			}, func(e *Trial) {
				all.add(e)
				of[e.CgroupID/10].add(e)
			})
			worst := 0
			for _, n := range all.tenths {
				worst = max(worst, n)
			}
			rates := [3]float64{}
			for i := range of {
				rates[i] = float64(of[i].kept) / seconds
			}
			t.Logf("kept a second: %.0f of the tenant, %.0f of the noisy one, %.0f of the rest, %.0f in all; the most in 100 ms %d; bias %+.4f; counted %d and %d",
				rates[tenant], rates[noisy], rates[0], float64(all.kept)/seconds, worst, all.weight/float64(all.seen)-1,
				s.shares.kept(tenant), s.shares.kept(noisy))
			if rates[tenant] < test.least || rates[tenant] > test.most*1.05 {
				t.Errorf("%.0f a second are kept of the tenant, which should be %v to %v", rates[tenant], test.least, test.most)
			}
			if kept := float64(all.kept) / seconds; kept < 9_300 || kept > 11_000 || worst > 2_000 {
				t.Errorf("%.0f a second are kept of all, %d in 100 ms", kept, worst)
			}
			if bias := all.weight/float64(all.seen) - 1; math.Abs(bias) > 0.03 {
				t.Errorf("bias %v", bias)
			}
			if of[tenant].seen > 1000 {
				if bias := of[tenant].weight/float64(of[tenant].seen) - 1; math.Abs(bias) > 0.05 {
					t.Errorf("bias of the tenant %v", bias)
				}
			}
			if got := s.shares.kept(noisy); got != uint64(of[noisy].kept) {
				t.Errorf("the kernel counts %d kept of a share, %d were", got, of[noisy].kept)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	s := simulated(b)
	trials := s.Trials()
	at := uint64(1e9)
	for b.Loop() {
		for i := range trials {
			at += 1000
			trials[i] = Trial{TimeNS: at, Kind: event.FileOpen, CPU: uint8(i & 1)}
		}
		if err := s.Decide(len(trials)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(trials)), "ns/event")
}
