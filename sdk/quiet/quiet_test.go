package quiet

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a connection over a unix socket, from both sides.
func pair(t *testing.T) (client, server *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *net.UnixConn, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	s := <-accepted
	t.Cleanup(func() {
		_ = c.Close() // may be closed, or taken over
		_ = s.Close()
	})
	return c, s
}

// wrappers are the connections of this package, by their names.
var wrappers = map[string]func(*testing.T, net.Conn) net.Conn{
	"conn": func(_ *testing.T, c net.Conn) net.Conn { return Conn(c) },
}

func each(t *testing.T, test func(t *testing.T, wrapped net.Conn, other *net.UnixConn)) {
	for name, wrap := range wrappers {
		t.Run(name, func(t *testing.T) {
			c, s := pair(t)
			test(t, wrap(t, c), s)
		})
	}
}

func TestEveryByteGetsThroughInBothDirectionsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, wrapped net.Conn, other *net.UnixConn) {
		const size = 8 << 20 // far more than a socket holds, so that both have to wait for room
		sums := make(chan [32]byte, 4)
		send := func(c net.Conn, seed uint64, done func() error) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			h := sha256.New()
			for sent := 0; sent < size; {
				b := make([]byte, min(1+rnd.IntN(100_000), size-sent))
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				if n, err := c.Write(b); err != nil || n != len(b) {
					t.Errorf("write is %d of %d: %v", n, len(b), err)
					break
				}
				h.Write(b)
				sent += len(b)
			}
			sums <- [32]byte(h.Sum(nil))
			if err := done(); err != nil {
				t.Error(err)
			}
		}
		receive := func(c net.Conn) {
			h := sha256.New()
			if _, err := io.CopyN(h, c, size); err != nil {
				t.Error(err)
			}
			sums <- [32]byte(h.Sum(nil))
		}
		nothing := func() error { return nil }
		go send(wrapped, 1, nothing)
		go send(other, 2, nothing)
		go receive(wrapped)
		go receive(other)
		seen := map[[32]byte]int{}
		for range 4 {
			seen[<-sums]++
		}
		if len(seen) != 2 {
			t.Errorf("what came is not what was sent: %v", seen)
		}
	})
}

func TestTheOtherSidesEndIsTheEnd(t *testing.T) {
	each(t, func(t *testing.T, wrapped net.Conn, other *net.UnixConn) {
		if _, err := other.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(wrapped)
		if err != nil || string(got) != "last words" {
			t.Errorf("read is %q, %v", got, err)
		}
		if _, err := wrapped.Write(bytes.Repeat([]byte("x"), 1<<20)); err == nil {
			t.Error("a write to nobody does not fail")
		} else if op := (*net.OpError)(nil); !errors.As(err, &op) || !strings.Contains(err.Error(), "broken pipe") {
			t.Errorf("a write to nobody says %v", err)
		}
	})
}

func TestClosingEndsReadsAndWrites(t *testing.T) {
	each(t, func(t *testing.T, wrapped net.Conn, _ *net.UnixConn) {
		ended := make(chan error, 2)
		go func() {
			_, err := wrapped.Read(make([]byte, 1))
			ended <- err
		}()
		go func() {
			_, err := wrapped.Write(make([]byte, 16<<20)) // nobody reads
			ended <- err
		}()
		time.Sleep(20 * time.Millisecond) // both wait, or will find it closed
		if err := wrapped.Close(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("it ended with %v", err)
			}
		}
		if _, err := wrapped.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read after the end says %v", err)
		}
	})
}

func TestDeadlinesHold(t *testing.T) {
	each(t, func(t *testing.T, wrapped net.Conn, other *net.UnixConn) {
		if err := wrapped.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := wrapped.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read says %v", err)
		}
		if _, err := wrapped.Write(make([]byte, 16<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write says %v", err)
		}
		if err := wrapped.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if n, err := wrapped.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("a read without one is %d, %v", n, err)
		}
	})
}

func TestWhatIsNoUnixSocketStaysWhatItIs(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Conn(a) != a {
		t.Error("Conn made something of a pipe")
	}
}

func TestMillisNeedOneSleep(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		0: 0, -1: -1, 1: time.Millisecond, time.Millisecond: time.Millisecond, 4100 * time.Microsecond: 5 * time.Millisecond, 20 * time.Millisecond: 20 * time.Millisecond,
	} {
		if want > 0 {
			want += 50 * time.Microsecond
		}
		if got := Millis(d); got != want {
			t.Errorf("Millis(%s) is %s, want %s", d, got, want)
		}
	}
}

// What a wake-up costs two sides of a connection that sleep in between, on one processor, as
// a plugin has it: the CPU of one every 2 ms for 64 bytes and their echo.
func BenchmarkWakeUp(b *testing.B) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"net": func(c net.Conn) net.Conn { return c }, "quiet": Conn,
	} {
		b.Run(name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c = wrap(c)
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // an echo, until the other side ends
			}()
			c, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			c = wrap(c)
			buf := make([]byte, 64)
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				time.Sleep(Millis(2 * time.Millisecond))
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
