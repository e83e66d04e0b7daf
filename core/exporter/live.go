package exporter

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

const (
	// MostWatches is how many may watch at one time.
	MostWatches = 16

	watchBytes   = 64 << 10 // handed over when so much is there, or at a flush
	watchRoom    = watchBytes + 16<<10
	watchBatches = 8 // of one watch: 640 KiB
)

// ErrTooManyWatches says that MostWatches are watching already.
var ErrTooManyWatches = errors.New("too many are watching events already: end one of them first")

// WatchFilter says which events a watch is for.
type WatchFilter struct {
	Kinds     []event.Kind // empty: all that are not internal
	Container string       // an id's beginning, or a name; "": all, and the host's own
}

// Live shows events to those who watch, while they watch. Without a watch it
// counts and does nothing else.
//
// In its part of the ledger an event is scoped out when nobody watches it,
// exported when at least one watch took it into its queue, and dropped when it was
// wanted and no queue had room. What one slow watch misses is counted by that
// watch.
type Live struct {
	counters
	name    string
	encoder *Encoder
	line    []byte // one event, encoded once for all
	pending struct {
		chunk
		exported, bytes uint64
	}

	watches atomic.Pointer[[]*Watch] // nil: none
	mu      sync.Mutex               // of changes to watches
	closed  chan struct{}
	close   sync.Once
}

// NewLive makes an exporter that nobody watches yet. encoder is for it alone.
func NewLive(name string, encoder *Encoder) *Live {
	return &Live{name: name, encoder: encoder, closed: make(chan struct{})}
}

// Name of the exporter.
func (l *Live) Name() string { return l.name }

// Export encodes an event for those who watch it.
func (l *Live) Export(e *event.Event, a pipeline.Attribution) {
	l.pending.released++
	watches := l.watches.Load()
	if watches == nil {
		l.pending.scopedOut++
		return
	}
	wanted, taken := false, false
	for _, w := range *watches {
		if !w.wants(e, a) {
			continue
		}
		if !wanted {
			wanted = true
			l.line = l.encoder.Append(l.line[:0], e, a)
		}
		if w.take(l.line) {
			taken = true
		}
	}
	switch {
	case taken:
		l.pending.exported++
		l.pending.bytes += uint64(len(l.line))
	case wanted:
		l.pending.dropped++
	default:
		l.pending.scopedOut++
	}
	if cap(l.line) > watchBytes {
		l.line = nil // one huge line does not stay
	}
}

// Flush hands what is there to those who watch, and publishes the counts.
func (l *Live) Flush() {
	// Before the outcomes: released is never less than what became of it.
	l.released.Add(l.pending.released)
	l.dropped.Add(l.pending.dropped)
	l.scopedOut.Add(l.pending.scopedOut)
	l.exported.Add(l.pending.exported)
	l.bytesWritten.Add(l.pending.bytes)
	l.pending.chunk = chunk{}
	l.pending.exported, l.pending.bytes = 0, 0
	watches := l.watches.Load()
	if watches == nil {
		return
	}
	for _, w := range *watches {
		w.flush()
	}
	l.encoder.clock.Sync()
}

// Stats of the exporter. Safe at any time.
func (l *Live) Stats() Stats { return l.stats(l.name) }

// Congested is never so: a watch that can't keep up loses events, and knows.
func (l *Live) Congested() bool { return false }

// Queue is how many batches wait to be read, by all watches together, and how
// many may. Safe at any time.
func (l *Live) Queue() (depth, capacity uint64) {
	if watches := l.watches.Load(); watches != nil {
		for _, w := range *watches {
			depth += uint64(len(w.full))
			capacity += watchBatches
		}
	}
	return depth, capacity
}

// Close hands out what is left; watches end once they have read it. No Export may
// follow.
func (l *Live) Close() error {
	l.close.Do(func() {
		l.Flush()
		close(l.closed)
	})
	return nil
}

// Watch begins to watch the events that pass the filter. The caller must Close
// the watch. The error is ErrTooManyWatches.
func (l *Live) Watch(f WatchFilter) (*Watch, error) {
	w := &Watch{
		live: l, kinds: NewScope(f.Kinds), container: f.Container,
		full: make(chan *lines, watchBatches), free: make(chan *lines, watchBatches),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var next []*Watch
	if now := l.watches.Load(); now != nil {
		next = append(next, *now...)
	}
	if len(next) >= MostWatches {
		return nil, ErrTooManyWatches
	}
	next = append(next, w)
	l.watches.Store(&next)
	return w, nil
}

func (l *Live) leave(w *Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var next []*Watch
	if now := l.watches.Load(); now != nil {
		for _, o := range *now {
			if o != w {
				next = append(next, o)
			}
		}
	}
	if next == nil {
		l.watches.Store(nil)
		return
	}
	l.watches.Store(&next)
}

// Watch is one who watches. Next and Close are for one goroutine.
type Watch struct {
	live      *Live
	kinds     Scope
	container string
	dropped   atomic.Uint64

	// Of the goroutine that exports.
	now  *lines // being filled
	made int

	full chan *lines // to be read
	free chan *lines // to be filled
	read *lines      // what Next gave last
}

func (w *Watch) wants(e *event.Event, a pipeline.Attribution) bool {
	if !w.kinds[e.Kind] {
		return false
	}
	if w.container == "" {
		return true
	}
	if a.Workload == nil {
		return a.Pending && strings.HasPrefix(a.Hint, w.container)
	}
	c := a.Workload.Container
	return c.GetName() == w.container || strings.HasPrefix(c.GetId(), w.container)
}

// take copies a line into the batch at hand; false, and counted: there is no
// room.
func (w *Watch) take(line []byte) bool {
	if w.now == nil {
		select {
		case w.now = <-w.free:
		default:
			if w.made == watchBatches {
				w.dropped.Add(1)
				return false
			}
			w.made++
			w.now = &lines{b: make([]byte, 0, watchRoom)}
		}
	}
	w.now.b = append(w.now.b, line...)
	w.now.n++
	if len(w.now.b) >= watchBytes {
		w.flush()
	}
	return true
}

func (w *Watch) flush() {
	if w.now != nil && w.now.n > 0 {
		w.full <- w.now // there is room for every batch there is
		w.now = nil
	}
}

// Next waits for events and gives them as whole lines, valid until the next call,
// and how many this watch has missed since it began. After the exporter was closed
// and everything was read the error is io.EOF; else it is ctx's, but not before
// everything at hand was read.
func (w *Watch) Next(ctx context.Context) (batch []byte, dropped uint64, err error) {
	w.giveBack()
	select {
	case w.read = <-w.full:
		return w.read.b, w.dropped.Load(), nil
	default:
	}
	select {
	case w.read = <-w.full:
	case <-ctx.Done():
		return nil, w.dropped.Load(), ctx.Err()
	case <-w.live.closed:
		select {
		case w.read = <-w.full: // came first
		default:
			return nil, w.dropped.Load(), io.EOF
		}
	}
	return w.read.b, w.dropped.Load(), nil
}

// giveBack lets the batch that was read be filled again.
func (w *Watch) giveBack() {
	if w.read == nil {
		return
	}
	if w.read.b = w.read.b[:0]; cap(w.read.b) > 2*watchRoom {
		w.read.b = make([]byte, 0, watchRoom) // one huge line does not stay
	}
	w.read.n = 0
	w.free <- w.read // there is room for every batch there is
	w.read = nil
}

// Close ends the watch.
func (w *Watch) Close() { w.live.leave(w) }

var _ pipeline.Exporter = (*Live)(nil)
