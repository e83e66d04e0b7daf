package main

import "math"

// recent remembers the last containers that were removed: an answer or an event may
// come behind the removal, and must not bring one back. Ids are never used again.
type recent struct {
	ring [1024]string
	set  map[string]uint64 // when, by the tracker's clock; forever: it was said so
	next int
}

const forever = math.MaxUint64

func (r *recent) has(id string) bool {
	_, ok := r.set[id]
	return ok
}

// add notes a removal. One that was only concluded, from a list that did not have the
// container, has a time: a list that was asked for later may have it again.
func (r *recent) add(id string, when uint64) {
	if r.has(id) {
		r.set[id] = max(r.set[id], when)
		return
	}
	if r.set == nil {
		r.set = make(map[string]uint64, 64)
	}
	delete(r.set, r.ring[r.next])
	r.ring[r.next] = id
	r.set[id] = when
	r.next = (r.next + 1) % len(r.ring)
}

// isBack takes back a removal that was only concluded, and before a time; it tells
// whether id is not removed now.
func (r *recent) isBack(id string, listed uint64) bool {
	when, ok := r.set[id]
	if !ok {
		return true
	}
	if when > listed {
		return false
	}
	delete(r.set, id)
	return true
}
