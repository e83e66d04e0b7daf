package pluginhost

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// queueLimit is how many items wait for a plugin.
	queueLimit = 4096
	// leisure is how long what nobody waits for may wait for company.
	leisure = 100 * time.Millisecond
)

// queue holds what is to be sent to a plugin. Putting never blocks: a queue that is
// full is emptied, and its reader is told to send everything anew. While nobody
// reads, nothing is kept: a new stream begins with everything anyhow.
//
// So nothing is lost as long as whoever puts a change has made it visible to the
// one who lists everything before: what was dropped is in the list.
type queue[T any] struct {
	mu      sync.Mutex
	items   []T
	reading bool
	missed  bool
	dropped uint64 // total
	since   uint64 // dropped since reading began
	wake    chan struct{}
	later   *time.Timer // nil, or it wakes the reader for what is not urgent
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

// begin starts reading. What is put from now on is kept.
func (q *queue[T]) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.reading, q.missed, q.since = nil, true, false, 0
}

// end stops reading.
func (q *queue[T]) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.reading = nil, false
	q.hurry()
}

// hurry says that the reader will be awake without the timer. It is under the lock.
func (q *queue[T]) hurry() {
	if q.later != nil {
		q.later.Stop()
		q.later = nil
	}
}

// put adds items, in order.
func (q *queue[T]) put(items ...T) {
	q.mu.Lock()
	kept := q.keep(items)
	q.mu.Unlock()
	if kept {
		q.signal()
	}
}

// putLater is put for what need not be sent at once: it goes with what does, or after
// leisure.
func (q *queue[T]) putLater(items ...T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.keep(items) && q.later == nil {
		q.later = time.AfterFunc(leisure, q.signal)
	}
}

// drop takes out the last item that is as wanted, and tells whether there was one.
func (q *queue[T]) drop(wanted func(T) bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for at := len(q.items) - 1; at >= 0; at-- {
		if wanted(q.items[at]) {
			q.items = slices.Delete(q.items, at, at+1)
			return true
		}
	}
	return false
}

// keep adds items if somebody reads, and tells whether there are any then. It is under
// the lock.
func (q *queue[T]) keep(items []T) bool {
	if !q.reading || len(items) == 0 {
		return false
	}
	q.items = append(q.items, items...)
	if n := len(q.items); n > queueLimit {
		q.dropped += uint64(n)
		q.since += uint64(n)
		q.items, q.missed = nil, true
	}
	return true
}

// signal wakes the reader.
func (q *queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for items. missed says that items were dropped before these, and
// dropped how many since reading began.
func (q *queue[T]) take(ctx context.Context) (items []T, missed bool, dropped uint64, err error) {
	for {
		q.mu.Lock()
		items, missed, dropped = q.items, q.missed, q.since
		q.items, q.missed = nil, false
		q.hurry()
		q.mu.Unlock()
		if len(items) > 0 || missed {
			return items, missed, dropped, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return nil, false, 0, ctx.Err()
		}
	}
}

// state is the number of items that wait and the total of those dropped.
func (q *queue[T]) state() (depth, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return uint64(len(q.items)), q.dropped
}
