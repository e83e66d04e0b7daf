package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InUseError says that somebody else answers on the socket.
type InUseError struct {
	Socket string
	PID    int    // 0: not known
	Name   string // of the program; "": another daemon
}

// Error tells who, and what to do.
func (e *InUseError) Error() string {
	pid := ""
	if e.PID != 0 {
		pid = fmt.Sprintf(" (pid %d)", e.PID)
	}
	if e.Name != "" {
		return fmt.Sprintf("%s%s listens on %s: set another path in api { socket = ... }", e.Name, pid, e.Socket)
	}
	return fmt.Sprintf("another ebpf-tracer is running%s on %s: stop it, or set another path in api { socket = ... }", pid, e.Socket)
}

// Listener is the unix socket of the API, with a lock beside it: the lock, and not
// the socket, decides between two daemons that start at one time.
type Listener struct {
	path     string
	listener *net.UnixListener
	made     os.FileInfo // the socket, so that none but it is removed
	lock     *os.File
	release  func() error
}

// Listen takes the socket at path, so that there is no other daemon from here on;
// who connects waits for New. It makes the socket's directory when there is none,
// and takes the place of a socket that nobody listens on any more. The error is an
// *InUseError when somebody does.
func Listen(path string) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the API socket: %w", err)
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	s := &Listener{path: path, lock: lock}
	s.release = sync.OnceValue(s.close)
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	return s, nil
}

func (s *Listener) listen() error {
	if err := removeStale(s.path); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on the API socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if s.made, err = os.Lstat(s.path); err == nil {
		// Whoever connects before this is turned away by who they are.
		err = os.Chmod(s.path, 0o600)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("protect the API socket: %w", err), l.Close(), os.Remove(s.path))
	}
	s.listener = l
	return nil
}

// Close removes the socket and gives up the lock. It may be called again.
func (s *Listener) Close() error {
	if err := s.release(); err != nil {
		return fmt.Errorf("give up the API socket: %w", err)
	}
	return nil
}

func (s *Listener) close() error {
	var errs []error
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
		errs = append(errs, os.Remove(s.path))
	}
	return errors.Join(append(errs, s.unlock())...)
}

func (s *Listener) unlock() error {
	return errors.Join(os.Remove(s.lock.Name()), s.lock.Close())
}

// takeLock locks a file beside the socket for the life of the daemon. The kernel
// gives the lock up when the daemon dies.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("lock the API socket: %w: run as root, or set another path in api { socket = ... }", err)
		}
		if err != nil {
			return nil, fmt.Errorf("lock the API socket: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := listenerOf(path)
			return nil, errors.Join(&InUseError{Socket: path, PID: pid}, f.Close())
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock the API socket: %w", err), f.Close())
		}
		// The one who had it may have removed the file in between.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock the API socket: %w", err), f.Close())
		}
		if now, err := os.Lstat(f.Name()); err == nil && os.SameFile(mine, now) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("lock the API socket: %w", err)
		}
	}
}

// removeStale removes a socket that nobody listens on, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the API socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is not a socket: remove it, or set another path in api { socket = ... }", path)
	}
	pid, err := listenerOf(path)
	switch {
	case err == nil:
		return &InUseError{Socket: path, PID: pid, Name: programOf(pid)}
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("look for another daemon on the API socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the API socket of a daemon that is gone: %w", err)
	}
	return nil
}

// listenerOf is the process that listens on a socket.
func listenerOf(path string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return 0, err
	}
	who, err := peerOf(conn)
	if err := errors.Join(err, conn.Close()); err != nil {
		return 0, err
	}
	return int(who.pid), nil
}

// programOf is what a process is called.
func programOf(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if name := strings.TrimSpace(string(comm)); err == nil && name != "" {
		return name
	}
	return "another program"
}
