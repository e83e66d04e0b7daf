package valve

import (
	"math"
	"math/rand/v2"
	"testing"
)

const second = int64(1e9)

// drive offers events at a steady rate and gives those kept in each second, and the
// error of the sum of the weights in standard deviations.
func drive(v *Valve, rate float64, seconds int, p float64, critical bool) (kept []int, off float64) {
	rng := rand.New(rand.NewPCG(7, 11))
	kept = make([]int, seconds)
	var weight, variance, n float64
	for i := 0; ; i++ {
		now := int64(float64(i) / rate * 1e9)
		if now >= int64(seconds)*second {
			return kept, (weight - n) / math.Sqrt(max(variance, 1))
		}
		n++
		share := v.Share(now, p, critical)
		if rng.Float64() < share {
			kept[now/second]++
			w := 1 / share
			weight += w
			variance += w * (w - 1)
		}
	}
}

func TestABudgetHoldsWithUnbiasedWeights(t *testing.T) {
	for _, c := range []struct {
		name              string
		budget, rate      float64
		p                 float64
		critical          bool
		least, most, over float64 // kept a second after the first one, and in the first
	}{
		{"below the budget all are kept", 1000, 500, 1, false, 500, 500, 500},
		{"at its part of the probability", 1000, 500, 0.5, false, 180, 320, 320},
		{"a hundred times the budget", 1000, 100_000, 1, false, 850, 1150, 1300},
		{"a thousand times the budget", 1000, 1_000_000, 1, false, 850, 1150, 1300},
		{"a small budget", 10, 1000, 1, false, 2, 22, 25},
		{"critical events within the reserve", 1000, 400, 1, true, 400, 400, 400},
		{"critical events beyond the reserve", 1000, 100_000, 1, true, 400, 600, 700},
		{"no bound", 0, 10_000, 1, false, 10_000, 10_000, 10_000},
		{"nothing by the policy", 1000, 10_000, 0, false, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v Valve
			v.Set(c.budget, 0.5)
			kept, off := drive(&v, c.rate, 5, c.p, c.critical)
			if float64(kept[0]) > c.over {
				t.Errorf("in the first second %d were kept", kept[0])
			}
			for _, n := range kept[1:] {
				if float64(n) < c.least || float64(n) > c.most {
					t.Errorf("%d were kept in a second, want %v to %v", n, c.least, c.most)
				}
			}
			if c.p > 0 && math.Abs(off) > 4 {
				t.Errorf("the weights are off by %.1f standard deviations", off)
			}
		})
	}
}

func TestCriticalEventsAreKeptWhileOthersFloodTheBudget(t *testing.T) {
	var v Valve
	v.Set(1000, 0.5)
	rng := rand.New(rand.NewPCG(1, 2))
	kept, critical := 0, 0
	for i := range 500_000 { // 100,000 a second, of which 200 are critical
		now := int64(i) * 10_000
		if i%500 == 0 {
			if v.Share(now, 1, true) != 1 {
				t.Fatalf("the critical event %d is left to chance", i/500)
			}
			critical++
		} else if rng.Float64() < v.Share(now, 1, false) {
			kept++
		}
	}
	if all := kept + critical; all > 5*1100 {
		t.Errorf("%d were kept in 5 s, of which %d were critical", all, critical)
	}
}

func TestWhatIsSavedUpIsLittle(t *testing.T) {
	var v Valve
	v.Set(10_000, 0.5)
	kept := 0.0
	for range 100_000 { // at once, after a day
		kept += v.Share(86_400*second, 1, false)
	}
	if kept > 10_000*0.15 {
		t.Errorf("%.0f were kept at once", kept)
	}
}

func TestNoShareIsOutOfBounds(t *testing.T) {
	var v Valve
	v.Set(1, 0)
	for i := range 10_000 {
		for _, p := range []float64{math.NaN(), -1, 0, Rarest / 4, 0.5, 2, math.Inf(1)} {
			if s := v.Share(int64(i), p, i%2 == 0); !(s >= 0 && s <= 1) {
				t.Fatalf("of p %v it is %v", p, s)
			}
		}
	}
}

func BenchmarkShare(b *testing.B) {
	var v Valve
	v.Set(1000, 0.5)
	b.ReportAllocs()
	for i := range b.N {
		v.Share(int64(i)*100, 0.5, false)
	}
}
