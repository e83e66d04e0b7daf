package authors

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// serveElsewhere serves "hello" in a network namespace of its own until the end of the
// test, and gives the namespace's file and the address in it.
func serveElsewhere(t *testing.T) (namespace, address string) {
	t.Helper()
	namespace = filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(namespace, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	type made struct {
		l   net.Listener
		err error
	}
	ready := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		l, err := listenElsewhere(namespace)
		ready <- made{l, err}
	}()
	m := <-ready
	t.Cleanup(func() {
		if err := unix.Unmount(namespace, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if m.err != nil {
		t.Fatal(m.err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := m.l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello from elsewhere")
			c.Close()
		}
	}()
	t.Cleanup(func() {
		m.l.Close()
		<-served
	})
	return namespace, m.l.Addr().String()
}

// listenElsewhere puts this thread into a new network namespace, which stays at a file.
func listenElsewhere(namespace string) (net.Listener, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", namespace, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return nil, err
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

func TestAConfinedPluginDialsInAnotherNetworkNamespaceIfItMay(t *testing.T) {
	namespace, address := serveElsewhere(t)
	program := filepath.Join(t.TempDir(), "dialler")
	goBuild(t, ".", program, "./testdata/dialler")
	conf := filepath.Join(t.TempDir(), "config.hcl")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "discoverer \"dialler\" {\n  namespace = %q\n  address = %q\n}\n", namespace, address), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		needs  string
		status int
		says   string
	}{
		{`needs { capabilities = ["CAP_SYS_ADMIN"] }`, 0, "present: true (hello from elsewhere)"},
		{``, 1, "CAP_SYS_ADMIN capability is missing"},
	} {
		binary := install(t, program, "dialler")
		manifest := "plugin \"discoverer\" \"dialler\" {\n  protocol = 1\n  command = [\"./dialler\"]\n  " + tt.needs + "\n}\n"
		if err := os.WriteFile(binary+".plugin.hcl", []byte(manifest), 0o644); err != nil {
			t.Fatal(err)
		}
		status, _, printed := put(t, binary, "--config", conf)
		if status != tt.status || !strings.Contains(printed, tt.says) {
			t.Errorf("with %q: exit status %d, want %d and %q in\n%s", tt.needs, status, tt.status, tt.says, printed)
		}
	}
}
