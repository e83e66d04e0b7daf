package quiet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Paced is Conn for a stream of news that come in bursts: it reads no more often than
// once in a while, so that a burst is worked on as one. What comes after a pause is read
// at once; what comes then wakes nobody until it is read. It takes c over, which can't be
// used any more, also when it fails; what is no unix socket is returned as it is.
func Paced(c net.Conn, pause time.Duration) (net.Conn, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return c, nil
	}
	p := &paced{pause: pause, fd: -1, local: u.LocalAddr(), remote: u.RemoteAddr()}
	err := p.take(u)
	if closed := u.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, fmt.Errorf("pace a connection: %w", errors.Join(err, p.Close()))
	}
	return p, nil
}

// paced reads from a descriptor of its own, which Go's poller does not know: that would
// wake up for whatever arrives. An epoll instance stands between them, which tells once
// that there is something, and no more until it is asked again.
type paced struct {
	pause         time.Duration
	last          time.Time // that a read brought something; readers take turns
	local, remote net.Addr
	poll          *os.File // the epoll instance
	ready         syscall.RawConn

	writing sync.Mutex
	late    time.Time // when writes are to end, under mu

	mu sync.Mutex // held while fd is used, which never blocks
	fd int        // -1: closed
}

func (p *paced) take(u *net.UnixConn) error {
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if err := raw.Control(func(fd uintptr) { p.fd, errno = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return err
	}
	if errno != nil {
		p.fd = -1
		return os.NewSyscallError("fcntl", errno)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := errors.Join(unix.SetNonblock(epoll, true), unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, p.fd, &unix.EpollEvent{Events: once})); err != nil {
		return errors.Join(err, unix.Close(epoll))
	}
	p.poll = os.NewFile(uintptr(epoll), "epoll")
	p.ready, err = p.poll.SyscallConn()
	return err
}

const once = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

func (p *paced) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if wait := p.pause - time.Since(p.last); wait > 0 {
		time.Sleep(Millis(wait))
	}
	for {
		n, errno := p.transfer(syscall.SYS_READ, b)
		switch {
		case errno == syscall.EAGAIN:
			if err := p.await(); err != nil {
				return 0, err
			}
			continue
		case errno != 0:
			return 0, p.failed("read", errno)
		case n == 0:
			return 0, io.EOF
		}
		p.last = time.Now()
		return n, nil
	}
}

// await waits until there is something to read.
func (p *paced) await() error {
	p.mu.Lock()
	fd := p.fd
	var errno syscall.Errno
	if fd >= 0 {
		again := unix.EpollEvent{Events: once}
		err := p.ready.Control(func(epoll uintptr) {
			_, _, errno = syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, epoll, unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(&again)), 0, 0)
		})
		if err != nil {
			fd = -1
		}
	}
	p.mu.Unlock()
	if fd < 0 {
		return net.ErrClosed
	}
	if errno != 0 {
		return p.failed("epoll_ctl", errno)
	}
	err := p.ready.Read(Ready)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return net.ErrClosed // the poller's own word for it is nobody's
	}
	return err
}

// fullPause is how long a write waits for room, which it hardly ever has to.
const fullPause = time.Millisecond

func (p *paced) Write(b []byte) (int, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	for done := 0; ; {
		if done == len(b) {
			return done, nil
		}
		n, errno := p.transfer(syscall.SYS_WRITE, b[done:])
		switch {
		case errno == syscall.EAGAIN:
			p.mu.Lock()
			late := !p.late.IsZero() && time.Now().After(p.late)
			p.mu.Unlock()
			if late {
				return done, os.ErrDeadlineExceeded
			}
			time.Sleep(fullPause)
		case errno != 0:
			return done, p.failed("write", errno)
		}
		done += n
	}
}

// transfer is transfer, of the descriptor that is there.
func (p *paced) transfer(call uintptr, b []byte) (int, syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return 0, syscall.EBADF
	}
	return transfer(call, uintptr(p.fd), b)
}

func (p *paced) failed(what string, errno syscall.Errno) error {
	if errno == syscall.EBADF {
		return net.ErrClosed
	}
	return &net.OpError{Op: what, Net: "unix", Source: p.local, Addr: p.remote, Err: os.NewSyscallError(what, errno)}
}

func (p *paced) Close() error {
	p.mu.Lock()
	fd := p.fd
	p.fd = -1
	var err error
	if fd >= 0 {
		err = unix.Close(fd)
	}
	p.mu.Unlock()
	if p.poll != nil {
		if e := p.poll.Close(); fd >= 0 {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (p *paced) LocalAddr() net.Addr  { return p.local }
func (p *paced) RemoteAddr() net.Addr { return p.remote }

func (p *paced) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// SetReadDeadline ends reads that wait for something; one that pauses ends its pause first.
func (p *paced) SetReadDeadline(t time.Time) error { return p.poll.SetReadDeadline(t) }

func (p *paced) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = t
	return nil
}
