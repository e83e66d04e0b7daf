package plugin

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// stdio owns the process's standard output. The daemon reads one line there,
// the handshake; anything else on it would break the start, or later block the
// process on a pipe that nobody reads. So descriptor 1 becomes a copy of
// standard error at once, and only the handshake goes to what it was before.
type stdio struct {
	stderr    *os.File
	handshake *os.File
	once      sync.Once
}

func claimStdio() (*stdio, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("copy standard output: %w", err)
	}
	if err := syscall.Dup3(2, 1, 0); err != nil {
		return nil, fmt.Errorf("turn standard output into standard error: %w", err)
	}
	s := &stdio{stderr: os.Stderr, handshake: os.NewFile(uintptr(fd), "handshake")}
	os.Stdout = s.handshake // go-plugin prints the handshake to it
	return s, nil
}

// release is called at the first call from the daemon, which can only come
// after the handshake. go-plugin has by then put pipes of its own in place of
// both files, whose contents would travel as RPCs, unbounded and unseen by the
// daemon's log; they are put back to standard error. Of nil, it does nothing.
func (s *stdio) release() {
	if s == nil {
		return
	}
	s.once.Do(func() {
		os.Stdout, os.Stderr = s.stderr, s.stderr
		s.handshake.Close() // only ever written to by the handshake
	})
}
