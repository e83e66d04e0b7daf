package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// refuser answers every call with an error, or is of a version that knows none.
type refuser struct {
	protov1.UnimplementedTracerServer
	err error
}

func (r *refuser) GetVersion(context.Context, *protov1.GetVersionRequest) (*protov1.GetVersionResponse, error) {
	return &protov1.GetVersionResponse{Version: "1"}, r.err
}

func (r *refuser) ListContainers(_ *protov1.ListContainersRequest, s grpc.ServerStreamingServer[protov1.ListContainersResponse]) error {
	if err := s.Send(&protov1.ListContainersResponse{}); err != nil {
		return err
	}
	return r.err
}

// serve answers on a socket until the function that it gives is called.
func serve(t *testing.T, socket string, r *refuser) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	protov1.RegisterTracerServer(g, r)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	return func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDialTellsWhyNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, socket string }{
		{"no socket", filepath.Join(dir, "none.sock")},
		{"no directory", filepath.Join(dir, "none", "api.sock")},
		{"a socket that nobody listens on", file},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Dial(t.Context(), c.socket)
			if !errors.Is(err, ErrNotRunning) ||
				err.Error() != "nobody answers at "+c.socket+": is the daemon running? start it with 'ebpf-tracer run' (or give --socket)" {
				t.Error(err)
			}
		})
	}
}

func TestASocketThatMayNotBeOpenedSaysRunAsRoot(t *testing.T) {
	err := dialError("/run/x", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", fs.ErrPermission)})
	if !errors.Is(err, ErrPermission) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "run as root") {
		t.Error(err)
	}
}

func TestADialThatIsCanceledSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, "/nowhere"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestErrorsOfCallsKeepTheirKind(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		kind error
		has  string
	}{
		{"denied", status.Error(codes.PermissionDenied, "user id 5 may not ask the daemon: run as root"), ErrPermission, "run as root"},
		{"gone", status.Error(codes.Unavailable, "transport is closing"), ErrNotRunning, "is it still running?"},
		{"stopped", status.Error(codes.Unavailable, "the daemon has stopped"), ErrNotRunning, "the daemon has stopped"},
		{"no process", status.Error(codes.NotFound, "there is no process 7"), ErrNoProcess, "no process 7"},
		{"too late", status.Error(codes.DeadlineExceeded, "x"), context.DeadlineExceeded, "in time"},
		{"another version", status.Error(codes.Unimplemented, "x"), nil, "another version"},
		{"anything else", status.Error(codes.Internal, "read the policy table: gone"), nil, "read the policy table: gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "api.sock")
			defer serve(t, socket, &refuser{err: c.err})()
			client, err := Dial(t.Context(), socket)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, unary := client.Version(t.Context())
			_, stream := client.ListContainers(t.Context())
			for _, err := range []error{unary, stream} {
				if err == nil || !strings.Contains(err.Error(), c.has) || strings.Contains(err.Error(), "rpc error") {
					t.Error(err)
				}
				if c.kind != nil && !errors.Is(err, c.kind) {
					t.Errorf("%v is not %v", err, c.kind)
				}
				if status.Code(err) != status.Code(c.err) {
					t.Errorf("the cause is gone: %v", status.Code(err))
				}
			}
		})
	}
}

func TestAClientFindsADaemonThatWasRestarted(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	stop := serve(t, socket, &refuser{})
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := c.Version(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	defer serve(t, socket, &refuser{})()
	for { // gRPC waits before it tries again
		_, err := c.Version(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotRunning) {
			t.Fatal(err)
		}
	}
}
