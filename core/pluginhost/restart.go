package pluginhost

import (
	"math/rand/v2"
	"slices"
	"time"
)

// retry decides how long to wait after a failure: not at all after the first, then
// twice as long each time, give or take a quarter, until something ran well.
type retry struct {
	min, max time.Duration
	failures int
}

func (r *retry) next() time.Duration {
	r.failures++
	if r.failures == 1 {
		return 0
	}
	d := r.max
	if n := r.failures - 2; n < 32 && r.min<<n < r.max {
		d = r.min << n
	}
	return time.Duration(float64(d) * (0.75 + 0.5*rand.Float64()))
}

func (r *retry) reset() { r.failures = 0 }

// budget counts restarts within a window.
type budget struct {
	most   int
	window time.Duration
	spent  []time.Time
}

// spend takes one restart at now; false when there is none left.
func (b *budget) spend(now time.Time) bool {
	b.spent = slices.DeleteFunc(b.spent, func(t time.Time) bool { return now.Sub(t) > b.window })
	if len(b.spent) >= b.most {
		return false
	}
	b.spent = append(b.spent, now)
	return true
}
