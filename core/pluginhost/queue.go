package pluginhost

import (
	"context"
	"sync"
)

// queueLimit is how many items wait for a plugin.
const queueLimit = 4096

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
}

// put adds items, in order.
func (q *queue[T]) put(items ...T) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	if q.reading {
		q.items = append(q.items, items...)
		if n := len(q.items); n > queueLimit {
			q.dropped += uint64(n)
			q.since += uint64(n)
			q.items, q.missed = nil, true
		}
	}
	q.mu.Unlock()
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
