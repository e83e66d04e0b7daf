package pipeline

import (
	"sync"
	"sync/atomic"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
)

// LifeQueue is how many events of containers' lives may wait for the pipeline: those
// of a thousand short containers.
const LifeQueue = 4096

// lives are the events of containers' lives that wait for the pipeline's goroutine, in
// order. What finds no room is counted by its class.
type lives struct {
	waiting chan waitingLife
	head    waitingLife // taken from the queue, while it waits for its container's name
	taken   bool        // there is a head
	lost    [injectedRows]atomic.Uint64

	mu     sync.RWMutex
	closed bool
}

// waitingLife is an event that waits, since a monotonic time.
type waitingLife struct {
	inventory.Happening
	since uint64
}

const injectedRows = int(event.Kinds-event.KernelKinds) * int(event.Priorities)

func injectedRow(k event.Kind, p event.Priority) int {
	return int(k-event.KernelKinds)*int(event.Priorities) + int(p)
}

// LifeCounts are of one kind and priority: seen are both together.
type LifeCounts struct {
	Kind           event.Kind
	Priority       event.Priority
	Injected, Lost uint64
}

// Happened queues something that happened to a container, to go through the pipeline
// as an event. It never blocks; one goroutine calls it at a time. No sampling policy
// decides on it: there are a few in a container's life, and one that is missing makes
// the rest of it untrue.
func (p *Pipeline) Happened(h inventory.Happening) {
	p.lives.mu.RLock()
	defer p.lives.mu.RUnlock()
	if !p.lives.closed {
		select {
		case p.lives.waiting <- waitingLife{h, p.options.Monotonic()}:
			// Whoever found the queue empty has woken it, and it goes on until it is empty.
			if len(p.lives.waiting) <= 1 && p.options.Wake != nil {
				p.options.Wake()
			}
			return
		default:
		}
	}
	p.lives.lost[injectedRow(h.Kind, priorityOf(h))].Add(1)
}

// WaitingLives is how many wait. Safe at any time.
func (p *Pipeline) WaitingLives() int { return len(p.lives.waiting) }

// Lives are the counts of each kind and priority that was met. Safe at any time.
func (p *Pipeline) Lives(s *Stats) (out []LifeCounts) {
	for k := event.KernelKinds; k < event.Kinds; k++ {
		for priority := range event.Priorities {
			row := injectedRow(k, priority)
			c := LifeCounts{Kind: k, Priority: priority, Injected: s.byLife[row], Lost: p.lives.lost[row].Load()}
			if c.Injected+c.Lost > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// priorityOf follows that of a process's exit.
func priorityOf(h inventory.Happening) event.Priority {
	switch {
	case h.Kind == event.ContainerOOM:
		return event.Critical
	case h.Kind == event.ContainerDied && h.Life.ExitCode != 0:
		return event.Error
	}
	return event.Info
}

// inject releases what waits in the queue. A creation that is told before the
// container's name, as by runtimes that first tell the id alone, holds the others back
// until the name is told, for Options.Hold at most.
func (p *Pipeline) inject(all bool) {
	l := &p.lives
	for l.taken || len(l.waiting) > 0 {
		now := p.options.Monotonic()
		if !l.taken {
			l.head, l.taken = <-l.waiting, true
		}
		h := l.head.Happening
		if h.Kind == event.ContainerCreated && h.Workload.Container.GetName() == "" {
			h.Workload = h.Latest()
			if !all && h.Workload.Container.GetName() == "" && now-l.head.since < uint64(p.options.Hold) {
				return
			}
		}
		l.head, l.taken = waitingLife{}, false
		p.event = event.Event{Kind: h.Kind, Priority: priorityOf(h), Life: h.Life}
		p.stats.Injected++
		p.stats.byLife[injectedRow(h.Kind, p.event.Priority)]++
		p.release(&p.event, Attribution{Workload: h.Workload})
		p.event.Life = nil
	}
}

// closeLives takes no more, and releases what waits.
func (p *Pipeline) closeLives() {
	p.lives.mu.Lock()
	p.lives.closed = true
	p.lives.mu.Unlock()
	p.inject(true)
}

// first counts the first exec of a container's cgroup, and whether it can be told whose
// it is.
func (p *Pipeline) first(e *event.Event, a Attribution) {
	g := p.options.Inventory.Lookup(e.CgroupID)
	if g == nil || !g.FirstExec() {
		return
	}
	p.stats.FirstExecs++
	if a.Workload.Named() {
		p.stats.FirstExecsNamed++
	}
}
