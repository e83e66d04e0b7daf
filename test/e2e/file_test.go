package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestEveryOpenOfALoadIsToldWithItsResult(t *testing.T) {
	programs := load.Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tr := harness.Start(t, `probe "file" {}`)
	did, err := programs.RunOpen(t.Context(), "-n", "20000", "-t", "2", "-f", "25", file)
	if err != nil {
		t.Fatal(err)
	}
	ledger := tr.Stop()
	var succeeded, failed int64
	for _, e := range harness.Select(tr.Events(), "file.open", func(e *harness.Event) bool { return strings.HasPrefix(e.File.Path, file) }) {
		good := e.File.Path == file && e.File.FD != nil && *e.File.FD > 2 && e.Error == nil && e.Priority == "debug"
		bad := e.File.Path == file+".absent" && e.File.FD == nil && e.Error != nil && e.Error.Type == "ENOENT" && e.Error.Errno == int(unix.ENOENT) && e.Priority == "warning"
		switch {
		case e.Process.Comm != "openload" || e.File.Flags != unix.O_RDONLY|unix.O_CLOEXEC:
			t.Fatalf("the open is %s", e.Line)
		case good:
			succeeded++
		case bad:
			failed++
		default:
			t.Fatalf("the open is %s", e.Line)
		}
	}
	if succeeded+failed != did.Opens || failed != did.Failed || did.Failed != 5000 {
		t.Errorf("%d opens and %d failed ones were told, the load counted %+v", succeeded, failed, did)
	}
	checkLedger(t, ledger, false, map[string]int64{"file.open": did.Opens})
}

