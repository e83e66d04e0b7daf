package kernel

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// alarm waits for a wake-up by a program, for a time, or for stop. It waits in
// Go's own poller: a thread that blocks in a system call of its own keeps the
// runtime's monitor awake, which costs more than the reading.
type alarm struct {
	file *os.File // an epoll of the rings
	raw  syscall.RawConn
}

func newAlarm(fds []int) (*alarm, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the reader's epoll: %w", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make the reader's epoll: %w", err), unix.Close(epoll))
	}
	a := &alarm{file: os.NewFile(uintptr(epoll), "rings")}
	for _, fd := range fds {
		// Edge-triggered: a ring that holds data is no event, a wake-up is.
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			return nil, errors.Join(fmt.Errorf("watch a ring: %w", err), a.close())
		}
	}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch the rings: %w", err), a.close())
	}
	return a, nil
}

// wait returns when a program woke the reader, when d has passed, or when stop was
// called.
func (a *alarm) wait(d time.Duration) error {
	if err := a.file.SetReadDeadline(time.Now().Add(d)); err != nil {
		return fmt.Errorf("wait for a ring: %w", err)
	}
	err := a.raw.Read(func(fd uintptr) bool {
		var events [16]unix.EpollEvent
		n, _ := unix.EpollWait(int(fd), events[:], 0) // an error waits again
		return n > 0
	})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for a ring: %w", err)
	}
	return nil
}

// stop ends a wait that is under way. A later wait sets a time of its own.
func (a *alarm) stop() error { return a.file.SetReadDeadline(time.Unix(1, 0)) }

func (a *alarm) close() error { return a.file.Close() }
