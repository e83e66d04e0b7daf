package kernel

import (
	"testing"
	"time"
)

// A wait of an hour that ends was woken.
func TestAWaitIsWokenAlsoByAWakeThatCameBeforeIt(t *testing.T) {
	a, err := newAlarm(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := a.wake(); err != nil {
			t.Fatal(err)
		}
		if err := a.wait(time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	woken := make(chan error, 1)
	go func() { woken <- a.wait(time.Hour) }()
	if err := a.wake(); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if err := a.wake(); err == nil {
		t.Error("a closed alarm was woken")
	}
}
