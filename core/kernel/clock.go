package kernel

import (
	"time"

	"golang.org/x/sys/unix"
)

// origin is one moment on Go's clock and on the kernel's. It never changes.
var origin = func() (o struct {
	at   time.Time
	mono int64
}) {
	// Of several tries that holds in which the least time went by, should one be
	// interrupted. The later of the two counts, so that no event is of the future.
	least := time.Duration(1<<63 - 1)
	for range 8 {
		var ts unix.Timespec
		at := time.Now()
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // never fails: the clock is there, and so is room for it
		if took := time.Since(at); took < least {
			least = took
			o.at, o.mono = at, ts.Nano()
		}
	}
	return o
}()

// Monotonic is the clock of the kernel's events in ns, less than a microsecond fast. It
// makes no system call, which would cost one who sleeps in between more than its time.
func Monotonic() uint64 { return uint64(origin.mono + int64(time.Since(origin.at))) }

// Wall is when by the wall clock it was at a moment of Monotonic, as the wall clock goes
// now.
func Wall(monotonic uint64) time.Time {
	now := time.Now()
	return now.Add(-time.Duration(origin.mono + int64(now.Sub(origin.at)) - int64(monotonic)))
}
