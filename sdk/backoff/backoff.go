// Package backoff paces the tries to reach what is away: pauses that double, with
// jitter, up to a limit.
//
// It exists for the loop that every plugin has, whose runtime or server comes and
// goes. It counts no tries and gives up never: a plugin says with Degraded that it
// waits, and whether that is too long is for its operator to judge.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a sequence of pauses. The zero value is ready for use. One goroutine
// uses it.
//
//	var pause backoff.Backoff
//	for {
//		err := d.session(ctx, inv, pause.Reset) // calls it once connected
//		if ctx.Err() != nil {
//			return ctx.Err()
//		}
//		inv.Degraded("no answer from the runtime: " + err.Error())
//		if err := pause.Wait(ctx); err != nil {
//			return err
//		}
//	}
type Backoff struct {
	Min time.Duration // the first pause; 0: 100 ms
	Max time.Duration // the longest; 0: 10 s

	next time.Duration // before jitter; 0: at the beginning
}

// Next is the length of the next pause: between half and the whole of Min, and twice
// that with each call up to Max. The jitter keeps plugins of many hosts from asking
// one server in step.
func (b *Backoff) Next() time.Duration {
	least, most := b.Min, b.Max
	if least <= 0 {
		least = 100 * time.Millisecond
	}
	if most <= 0 {
		most = 10 * time.Second
	}
	if b.next == 0 {
		b.next = least
	}
	d := min(b.next, most)
	b.next = min(2*d, most)
	return d - rand.N(d/2+1)
}

// Wait pauses for Next, or until ctx is done, and then returns ctx's error.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reset begins again with Min: call it when the other end has answered.
func (b *Backoff) Reset() { b.next = 0 }
