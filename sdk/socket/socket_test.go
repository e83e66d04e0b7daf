package socket_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/socket"
)

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A wait of an hour that ends was ended by the socket.
func TestAWaitEndsWithAnotherSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for name, change := range map[string]func(){
		"that comes":                    func() { listen(t, path) },
		"that takes the place of one":   func() { _ = os.Remove(path); listen(t, path) },
		"that had gone for a while too": func() { _ = os.Remove(path); time.Sleep(250 * time.Millisecond); listen(t, path) },
	} {
		t.Run(name, func(t *testing.T) {
			was := socket.At(path)
			go change()
			if err := socket.Wait(t.Context(), path, was, time.Hour); err != nil {
				t.Error(err)
			}
			if now := socket.At(path); now == was || now == (socket.Identity{}) {
				t.Errorf("%+v was, %+v is", was, now)
			}
			_ = os.Remove(path)
		})
	}
}

func TestAWaitEndsByItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path)
	if err := socket.Wait(t.Context(), path, socket.At(path), 250*time.Millisecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := socket.Wait(ctx, path, socket.At(path), time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWhoListensIsNotAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	vague := errors.New("rpc error")
	if !socket.Absent(path, nil) || !socket.Absent(path, vague) || socket.Forbidden(path, vague) {
		t.Error("nothing at the path is not absence")
	}
	l := listen(t, path)
	if socket.Absent(path, nil) || socket.Absent(path, vague) || socket.Forbidden(path, vague) {
		t.Error("it is there")
	}
	if !socket.Absent(path, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)) || !socket.Forbidden(path, fmt.Errorf("dial: %w", syscall.EACCES)) {
		t.Error("what the client says does not count")
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if !socket.Absent(path, vague) {
		t.Error("a socket that nobody listens at is not absence")
	}
}
