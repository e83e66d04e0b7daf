package monitor

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Family is a group of kinds that are about the same part of the host.
type Family uint8

// Families: what a kind's name begins with.
const (
	Process Family = iota
	Net
	File
	Other
	// Families is how many there are.
	Families
)

// FamilyOf a kind.
func FamilyOf(k event.Kind) Family {
	family, _, _ := strings.Cut(k.String(), ".")
	switch family {
	case "process":
		return Process
	case "network":
		return Net
	case "file":
		return File
	}
	return Other
}

// Factors multiply the share that is kept.
type Factors [Families][event.Priorities]float64

// forAll is for every family alike, by priority. What is critical is never less than whole.
func forAll(debug, info, warning, err float64) Factors {
	var f Factors
	for i := range f {
		f[i] = [event.Priorities]float64{
			event.Debug: debug, event.Info: info, event.Warning: warning, event.Error: err, event.Critical: 1,
		}
	}
	return f
}

// None are the factors of a host that has room.
func None() Factors { return forAll(1, 1, 1, 1) }

func halved(family Family) Factors {
	f := None()
	f[family] = forAll(0.5, 0.5, 0.5, 0.5)[family]
	return f
}

// Rules say when less is kept, and how much less. A bound of 0 turns its condition off.
type Rules struct {
	CPU               float64 // share of the host's above which OnCPU applies
	DaemonMemoryBytes uint64  // of the daemon above which OnMemory applies
	HostMemory        float64 // share of the host's, not available, above which OnMemory applies too
	Network           float64 // share of the busiest interface's speed above which OnNetwork applies
	Disk              float64 // share of time with I/O on the busiest disk above which OnDisk applies
	PressureIO        float64 // share of time that some task waits for I/O above which OnDisk applies too

	// A factor below 0 is taken for 0, and one above 1, or for critical, for 1.
	OnCPU, OnMemory, OnNetwork, OnDisk Factors
}

// DefaultRules are:
//
//   - CPU above 80 %: half of everything.
//   - The daemon's memory above 1 GiB, or less than 5 % of the host's available: aggressive,
//     a tenth of debug, a quarter of info, half of warning, and all errors.
//   - Network above 80 %: half of the network events, and the rest as it is.
//   - Disk above 80 %, or I/O pressure above 40 %: half of the file events.
//
// Critical is always kept whole.
func DefaultRules() Rules {
	return Rules{
		CPU: 0.80, DaemonMemoryBytes: 1 << 30, HostMemory: 0.95, Network: 0.80, Disk: 0.80, PressureIO: 0.40,
		OnCPU: forAll(0.5, 0.5, 0.5, 0.5), OnMemory: forAll(0.1, 0.25, 0.5, 1), OnNetwork: halved(Net), OnDisk: halved(File),
	}
}

// Relief is by how much less is kept, to make room, and why.
type Relief struct {
	Factors Factors  // to multiply each class's probability with
	Reasons []string // one for each condition that holds; none: all factors are 1
}

// Of gives the factor of a class. Kinds on which no policy decides are left alone.
func (r Relief) Of(k event.Kind, p event.Priority) float64 {
	if k.Internal() || k.Injected() || p >= event.Priorities {
		return 1
	}
	return r.Factors[FamilyOf(k)][p]
}

// condition of a rule.
type condition uint8

const (
	cpuBusy condition = iota
	daemonMemory
	hostMemory
	networkBusy
	diskBusy
	ioPressure
	conditions
)

var consequences = [conditions]string{
	"less of everything", "aggressive", "aggressive", "fewer network events", "fewer file events", "fewer file events",
}

// measure is what a condition looks at. NaN: not told.
type measure struct {
	name         string
	value, bound float64
	bytes        bool
}

func (m measure) met() bool { return m.bound > 0 && m.value > m.bound }

// clear tells whether it is so far below that a condition that holds may end.
func (m measure) clear() bool { return !(m.bound > 0 && m.value >= m.bound*release) }

func (m measure) show(v float64) string {
	if m.bytes {
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	}
	return percent(v)
}

// reason is as "cpu 91 %, above 80 %". One that only has not ended yet says so.
func (m measure) reason() string {
	switch {
	case math.IsNaN(m.value):
		return fmt.Sprintf("%s not told any more, was above %s", m.name, m.show(m.bound))
	case !m.met():
		return fmt.Sprintf("%s %s, not yet below %s for %v", m.name, m.show(m.value), m.show(m.bound*release), settle)
	}
	return fmt.Sprintf("%s %s, above %s", m.name, m.show(m.value), m.show(m.bound))
}

// measure takes what the conditions look at out of a load.
func (r Rules) measure(h *protov1.HostLoad) [conditions]measure {
	s := SharesOf(h)
	share := func(of Resource, bound float64) measure {
		return measure{name: of.String(), value: s[of], bound: bound}
	}
	own := measure{name: "daemon memory", value: float64(h.GetDaemonMemoryBytes()), bound: float64(r.DaemonMemoryBytes), bytes: true}
	return [conditions]measure{
		cpuBusy: share(CPU, r.CPU), daemonMemory: own, hostMemory: share(Memory, r.HostMemory),
		networkBusy: share(Network, r.Network), diskBusy: share(Disk, r.Disk), ioPressure: share(PressureIO, r.PressureIO),
	}
}

// Relieve says what the rules make of a load, looking at nothing else.
func (r Rules) Relieve(h *protov1.HostLoad) Relief {
	m := r.measure(h)
	var holds [conditions]bool
	for c := range m {
		holds[c] = m[c].met()
	}
	return r.relief(m, holds)
}

// relief multiplies what the rules say whose conditions hold, each once.
func (r Rules) relief(m [conditions]measure, holds [conditions]bool) Relief {
	out := Relief{Factors: None()}
	for c, h := range holds {
		if h {
			out.Reasons = append(out.Reasons, m[c].reason()+": "+consequences[c])
		}
	}
	for _, rule := range []struct {
		holds   bool
		factors *Factors
	}{
		{holds[cpuBusy], &r.OnCPU},
		{holds[daemonMemory] || holds[hostMemory], &r.OnMemory},
		{holds[networkBusy], &r.OnNetwork},
		{holds[diskBusy] || holds[ioPressure], &r.OnDisk},
	} {
		if !rule.holds {
			continue
		}
		for family := range out.Factors {
			for p := range event.Critical {
				out.Factors[family][p] *= min(max(rule.factors[family][p], 0), 1)
			}
		}
	}
	return out
}

// brake applies rules with a memory: a condition holds at once, and ends like a level of
// a gauge, so that one on its edge does not change the policy with each report.
type brake struct {
	rules   Rules
	latches [conditions]latch
}

func (b *brake) observe(now time.Time, h *protov1.HostLoad) Relief {
	m := b.rules.measure(h)
	var holds [conditions]bool
	for c := range m {
		holds[c] = b.latches[c].observe(now, m[c].met(), m[c].clear())
	}
	return b.rules.relief(m, holds)
}
