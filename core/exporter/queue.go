package exporter

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Stats are an exporter's part of the ledger:
// Released = Exported + QueueDropped + Failed + ScopedOut + Queued.
type Stats struct {
	Name                                                        string
	Released, Exported, QueueDropped, Failed, ScopedOut, Queued uint64
	Bytes                                                       uint64 // exported
	LastError                                                   string
}

// counters are the counts behind Stats. The encoding side and the writing side
// each have their own, so that neither waits for the other.
type counters struct {
	released, dropped, scopedOut   atomic.Uint64
	exported, failed, bytesWritten atomic.Uint64
	lastError                      atomic.Pointer[string]
}

// stats reads outcomes before released, so that Queued, their difference, is
// never negative.
func (c *counters) stats(name string) Stats {
	s := Stats{
		Name:         name,
		Exported:     c.exported.Load(),
		Failed:       c.failed.Load(),
		QueueDropped: c.dropped.Load(),
		ScopedOut:    c.scopedOut.Load(),
		Bytes:        c.bytesWritten.Load(),
	}
	s.Released = c.released.Load()
	s.Queued = s.Released - s.Exported - s.Failed - s.QueueDropped - s.ScopedOut
	if e := c.lastError.Load(); e != nil {
		s.LastError = *e
	}
	return s
}

const (
	batchBytes = 256 << 10 // handed over when so much is there, or at a flush
	batchRoom  = batchBytes + 64<<10
	batchCount = 32 // in all: 10 MiB
)

// lines is a batch of encoded events.
type lines struct {
	b []byte
	n uint64
}

// queue is the bounded queue of batches between the encoding goroutine and the
// writing one.
type queue struct {
	counters
	now     *lines      // being filled; nil: none is free
	full    chan *lines // to be written
	free    chan *lines // to be filled
	made    int
	pending chunk
	writer  sync.WaitGroup
	moved   atomic.Int64 // when the writer last ended a batch or had none: nanoseconds since epoch
	epoch   time.Time
}

// chunk counts what was released since the last flush: one atomic addition for
// many events.
type chunk struct{ released, dropped, scopedOut uint64 }

func newQueue(write func([]byte) (int, error)) *queue {
	q := &queue{
		full: make(chan *lines, batchCount), free: make(chan *lines, batchCount), epoch: time.Now(),
	}
	q.writer.Add(1)
	go func() {
		defer q.writer.Done()
		q.write(write)
	}()
	return q
}

// room gives the batch to append to, nil when all are waiting to be written.
func (q *queue) room() *lines {
	if q.now != nil {
		return q.now
	}
	select {
	case q.now = <-q.free:
	default:
		if q.made < batchCount {
			q.made++
			q.now = &lines{b: make([]byte, 0, batchRoom)}
		}
	}
	return q.now
}

// stuck is how long a writer may take for a batch before it counts as stuck.
const stuck = 50 * time.Millisecond

// congested tells that half of the batches wait for a writer that is working.
func (q *queue) congested() bool {
	return len(q.full) >= batchCount/2 && time.Since(q.epoch)-time.Duration(q.moved.Load()) < stuck
}

// flush publishes the counts, and hands the batch over when it is full or the
// writer has nothing else to do: a writer that is behind gets whole batches.
func (q *queue) flush() {
	// Before the outcomes: released is never less than what became of it.
	q.released.Add(q.pending.released)
	q.dropped.Add(q.pending.dropped)
	q.scopedOut.Add(q.pending.scopedOut)
	q.pending = chunk{}
	waiting := len(q.full)
	if q.now != nil && q.now.n > 0 && (len(q.now.b) >= batchBytes || waiting == 0) {
		if waiting == 0 {
			q.moved.Store(int64(time.Since(q.epoch)))
		}
		q.full <- q.now // there is room for every batch there is
		q.now = nil
	}
}

// close writes what is left and ends the writer.
func (q *queue) close() {
	q.flush()
	if q.now != nil && q.now.n > 0 {
		q.full <- q.now // there is room for every batch there is
	}
	q.now = nil
	close(q.full)
	q.writer.Wait()
}

// write is the writing goroutine. A failed write loses the rest of its batch,
// counted; the next one begins on a line of its own.
func (q *queue) write(write func([]byte) (int, error)) {
	broken := false // the last write ended within a line
	for l := range q.full {
		if broken {
			_, err := write([]byte{'\n'})
			broken = err != nil
			q.failing(err)
		}
		n, err := 0, error(nil)
		if !broken {
			n, err = write(l.b)
		}
		q.bytesWritten.Add(uint64(n))
		if n == len(l.b) {
			q.moved.Store(int64(time.Since(q.epoch)))
			q.exported.Add(l.n)
		} else {
			whole := uint64(bytes.Count(l.b[:n], []byte{'\n'}))
			broken = broken || n > 0 && l.b[n-1] != '\n'
			q.exported.Add(whole)
			q.failed.Add(l.n - whole)
		}
		q.failing(err)
		if l.n = 0; cap(l.b) > 2*batchRoom { // a giant passed
			l.b = make([]byte, 0, batchRoom)
		}
		l.b = l.b[:0]
		q.free <- l
	}
}

func (c *counters) failing(err error) {
	if err != nil {
		text := err.Error()
		c.lastError.Store(&text)
	}
}

// Scope is the set of kinds that an exporter takes.
type Scope [event.Kinds]bool

// NewScope is the set of those kinds; none: all that are not internal.
func NewScope(kinds []event.Kind) (s Scope) {
	if len(kinds) == 0 {
		for k := range event.Kinds {
			s[k] = !k.Internal()
		}
	}
	for _, k := range kinds {
		s[k] = true
	}
	return s
}
