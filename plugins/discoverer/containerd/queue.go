package main

// fifo is a queue of containers to ask for. One is in it at most once, so it is never
// longer than there are containers, but for those deleted before their turn.
type fifo struct {
	keys []key
	head int
}

func (q *fifo) len() int { return len(q.keys) - q.head }

func (q *fifo) push(k key) { q.keys = append(q.keys, k) }

func (q *fifo) pop() key {
	k := q.keys[q.head]
	q.keys[q.head] = key{}
	if q.head++; q.head == len(q.keys) {
		q.keys, q.head = q.keys[:0], 0
	} else if q.head > 1024 && q.head > len(q.keys)/2 {
		q.keys, q.head = append([]key(nil), q.keys[q.head:]...), 0
	}
	return k
}
