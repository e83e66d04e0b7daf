package load

import (
	"math"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// uses runs a throttle for some seconds, a reading each 250 ms, over a daemon that uses of
// CPU and memory what its part of the budget makes it use.
func uses(t *throttle, from time.Time, seconds int, cpus, bytes func(factor float64) float64) time.Time {
	for range 4 * seconds {
		from = from.Add(250 * time.Millisecond)
		used := cpus(t.factor)
		t.observe(from, &protov1.HostLoad{DaemonCpuCores: &used, DaemonMemoryBytes: uint64(bytes(t.factor))})
	}
	return from
}

func TestTheBudgetShrinksUntilTheDaemonIsWithinItsLimitsAndGrowsAgain(t *testing.T) {
	const limit = 0.2
	none := func(float64) float64 { return 0 }
	for _, test := range []struct {
		name        string
		limits      Limits
		cpus, bytes func(float64) float64
		least, most float64 // of the factor, in the end
		reason      string
	}{
		{"no limit", Limits{}, func(f float64) float64 { return 5 * f }, none, 1, 1, ""},
		{"within", Limits{CPUs: limit}, func(f float64) float64 { return 0.1 * f }, none, 1, 1, ""},
		{"far too much", Limits{CPUs: limit}, func(f float64) float64 { return 0.02 + 2*f }, none, 0.06, 0.1, "daemon uses 0."},
		{"whatever is kept", Limits{CPUs: limit}, func(float64) float64 { return 0.5 }, none, 0.01, 0.01, "CPUs of 0.2: 1 % of the budget"},
		{"memory", Limits{MemoryBytes: 100 << 20}, none, func(f float64) float64 { return (60 + 200*f) * (1 << 20) }, 0.12, 0.22, "MiB of 100: "},
		{"the nearer one", Limits{CPUs: 10, MemoryBytes: 100 << 20}, func(f float64) float64 { return f }, func(f float64) float64 { return (60 + 200*f) * (1 << 20) }, 0.12, 0.22, "MiB of 100: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := newThrottle(test.limits)
			now := uses(&x, time.Unix(1000, 0), 60, test.cpus, test.bytes)
			if x.factor < test.least || x.factor > test.most {
				t.Errorf("a minute later %.3f of the budget is in force, which should be %v to %v", x.factor, test.least, test.most)
			}
			if got := strings.Join(x.reasons(), "; "); (got == "") != (test.reason == "") || !strings.Contains(got, test.reason) {
				t.Errorf("the reason is %q, which should hold %q", got, test.reason)
			}
			uses(&x, now, 60, none, none)
			if x.factor != 1 || x.reasons() != nil {
				t.Errorf("a minute of rest later %.3f of the budget is in force: %q", x.factor, x.reasons())
			}
		})
	}
}

func TestALimitThatIsNotReadYetLimitsNothing(t *testing.T) {
	x := newThrottle(Limits{CPUs: 0.1})
	for s := range 10 {
		if x.observe(time.Unix(int64(1000+s), 0), &protov1.HostLoad{}) || x.factor != 1 {
			t.Fatalf("it is throttled to %v", x.factor)
		}
	}
	if u := x.use(); u > 0 || math.IsNaN(u) {
		t.Errorf("it uses %v", u)
	}
}
