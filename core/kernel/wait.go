package kernel

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
)

// alarm waits for a wake-up by a program or by wake, for a time, or for stop. It waits in
// Go's own poller: a thread that blocks in a system call of its own keeps the
// runtime's monitor awake, which costs more than the reading.
type alarm struct {
	file *os.File // an epoll of the rings and the bell
	raw  syscall.RawConn
	bell *os.File // an eventfd
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
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the reader's bell: %w", err), a.file.Close())
	}
	a.bell = os.NewFile(uintptr(bell), "bell")
	for _, fd := range append(fds, bell) {
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

// wake ends the wait that is under way, or else the next one.
func (a *alarm) wake() error {
	_, err := a.bell.Write([]byte{1, 7: 0}) // one more (amd64 and arm64 are little-endian); nobody reads it
	return err
}

// wait returns when a program or wake woke the reader, when d has passed, or when stop was
// called.
func (a *alarm) wait(d time.Duration) error {
	if err := a.file.SetReadDeadline(time.Now().Add(quiet.Millis(d))); err != nil {
		return fmt.Errorf("wait for a ring: %w", err)
	}
	err := a.raw.Read(quiet.Ready)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for a ring: %w", err)
	}
	return nil
}

// stop ends a wait that is under way. A later wait sets a time of its own.
func (a *alarm) stop() error { return a.file.SetReadDeadline(time.Unix(1, 0)) }

func (a *alarm) close() error { return errors.Join(a.file.Close(), a.bell.Close()) }
