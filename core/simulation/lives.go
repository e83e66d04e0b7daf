package simulation

import (
	"math"
	"math/rand/v2"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

const (
	shortest = 5e6   // ns that a container lives
	longest  = 500e6 // ns
	doings   = 6     // mean number of files opened and connections made
	failures = 0.05  // share of containers that end with an error
)

// lives are containers that come and go: what each will do, once it has begun.
type lives struct {
	group   uint32  // the last container's
	pending []Event // a heap: none is before its parent, half its index
}

func newLives(groups uint32) *lives { return &lives{group: groups} }

// begin a container: one process, which forks, executes, does a geometric number of
// things and exits. Its fork, exec and exit are one life.
func (l *lives) begin(at int64, rng *rand.Rand) {
	l.group++
	life := shortest * math.Pow(longest/shortest, rng.Float64())
	born := Event{Group: l.group, Lifecycle: uint64(l.group)}
	l.push(born, at, event.ProcessFork, event.Debug)
	exec := life * 0.1 * rng.Float64()
	l.push(born, at+int64(exec), event.ProcessExec, event.Info)
	exit := event.Info
	if rng.Float64() < failures {
		exit = event.Error
	}
	l.push(born, at+int64(life), event.ProcessExit, exit)
	born.Lifecycle = 0
	for range geometric(doings, rng) {
		when := at + int64(exec+(life-exec)*rng.Float64())
		if rng.Uint64()&1 == 0 {
			l.push(born, when, event.FileOpen, event.Debug)
		} else {
			l.push(born, when, event.NetworkConnect, event.Info)
		}
	}
}

// geometric draws a number of 0 or more.
func geometric(mean float64, rng *rand.Rand) int {
	return int(math.Log(1-rng.Float64()) / math.Log(mean/(mean+1)))
}

// next is when the next event is, in ns; math.MaxInt64: there is none.
func (l *lives) next() int64 {
	if len(l.pending) == 0 {
		return math.MaxInt64
	}
	return l.pending[0].At
}

// push is by hand, as pop is: container/heap would allocate for each event.
func (l *lives) push(e Event, at int64, k event.Kind, p event.Priority) {
	e.At, e.Kind, e.Priority = at, k, p
	l.pending = append(l.pending, e)
	h := l.pending
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if h[parent].At <= h[i].At {
			return
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
}

func (l *lives) pop() Event {
	h := l.pending
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	l.pending = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && h[child+1].At < h[child].At {
			child++
		}
		if h[i].At <= h[child].At {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
