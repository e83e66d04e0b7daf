package load

import (
	"fmt"
	"math"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Limits of what the daemon itself uses: while it uses more, less of the budget is in
// force. What the programs cost is not in it: the kernel puts that down to those whose
// events they see.
type Limits struct {
	CPUs        float64 // 0: no bound
	MemoryBytes uint64  // resident; 0: no bound
}

// throttle is the part of the budget that is in force, so that the daemon stays within its
// limits: what it uses grows with what is kept.
type throttle struct {
	limits Limits
	factor float64

	cpus    float64 // used, smoothed; negative: not told yet
	memory  uint64
	at      time.Time // of the last observation
	changed time.Time // when the factor was last looked at
}

const (
	leastFactor = 0.01
	// throttlePause is how long a factor is given to show what it does.
	throttlePause = time.Second
	// throttleMemory is how fast what was used before is forgotten.
	throttleMemory = 2 * time.Second
	// relaxed is the share of a limit below which more of the budget is tried again.
	relaxed = 0.9
)

func newThrottle(l Limits) throttle { return throttle{limits: l, factor: 1, cpus: -1} }

// observe takes what the daemon uses into account, and tells whether another part of the
// budget is to be in force.
func (t *throttle) observe(now time.Time, h *protov1.HostLoad) bool {
	if h.DaemonCpuCores != nil {
		used := h.GetDaemonCpuCores()
		if t.cpus < 0 {
			t.cpus = used
		}
		t.cpus += (used - t.cpus) * (1 - math.Exp(-now.Sub(t.at).Seconds()/throttleMemory.Seconds()))
	}
	t.at, t.memory = now, h.GetDaemonMemoryBytes()
	if now.Sub(t.changed) < throttlePause {
		return false
	}
	t.changed = now
	before := t.factor
	switch use := t.use(); {
	case use > 1:
		t.factor = max(t.factor*max(1/use, 0.5), leastFactor)
	case use < relaxed:
		t.factor = min(t.factor*1.1, 1)
	}
	return t.factor != before
}

// use is what is used of the limit that is nearest.
func (t *throttle) use() (use float64) {
	if t.limits.CPUs > 0 {
		use = t.cpus / t.limits.CPUs
	}
	if t.limits.MemoryBytes > 0 {
		use = max(use, float64(t.memory)/float64(t.limits.MemoryBytes))
	}
	return use
}

// reasons say why not all of the budget is in force.
func (t *throttle) reasons() []string {
	if t.factor == 1 {
		return nil
	}
	what := fmt.Sprintf("daemon uses %.3g CPUs of %.3g", t.cpus, t.limits.CPUs)
	if t.limits.CPUs == 0 || t.limits.MemoryBytes > 0 && float64(t.memory)/float64(t.limits.MemoryBytes) > t.cpus/t.limits.CPUs {
		what = fmt.Sprintf("daemon uses %d MiB of %d", t.memory>>20, t.limits.MemoryBytes>>20)
	}
	return []string{fmt.Sprintf("%s: %.3g %% of the budget", what, 100*t.factor)}
}
