package backoff

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPausesDoubleWithJitterUpToALimit(t *testing.T) {
	b := Backoff{Min: 10 * time.Millisecond, Max: 70 * time.Millisecond}
	for round := range 50 {
		for i, whole := range []time.Duration{10, 20, 40, 70, 70} {
			whole *= time.Millisecond
			if d := b.Next(); d < whole/2 || d > whole {
				t.Errorf("round %d: pause %d is %v, not from %v to %v", round, i, d, whole/2, whole)
			}
		}
		b.Reset()
	}
}

func TestTheZeroValueHasLimits(t *testing.T) {
	var b Backoff
	for range 100 {
		if d := b.Next(); d < 50*time.Millisecond || d > 10*time.Second {
			t.Errorf("a pause of %v", d)
		}
	}
	tiny := Backoff{Min: 1, Max: 1}
	if d := tiny.Next(); d != 1 {
		t.Errorf("of a nanosecond: %v", d)
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Backoff{Min: time.Hour, Max: time.Hour}
	if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	quick := Backoff{Min: time.Nanosecond, Max: time.Nanosecond}
	if err := quick.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
