// Package netns connects to addresses inside other network namespaces: a control
// socket or an admin port that only a container's own processes see.
//
// It exists because that is easy to get wrong in Go: a namespace belongs to a thread,
// and goroutines move between threads. It owns the thread that enters a namespace for
// as long as a dial takes. It must never let a thread that could not leave run other
// goroutines.
package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrPermission is wrapped by errors that say which capability is missing. The
// manifest asks for it: needs { capabilities = [...] }.
var ErrPermission = errors.New("capability is missing")

// Namespace names a network namespace.
type Namespace struct{ path string }

// Path is the namespace that a file stands for: /run/netns/NAME, /proc/PID/ns/net.
func Path(path string) Namespace { return Namespace{path} }

// OfPID is the namespace of a process. Processes end and their ids are given to
// others: make sure, after a Dial, that the process is still the one that was meant.
func OfPID(pid int) Namespace { return Path(fmt.Sprintf("/proc/%d/ns/net", pid)) }

// String is the path.
func (n Namespace) String() string { return n.path }

// Dial connects to an address as seen from within the namespace. network is tcp, tcp4,
// tcp6, udp, udp4, udp6 with an IP address and a port, or unix. Names are not looked
// up: which resolver a namespace uses, its files say, not the kernel.
//
// Of unix sockets only abstract ones, "@name", belong to a network namespace. One with
// a path belongs to a mount namespace: reach it as /proc/PID/root/PATH, without this
// package.
//
// A plugin that the daemon confines needs CAP_SYS_ADMIN for it, which makes it as good as
// root and is shown so by `ebpf-tracer plan`, leave to use the network, and the
// namespace's file among its paths: of /proc/PID/ns/net, /proc and CAP_SYS_PTRACE.
//
// An error that wraps ErrPermission names the capability that is missing, one that
// wraps fs.ErrNotExist says that the namespace is gone. Dial may be called from several
// goroutines, and ends with ctx.
func (n Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := checkAddress(network, address); err != nil {
		return nil, err
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		// The thread is this goroutine's alone. Where it can't come back it is
		// not unlocked, and ends with the goroutine.
		runtime.LockOSThread()
		var left bool
		r.conn, left, r.err = n.dialHere(ctx, network, address)
		if left {
			runtime.UnlockOSThread()
		}
		done <- r
	}()
	r := <-done
	return r.conn, r.err
}

// checkAddress refuses what would not be dialled within the namespace: of a name, Go
// would look up and try the addresses on other threads.
func checkAddress(network, address string) error {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		if _, err := netip.ParseAddrPort(address); err != nil {
			return fmt.Errorf("dial %s %s in a network namespace: it must be an IP address and a port: %w", network, address, err)
		}
	case "unix":
		if !strings.HasPrefix(address, "@") {
			return fmt.Errorf("dial unix %s in a network namespace: a socket with a path belongs to no network namespace; dial /proc/PID/root%s instead", address, address)
		}
	default:
		return fmt.Errorf("dial %s in a network namespace: there are tcp, udp and unix", network)
	}
	return nil
}

// dialHere enters the namespace on this thread, dials and comes back. left tells
// whether the thread is where it was.
func (n Namespace) dialHere(ctx context.Context, network, address string) (conn net.Conn, left bool, err error) {
	own, err := open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, true, fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer own.Close()
	other, err := open(n.path)
	if err != nil {
		return nil, true, fmt.Errorf("open network namespace: %w", missing(err, "CAP_SYS_PTRACE"))
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = errors.New("it is no network namespace")
		}
		return nil, true, fmt.Errorf("enter network namespace %s: %w", n.path, missing(err, "CAP_SYS_ADMIN"))
	}
	var d net.Dialer
	conn, err = d.DialContext(ctx, network, address)
	if err != nil {
		err = fmt.Errorf("dial in network namespace %s: %w", n.path, err)
	}
	back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET)
	return conn, back == nil, err
}

// open opens a namespace's file without waiting, should it be another sort of file.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// missing says which capability the kernel asked for.
func missing(err error, capability string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s %w: %w", capability, ErrPermission, err)
	}
	return err
}
