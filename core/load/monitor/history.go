package monitor

import (
	"math"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// kept is for how long a reading is.
	kept = 10 * time.Minute
	// capacity in readings: one each 250 ms, the shortest interval of reports.
	capacity = int(kept / (250 * time.Millisecond))
)

// Windows are those that are usually asked for.
func Windows() []time.Duration {
	return []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}
}

// Figure is what the history holds of a reading: the resources, which have the numbers
// that they have as a Resource and are shares, and more.
type Figure uint8

// Figures that are not shares of a resource.
const (
	NetworkBytes    Figure = Figure(Resources) + iota // a second
	DiskBytes                                         // a second
	DaemonCPU                                         // cores
	DaemonMemory                                      // bytes
	AvailableMemory                                   // bytes
	SeenEvents                                        // a second
	KeptEvents                                        // a second
	// Figures is how many there are.
	Figures
)

var figureNames = [Figures - Figure(Resources)]string{
	"network bytes", "disk bytes", "daemon cpu", "daemon memory", "available memory", "events seen", "events kept",
}

// String is the figure's name.
func (f Figure) String() string {
	switch {
	case f < Figure(Resources):
		return Resource(f).String()
	case f < Figures:
		return figureNames[f-Figure(Resources)]
	}
	return "unknown"
}

// figures of one reading; NaN: not told. Seven digits are enough of each.
type figures [Figures]float32

func figuresOf(h *protov1.HostLoad, s Shares, f Flow) figures {
	var out figures
	for r, v := range s {
		out[r] = float32(v)
	}
	told := func(v *float64) float32 {
		if v == nil {
			return float32(math.NaN())
		}
		return float32(*v)
	}
	out[NetworkBytes], out[DiskBytes] = told(h.NetworkBytesPerSecond), told(h.DiskBytesPerSecond)
	read := func(v uint64, ok bool) float32 {
		if !ok {
			return float32(math.NaN())
		}
		return float32(v)
	}
	out[DaemonCPU], out[DaemonMemory] = told(h.DaemonCpuCores), read(h.GetDaemonMemoryBytes(), h.GetDaemonMemoryBytes() > 0)
	out[AvailableMemory] = read(h.GetMemoryAvailableBytes(), h.GetMemoryTotalBytes() > 0)
	out[SeenEvents], out[KeptEvents] = float32(f.Seen), float32(f.Kept)
	return out
}

// Reading is one of the history.
type Reading struct {
	Time    time.Time
	Level   Level
	figures figures
}

// Get gives a figure; false: it was not told.
func (r *Reading) Get(f Figure) (float64, bool) {
	if f >= Figures || math.IsNaN(float64(r.figures[f])) {
		return 0, false
	}
	return float64(r.figures[f]), true
}

// Stat of a figure over a window: of the readings, each with the same weight.
type Stat struct {
	Readings       int // that told it; 0: the rest means nothing
	Min, Mean, Max float64
}

// Summary of a window.
type Summary struct {
	Window   time.Duration // that was asked for
	Span     time.Duration // that there are readings of: from the oldest to the last
	Readings int
	Level    Level // the highest
	Stats    [Figures]Stat
}

// history holds the readings of the last ten minutes, and never more than 2,400. It is
// about 200 kB from its beginning on, and takes no more.
type history struct {
	start    time.Time
	readings []record // a ring
	next, n  int
}

// record is a reading at a time since the start.
type record struct {
	at      time.Duration
	level   Level
	figures figures
}

func newHistory() *history { return &history{readings: make([]record, capacity)} }

// add adds a reading. Of times that go back it makes no sense.
func (h *history) add(now time.Time, l Level, f figures) {
	if h.n == 0 {
		h.start = now
	}
	h.readings[h.next] = record{now.Sub(h.start), l, f}
	h.next = (h.next + 1) % len(h.readings)
	h.n = min(h.n+1, len(h.readings))
}

// each calls f with the records of a window that ends with the last one, the oldest
// first.
func (h *history) each(window time.Duration, f func(*record)) {
	if h.n == 0 {
		return
	}
	size := len(h.readings)
	from := h.readings[(h.next+size-1)%size].at - min(window, kept)
	for i := range h.n {
		if r := &h.readings[(h.next+size-h.n+i)%size]; r.at > from {
			f(r)
		}
	}
}

// within gives the readings of the window before the last one, the oldest first.
func (h *history) within(window time.Duration) []Reading {
	var out []Reading
	h.each(window, func(r *record) {
		out = append(out, Reading{h.start.Add(r.at), r.level, r.figures})
	})
	return out
}

// summary is over the window before the last reading.
func (h *history) summary(window time.Duration) Summary {
	out := Summary{Window: window}
	var first time.Duration
	h.each(window, func(r *record) {
		if out.Readings == 0 {
			first = r.at
		}
		out.Readings++
		out.Span = r.at - first
		out.Level = max(out.Level, r.level)
		for i, v := range r.figures {
			out.Stats[i].add(float64(v))
		}
	})
	for i := range out.Stats {
		if s := &out.Stats[i]; s.Readings > 0 {
			s.Mean /= float64(s.Readings)
		}
	}
	return out
}

// add takes a value into the extremes, and into the sum that becomes the mean.
func (s *Stat) add(v float64) {
	if math.IsNaN(v) {
		return
	}
	if s.Readings == 0 {
		s.Min, s.Max = v, v
	}
	s.Readings++
	s.Mean += v
	s.Min, s.Max = min(s.Min, v), max(s.Max, v)
}
