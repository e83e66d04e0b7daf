package kernel

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAReaderThatTicksIsNotWoken(t *testing.T) {
	a, err := newAlarm(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{readers: readerStates{page: make([]byte, 2*stateBytes), count: 2}}
	k.Wake() // nobody reads
	k.alarm.Store(a)
	rung := func() bool {
		t.Helper()
		bell := []unix.PollFd{{Fd: int32(a.bell.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(bell, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	k.mode(readerTick)
	k.Wake()
	if rung() {
		t.Error("it is woken although it ticks")
	}
	for _, mode := range []uint32{readerBusy, readerIdle} {
		k.mode(readerTick)
		k.mode(mode)
		k.Wake()
		if !rung() {
			t.Errorf("in mode %d it is not woken", mode)
		}
		var count [8]byte
		if _, err := a.bell.Read(count[:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
}

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
