// Package socket follows the unix socket of a server that comes and goes.
//
// It exists for discoverers whose runtime is restarted under them: a new socket is noticed
// within a tenth of a second, however long the pause between two tries to connect is by
// then. It connects to nothing but to see whether somebody listens.
package socket

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// look is how often Wait looks for another socket.
const look = 100 * time.Millisecond

// Identity tells one socket from its successor at the same path. The zero value is none.
type Identity struct {
	dev, ino uint64
	changed  int64
}

// At is what is at a path now.
func At(path string) Identity {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return Identity{}
	}
	return Identity{dev: uint64(st.Dev), ino: st.Ino, changed: st.Ctim.Nano()}
}

// Wait pauses, but no longer than until there is another socket at the path than was
// there. It returns ctx's error when that is done.
func Wait(ctx context.Context, path string, was Identity, pause time.Duration) error {
	end := time.NewTimer(pause)
	defer end.Stop()
	again := time.NewTicker(look)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-again.C:
			if now := At(path); now != was && now != (Identity{}) {
				return nil
			}
		}
	}
}

// Absent tells that nothing listens at a path. err is what a client said of it; nil: it was
// not asked. Clients' errors don't always keep their cause, so the path is tried too.
func Absent(path string, err error) bool {
	return isAbsent(err) || isAbsent(try(path))
}

func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Forbidden tells that this process may not connect to what is at a path, in the same way.
func Forbidden(path string, err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(try(path), fs.ErrPermission)
}

func try(path string) error {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}
