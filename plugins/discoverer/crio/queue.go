package main

// fifo is a queue of ids. One is in each of the two at most once, so they are
// never longer than there are containers, but for those destroyed before their
// turn.
type fifo struct {
	ids  []string
	head int
}

func (q *fifo) len() int { return len(q.ids) - q.head }

func (q *fifo) push(id string) { q.ids = append(q.ids, id) }

func (q *fifo) pop() string {
	id := q.ids[q.head]
	q.ids[q.head] = ""
	if q.head++; q.head == len(q.ids) {
		q.ids, q.head = q.ids[:0], 0
	} else if q.head > 1024 && q.head > len(q.ids)/2 {
		q.ids, q.head = append([]string(nil), q.ids[q.head:]...), 0
	}
	return id
}