func TestAnOpenTellsWhatTheCallerAskedFor(t *testing.T) {
	// The calls are this thread's own, so that its directory and its user are too.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirfd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dirfd)

	raw := func(trap uintptr, a ...uintptr) (int, error) {
		args := [4]uintptr{}
		copy(args[:], a)
		fd, _, errno := unix.Syscall6(trap, args[0], args[1], args[2], args[3], 0, 0)
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
	mine := tag()
	name := func(s string) string { return mine + s }
	within := func(s string) string { return filepath.Join(dir, name(s)) }
	long := "/" + strings.Repeat("x", 200) + "/" + strings.Repeat("y/", 500) + name("long")
	type call struct {
		name  string
		open  func() (int, error)
		path  string
		flags int
		errno unix.Errno // 0: it succeeds
		dirfd bool
		cut   bool // the path
	}
	calls := []call{
		{name: "openat that makes a file", path: within("new"), flags: unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_CLOEXEC,
			open: func() (int, error) {
				return unix.Openat(unix.AT_FDCWD, within("new"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			}},
		{name: "openat of what is there already", path: within("new"), flags: unix.O_CREAT | unix.O_EXCL, errno: unix.EEXIST,
			open: func() (int, error) {
				return unix.Openat(unix.AT_FDCWD, within("new"), unix.O_CREAT|unix.O_EXCL, 0o600)
			}},
		{name: "a path from the working directory", path: name("relative"), errno: unix.ENOENT,
			open: func() (int, error) { return unix.Openat(unix.AT_FDCWD, name("relative"), unix.O_RDONLY, 0) }},
		{name: "a path from an open directory", path: name("new"), dirfd: true,
			open: func() (int, error) { return unix.Openat(dirfd, name("new"), unix.O_RDONLY, 0) }},
		{name: "openat2", path: name("new"), flags: unix.O_RDWR, dirfd: true,
			open: func() (int, error) {
				return unix.Openat2(dirfd, name("new"), &unix.OpenHow{Flags: unix.O_RDWR, Resolve: unix.RESOLVE_BENEATH})
			}},
		{name: "openat2 out of its directory", path: "../" + name("out"), dirfd: true, errno: unix.EXDEV,
			open: func() (int, error) {
				return unix.Openat2(dirfd, "../"+name("out"), &unix.OpenHow{Resolve: unix.RESOLVE_BENEATH})
			}},
		{name: "a component that is no directory", path: there + "/" + name("x"), errno: unix.ENOTDIR,
			open: func() (int, error) { return unix.Openat(unix.AT_FDCWD, there+"/"+name("x"), unix.O_RDONLY, 0) }},
		{name: "a link to itself", path: within("loop"), errno: unix.ELOOP,
			open: func() (int, error) {
				if err := unix.Symlink(name("loop"), within("loop")); err != nil {
					return -1, err
				}
				return unix.Openat(unix.AT_FDCWD, within("loop"), unix.O_RDONLY, 0)
			}},
		{name: "a path too long to be told whole", path: long, errno: unix.ENOENT, cut: true,
			open: func() (int, error) { return unix.Openat(unix.AT_FDCWD, long, unix.O_RDONLY, 0) }},
	}
	if runtime.GOARCH == "amd64" { // other architectures never had these
		pointer := func(s string) uintptr {
			b, err := unix.BytePtrFromString(s)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { runtime.KeepAlive(b) })
			return uintptr(unsafe.Pointer(b))
		}
		const sysOpen, sysCreat = 2, 85
		calls = append(calls,
			call{name: "open", path: within("old"), flags: unix.O_CREAT | unix.O_RDWR,
				open: func() (int, error) { return raw(sysOpen, pointer(within("old")), unix.O_CREAT|unix.O_RDWR, 0o600) }},
			call{name: "creat", path: within("older"), flags: unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC,
				open: func() (int, error) { return raw(sysCreat, pointer(within("older")), 0o600) }})
	}

	tr := harness.Start(t, `probe "file" {}`)
	fds := make([]int, len(calls))
	for i, c := range calls {
		fd, err := c.open()
		if c.errno == 0 && err != nil || c.errno != 0 && err != c.errno {
			t.Fatalf("%s: %v, want %v", c.name, err, c.errno)
		}
		if fds[i] = fd; fd >= 0 {
			if err := unix.Close(fd); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A pointer to nothing: there is no path to tell.
	if _, err := raw(unix.SYS_OPENAT, ^uintptr(99), 8, unix.O_PATH); err != unix.EFAULT {
		t.Fatalf("an open of no path: %v", err)
	}
	ledger := tr.Stop()
	events := tr.Events()
	for i, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			e := one(t, "opens", harness.Select(events, "file.open", func(e *harness.Event) bool {
				return e.Process.PID == os.Getpid() && e.File.Flags == c.flags && (e.Error == nil) == (c.errno == 0) &&
					(e.File.Path == c.path || c.cut && e.File.Truncated && strings.HasPrefix(c.path, e.File.Path) && len(e.File.Path) > 1000)
			}))
			switch {
			case c.errno == 0 && (e.File.FD == nil || *e.File.FD != fds[i]):
				t.Errorf("the descriptor is %d: %s", fds[i], e.Line)
			case c.errno != 0 && (e.Error.Type != unix.ErrnoName(c.errno) || e.Error.Errno != int(c.errno) || e.File.FD != nil):
				t.Errorf("the error is %v: %s", c.errno, e.Line)
			case c.dirfd && (e.File.DirectoryFD == nil || *e.File.DirectoryFD != dirfd), !c.dirfd && e.File.DirectoryFD != nil:
				t.Errorf("the directory is %d: %s", dirfd, e.Line)
			case e.File.Truncated != c.cut:
				t.Errorf("truncated: %s", e.Line)
			}
		})
	}
	t.Run("a path at a bad address", func(t *testing.T) {
		e := one(t, "opens", harness.Select(events, "file.open", func(e *harness.Event) bool {
			return e.Process.PID == os.Getpid() && e.File.Unreadable && e.File.Flags == unix.O_PATH
		}))
		if e.File.Path != "" || e.Error == nil || e.Error.Type != "EFAULT" {
			t.Errorf("the open is %s", e.Line)
		}
	})
	checkLedger(t, ledger, false, map[string]int64{"file.open": int64(len(calls)) + 1})
}

func TestProbesThatAreNotNamedTellNothing(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" {}`)
	if _, err := programs.RunOpen(t.Context(), "-n", "10", fmt.Sprint(os.Args[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := programs.RunTCP(t.Context(), "pairs", "-n", "5"); err != nil {
		t.Fatal(err)
	}
	ledger := tr.Stop()
	for class := range ledger.Rows {
		if !strings.HasPrefix(class.Kind, "process.") && !strings.HasPrefix(class.Kind, "cgroup.") {
			t.Errorf("%v was traced", class)
		}
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 2})
}
