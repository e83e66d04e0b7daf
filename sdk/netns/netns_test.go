package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// unprivileged makes this test binary dial as a user without capabilities.
const unprivileged = "NETNS_TEST_DIAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(unprivileged); path != "" {
		_, err := Path(path).Dial(context.Background(), "tcp", "127.0.0.1:1")
		fmt.Print(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// elsewhere is a network namespace with servers in it that answer "hello".
type elsewhere struct{ path, tcp, unix string }

func startElsewhere(t *testing.T) elsewhere {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	var e elsewhere
	ready, over, ended := make(chan error), make(chan struct{}), make(chan struct{})
	var listeners []net.Listener
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		ready <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			e.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
			if err := loopback(); err != nil {
				return err
			}
			e.unix = fmt.Sprintf("@netns-test-%d", os.Getpid())
			for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": e.unix} {
				l, err := net.Listen(network, address)
				if err != nil {
					return err
				}
				listeners = append(listeners, l)
				if network == "tcp" {
					e.tcp = l.Addr().String()
				}
			}
			return nil
		}()
		<-over
	}()
	if err := <-ready; err != nil {
		close(over)
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "hello")
				c.Close()
			}
		})
	}
	t.Cleanup(func() {
		for _, l := range listeners {
			l.Close()
		}
		serving.Wait()
		close(over)
		<-ended
	})
	return e
}

// loopback brings up this thread's loopback interface.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

func TestAnAddressIsReachedInsideItsNamespaceOnly(t *testing.T) {
	e := startElsewhere(t)
	before := strays(t)
	for network, address := range map[string]string{"tcp": e.tcp, "unix": e.unix} {
		if c, err := net.Dial(network, address); err == nil {
			c.Close()
			t.Fatalf("%s %s answers in this namespace too", network, address)
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				c, err := Path(e.path).Dial(t.Context(), network, address)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				if said, err := io.ReadAll(c); string(said) != "hello" {
					t.Errorf("it said %q, %v", said, err)
				}
			})
		}
		all.Wait()
	}
	if after := strays(t); after > before {
		t.Errorf("%d threads are in another namespace, %d were before", after, before)
	}
}

// strays are the threads that are in another namespace than this one, such as the one
// that the servers were made on.
func strays(t *testing.T) int {
	t.Helper()
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, th := range threads {
		if ns, err := os.Readlink(th); err == nil && ns != own {
			n++
		}
	}
	if n == 0 {
		t.Fatal("not even the servers' thread is in another namespace")
	}
	return n
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, tt := range []struct {
		path             string
		network, address string
		want             string
	}{
		{"/no/such", "tcp", "127.0.0.1:1", "no such file"},
		{"/proc/self/ns/net", "tcp", "localhost:1", "must be an IP address and a port"},
		{"/proc/self/ns/net", "unix", "/run/x.sock", "dial /proc/PID/root/run/x.sock instead"},
		{"/proc/self/ns/net", "ip", "127.0.0.1", "there are tcp, udp and unix"},
	} {
		if _, err := Path(tt.path).Dial(ctx, tt.network, tt.address); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s in %s: %v, want %q", tt.network, tt.address, tt.path, err, tt.want)
		}
	}
	if _, err := OfPID(1<<22+1).Dial(ctx, "tcp", "127.0.0.1:1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a process that is gone: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("the rest needs root")
	}
	for path, want := range map[string]string{file: "it is no network namespace", "/proc/self/ns/mnt": "it is no network namespace"} {
		if _, err := Path(path).Dial(ctx, "tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string]string{"/proc/self/ns/net": "CAP_SYS_ADMIN capability is missing", "/proc/1/ns/net": "CAP_SYS_PTRACE capability is missing"} {
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Env = []string{unprivileged + "=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("without rights, %s: %v: %s", path, err, out)
		}
	}
}
