package api

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func open(socket string) (*Server, error) {
	l, err := Listen(socket)
	if err != nil {
		return nil, err
	}
	return New(Options{
		Listener: l, Source: &answers{}, Log: slog.New(slog.DiscardHandler),
		Live: exporter.NewLive("live", exporter.NewEncoder("", exporter.NewClock(clock))),
	}), nil
}

func mustClose(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestTheSocketIsForItsOwnerAloneAndGoesWithTheServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a", "b", "api.sock")
	s, err := open(socket)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(socket)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Error(info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(socket)); err != nil || info.Mode().Perm()&0o022 != 0 {
		t.Error(info.Mode(), err)
	}
	mustClose(t, s)
	left, err := os.ReadDir(filepath.Dir(socket))
	if err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

func TestASecondDaemonIsToldOfTheFirst(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	s, err := open(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s)
	_, err = open(socket)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != os.Getpid() ||
		!strings.Contains(err.Error(), "another ebpf-tracer is running (pid "+strconv.Itoa(os.Getpid())+")") {
		t.Error(err)
	}
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal("the first one was disturbed:", err)
	}
	if _, err := c.Version(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestOfManyDaemonsThatStartAtOneTimeOneRuns(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	leaveStale(t, socket)
	type result struct {
		server *Server
		err    error
	}
	results := make(chan result)
	const many = 16
	for range many {
		go func() {
			s, err := open(socket)
			results <- result{s, err}
		}()
	}
	var won *Server
	for range many {
		r := <-results
		var inUse *InUseError
		switch {
		case r.err == nil && won == nil:
			won = r.server
		case r.err == nil:
			t.Error("two run")
			mustClose(t, r.server)
		case !errors.As(r.err, &inUse):
			t.Error(r.err)
		}
	}
	if won == nil {
		t.Fatal("none runs")
	}
	mustClose(t, won)
}

// leaveStale leaves the socket of a process that is gone.
func leaveStale(t *testing.T, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	leaveStale(t, socket)
	if err := os.WriteFile(socket+".lock", nil, 0o600); err != nil { // of the same daemon
		t.Fatal(err)
	}
	s, err := open(socket)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

func TestAPathThatIsTakenBySomethingElseIsLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string) error
		has  string
	}{
		{"a file", func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) }, "is not a socket"},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o700) }, "is not a socket"},
		{"a link", func(p string) error { return os.Symlink("/nowhere", p) }, "is not a socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "api.sock")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = open(path)
			if err == nil || !strings.Contains(err.Error(), c.has) {
				t.Error(err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Error("it was touched", err)
			}
			if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
				t.Error("the lock stays", err)
			}
		})
	}
}

func TestASocketOfAnotherProgramIsLeftToIt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = open(socket)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != os.Getpid() || inUse.Name == "" || strings.Contains(err.Error(), "ebpf-tracer is running") {
		t.Error(err)
	}
}

func TestTheSocketOfASuccessorIsNotRemoved(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	s, err := open(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustClose(t, s)
	if _, err := os.Lstat(socket); err != nil {
		t.Error(err)
	}
}

// as connects like client.Dial would, but as another user: a thread of its own
// takes that user's id for the time of the connect, when the kernel notes it.
func as(t *testing.T, uid int, socket string) (*net.UnixConn, error) {
	t.Helper()
	type result struct {
		conn *net.UnixConn
		err  error
	}
	out := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine, whatever its ids.
		runtime.LockOSThread()
		conn, err := connectAs(uid, socket)
		out <- result{conn, err}
	}()
	r := <-out
	return r.conn, r.err
}

func connectAs(uid int, socket string) (*net.UnixConn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), socket)
	defer f.Close()
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return nil, errno
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

func TestOtherUsersAreTurnedAwayWithASentence(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it takes another user's id")
	}
	f := &filterer{answers: &answers{}}
	r := run(t, f)
	const nobody = 65534
	for dir := filepath.Dir(r.socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if conn, err := as(t, nobody, r.socket); !errors.Is(err, fs.ErrPermission) {
		t.Fatal("the socket let another user in:", conn, err)
	}
	// Even if somebody opens the socket to all.
	if err := os.Chmod(r.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	conn, err := as(t, nobody, r.socket)
	if err != nil {
		t.Fatal(err)
	}
	g, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	tracer := protov1.NewTracerClient(g)
	for name, ask := range map[string]func() error{
		"GetVersion": func() error {
			_, err := tracer.GetVersion(t.Context(), &protov1.GetVersionRequest{})
			return err
		},
		"GetStats": func() error {
			_, err := tracer.GetStats(t.Context(), &protov1.GetStatsRequest{})
			return err
		},
		"Reload": func() error {
			_, err := tracer.Reload(t.Context(), &protov1.ReloadRequest{})
			return err
		},
		"AddFilters": func() error {
			_, err := tracer.AddFilters(t.Context(), &protov1.AddFiltersRequest{Filters: []*protov1.Filter{{Name: "a", Comm: []string{"sh"}}}})
			return err
		},
		"RemoveFilter": func() error {
			_, err := tracer.RemoveFilter(t.Context(), &protov1.RemoveFilterRequest{Name: "a"})
			return err
		},
		"ListFilters": func() error {
			s, err := tracer.ListFilters(t.Context(), &protov1.ListFiltersRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"ListContainers": func() error {
			s, err := tracer.ListContainers(t.Context(), &protov1.ListContainersRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"WatchEvents": func() error {
			s, err := tracer.WatchEvents(t.Context(), &protov1.WatchEventsRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := ask()
			if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "user id 65534 may not ask the daemon: run as root" {
				t.Error(err)
			}
		})
	}
	if len(f.views) > 0 {
		t.Errorf("another user has changed the filters: %v", f.views)
	}
}

func TestTheSocketOfADaemonThatWasKilledIsReplaced(t *testing.T) {
	if socket := os.Getenv("EBPF_TRACER_TEST_SOCKET"); socket != "" { // the one that is killed, and cleans nothing up
		if _, err := open(socket); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString("open\n"); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	socket := filepath.Join(t.TempDir(), "api.sock")
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(program, "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), "EBPF_TRACER_TEST_SOCKET="+socket)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := out.Read(b); err != nil || string(b) != "open\n" {
		t.Errorf("%q %v", b, err)
	}
	_, err = open(socket)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.PID != child.Process.Pid || inUse.Name != "" {
		t.Error(err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("it was not killed")
	}
	s, err := open(socket)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
}

func TestWhoConnectsBeforeTheServerIsThereIsAnsweredOnceItIs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := c.Version(t.Context())
		answered <- err
	}()
	s := New(Options{Listener: l, Source: &answers{}, Log: slog.New(slog.DiscardHandler)})
	if err := <-answered; err != nil {
		t.Error(err)
	}
	mustClose(t, s)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
