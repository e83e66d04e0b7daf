package quiet

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Conn makes reads and writes of a unix socket cheap. It is otherwise the connection that
// it was; what is no unix socket is returned as it is.
func Conn(c net.Conn) net.Conn {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return c
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return c
	}
	q := &conn{Conn: u, raw: raw}
	q.in.step, q.out.step = q.in.read, q.out.write
	return q
}

// Dial connects to the unix socket at a path, within a time. Its errors are net.Dialer's.
func Dial(ctx context.Context, path string, within time.Duration) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: within}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return Conn(c), nil
}

type conn struct {
	net.Conn // and no more: who found its descriptor would go past the methods here
	raw      syscall.RawConn
	in, out  half
}

// half is one direction of a connection, and the one call of it that is under way.
type half struct {
	mu    sync.Mutex
	b     []byte
	done  int
	errno syscall.Errno
	step  func(fd uintptr) bool // made once: read or write
}

func (h *half) begin(b []byte) { h.b, h.done, h.errno = b, 0, 0 }

func (h *half) read(fd uintptr) bool {
	h.done, h.errno = transfer(syscall.SYS_READ, fd, h.b)
	return h.errno != syscall.EAGAIN
}

func (h *half) write(fd uintptr) bool {
	for h.done < len(h.b) {
		n, errno := transfer(syscall.SYS_WRITE, fd, h.b[h.done:])
		if h.errno = errno; errno != 0 {
			return errno != syscall.EAGAIN
		}
		h.done += n
	}
	return true
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.begin(b)
	err := c.raw.Read(c.in.step)
	c.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case c.in.errno != 0:
		return 0, c.failed("read", c.in.errno)
	case c.in.done == 0:
		return 0, io.EOF
	}
	return c.in.done, nil
}

func (c *conn) Write(b []byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.begin(b)
	err := c.raw.Write(c.out.step)
	c.out.b = nil
	if err == nil && c.out.errno != 0 {
		err = c.failed("write", c.out.errno)
	}
	return c.out.done, err
}

func (c *conn) failed(what string, errno syscall.Errno) error {
	return &net.OpError{Op: what, Net: "unix", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(what, errno)}
}

// transfer reads or writes once; b is not empty.
func transfer(call, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
