package main

import "github.com/moby/moby/api/types/events"

// recent remembers the last messages, so that those an engine replays after a
// reconnection are not told twice. Docker's own memory is of 256.
type recent struct {
	ring [512]messageKey
	set  map[messageKey]struct{}
	next int
	last int64 // the latest time seen, ns
}

type messageKey struct {
	nano   int64
	action events.Action
	id     string
}

func (r *recent) seen(m *events.Message) bool {
	k := messageKey{nano: m.TimeNano, action: m.Action, id: m.Actor.ID}
	if k.nano == 0 {
		return false // without a time no two are told apart
	}
	if r.set == nil {
		r.set = make(map[messageKey]struct{}, len(r.ring))
	}
	if _, ok := r.set[k]; ok {
		return true
	}
	delete(r.set, r.ring[r.next])
	r.ring[r.next] = k
	r.set[k] = struct{}{}
	r.next = (r.next + 1) % len(r.ring)
	r.last = max(r.last, k.nano)
	return false
}
