package monitor

import "time"

const (
	// release is the share of a bound below which a condition may end.
	release = 0.9
	// settle is for how long it must have been there.
	settle = 5 * time.Second
)

// latch is a condition that begins at once and ends slowly.
type latch struct {
	on    bool
	below time.Time // since when it may end; zero: it may not
}

// observe takes whether the condition is met, and whether what it is about is so far below
// that it may end.
func (l *latch) observe(now time.Time, met, clear bool) bool {
	switch {
	case met:
		*l = latch{on: true}
	case !l.on:
	case !clear:
		l.below = time.Time{}
	case l.below.IsZero():
		l.below = now
	case now.Sub(l.below) >= settle:
		*l = latch{}
	}
	return l.on
}
