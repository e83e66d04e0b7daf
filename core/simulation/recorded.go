package simulation

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/recording"
)

const (
	mostRecorded  = 1 << 24 // events of a recording, which are kept in memory with 32 bytes each
	longestToPlay = 24 * time.Hour
)

// FromRecording makes a scenario of what 'ebpf-tracer record' has written: it is played
// once, at its own speed. A seed draws where in the recording it begins, after whose end
// it goes on at its beginning, and on which of two CPUs each event is, where that was not
// recorded. The budget is that of the other scenarios, and not meant for it. Errors wrap
// [recording.ErrMalformed], are those of r, or say that it has
// no event, more than 16,777,216 or more than a day of them.
func FromRecording(name string, r io.Reader) (Scenario, error) {
	t, err := readTrace(r)
	if err != nil {
		return Scenario{}, err
	}
	doc := fmt.Sprintf("a recording of %v: %d events of %d groups, %.0f events/s",
		t.length.Round(time.Millisecond), len(t.events), t.groups, float64(len(t.events))/t.length.Seconds())
	if !t.complete {
		doc += fmt.Sprintf("; %d more were lost", t.lost)
	}
	return Scenario{
		Name: name, Doc: doc, Duration: t.length, Warmup: min(warmup, (t.length / 5).Truncate(time.Millisecond)), Budget: budget,
		Events: func(seed uint64) iter.Seq[Event] { return t.play(seed, []tempo{{t.length, 1}}) },
	}, nil
}

// The trace of S4 was made by testdata/S4.sh, which says what ran, on the machine with
// two CPUs on which this was developed; others worked on it meanwhile, who are in its
// group 0. It has 398,163 events of 182 cgroups in 24.1 s, 16,500 events/s, none lost.
//
//go:embed testdata/S4.trace
var s4Trace []byte

// s4 is read at its first use: whoever simulates nothing has no need of it.
var s4 = sync.OnceValue(func() *trace {
	t, err := readTrace(bytes.NewReader(s4Trace))
	if err != nil {
		panic(err) // it is part of the program, and a test reads it
	}
	return t
})

// recorded is S4: the trace at its own speed, which is 1.6 times the budget, and twice
// faster.
func recorded() Scenario {
	tempos := []tempo{
		{15 * time.Second, 1}, {20 * time.Second, 10}, {26 * time.Second, 1}, {30 * time.Second, 50}, {36 * time.Second, 1},
	}
	s := Scenario{
		Name:     "S4",
		Doc:      "a recording of gcc, redis, nginx and short jobs, 182 cgroups, 16.5k events/s; 10 times as fast for 5 s, and 50 times for 4 s",
		Duration: tempos[len(tempos)-1].until, Warmup: warmup, Budget: budget,
		Events: func(seed uint64) iter.Seq[Event] {
			return func(yield func(Event) bool) { s4().play(seed, tempos)(yield) }
		},
	}
	for _, t := range tempos[:len(tempos)-1] {
		s.Steps = append(s.Steps, t.until)
	}
	return s
}

// tempo is how many times as fast a trace is played, until when.
type tempo struct {
	until time.Duration
	times int64
}

// trace is a recording in memory.
type trace struct {
	events   []Event
	length   time.Duration // positive, and after the last event
	lives    uint64        // the greatest number
	groups   uint32        // the greatest number
	passing  []bool        // by group: one that came or went meanwhile
	lost     uint64
	complete bool
	cpus     bool // are known
}

func readTrace(from io.Reader) (*trace, error) {
	r, err := recording.NewReader(from)
	if err != nil {
		return nil, err
	}
	h := r.Header()
	switch {
	case h.Events == 0:
		return nil, errors.New("the recording has no event: there is nothing to play")
	case h.Events > mostRecorded:
		return nil, fmt.Errorf("the recording has %d events, more than %d: record for a shorter time", h.Events, mostRecorded)
	case h.Duration > longestToPlay:
		return nil, fmt.Errorf("the recording takes %v, more than %v: record for a shorter time", h.Duration, longestToPlay)
	}
	t := &trace{length: h.Duration + time.Microsecond, lost: h.Lost, complete: h.Complete, cpus: h.CPUs}
	var attributes ordinals
	for {
		var e recording.Event
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			t.findPassing()
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		out := Event(e)
		out.CPU &= 1
		out.Attribute = attributes.of(&out)
		t.events = append(t.events, out)
		t.lives, t.groups = max(t.lives, e.Lifecycle), max(t.groups, e.Group)
	}
}

// ordinals number the attributes of each class from 0: a scorer has a place for each up
// to the greatest.
type ordinals struct {
	classes map[origin]map[uint16]uint16
}

// origin is a class.
type origin struct {
	group    uint32
	kind     event.Kind
	priority event.Priority
}

func (o *ordinals) of(e *Event) uint16 {
	if o.classes == nil {
		o.classes = map[origin]map[uint16]uint16{}
	}
	c := origin{e.Group, e.Kind, e.Priority}
	known := o.classes[c]
	if known == nil {
		known = map[uint16]uint16{}
		o.classes[c] = known
	}
	n, ok := known[e.Attribute]
	if !ok {
		n = uint16(len(known))
		known[e.Attribute] = n
	}
	return n
}

// findPassing finds the groups that are not in both the first and the last tenth.
func (t *trace) findPassing() {
	early := make([]bool, t.groups+1)
	t.passing = make([]bool, t.groups+1)
	for i := range t.passing {
		t.passing[i] = i > 0
	}
	tenth := int64(t.length / 10)
	for i := range t.events {
		switch e := &t.events[i]; {
		case e.At <= tenth:
			early[e.Group] = true
		case e.At >= int64(t.length)-tenth && early[e.Group]:
			t.passing[e.Group] = false
		}
	}
}

// play gives the trace's events over and over, at the tempos one after another. What is
// passing, and every process and socket, is another each time.
func (t *trace) play(seed uint64, tempos []tempo) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		pcg := rand.NewPCG(seed, 0)
		length := int64(t.length)
		from := int64(pcg.Uint64() % uint64(length)) // in the trace, as if it had no end
		i, _ := slices.BinarySearchFunc(t.events, from, func(e Event, at int64) int { return cmp.Compare(e.At, at) })
		var round int64
		var began time.Duration
		for _, tempo := range tempos {
			end := from + int64(tempo.until-began)*tempo.times
			for ; ; i++ {
				if i == len(t.events) {
					i = 0
					round++
				}
				at := round*length + t.events[i].At
				if at >= end {
					break
				}
				e := t.events[i]
				e.At = int64(began) + (at-from)/tempo.times
				if e.Lifecycle != 0 {
					e.Lifecycle += uint64(round) * t.lives
				}
				if t.passing[e.Group] {
					e.Group += uint32(round) * t.groups
				}
				if !t.cpus {
					e.CPU = uint8(pcg.Uint64() & 1)
				}
				if !yield(e) {
					return
				}
			}
			from, began = end, tempo.until
		}
	}
}
