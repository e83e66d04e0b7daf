package kernel

import (
	"testing"
	"time"
)

func TestWallTellsWhenAMomentOfTheEventsClockWas(t *testing.T) {
	before := time.Now()
	moment := Monotonic()
	after := time.Now()
	time.Sleep(5 * time.Millisecond)
	if at := Wall(moment); at.Before(before.Add(-time.Millisecond)) || at.After(after.Add(time.Millisecond)) {
		t.Errorf("a moment between %v and %v was at %v", before, after, at)
	}
}
