package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// bare is an OCI runtime by itself: runc or crun, with a state directory and bundles of
// its own.
type bare struct {
	t             *testing.T
	runtime       string
	root, bundles string
	rootfs        string
	within        string // a cgroup whose namespace, with cgroup2 alone, is crun's; "": the host's
}

func startBare(t *testing.T, runtime string) *bare {
	t.Helper()
	if err := env.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Not in the test's own directory, whose name is too long for runc.
	dir, err := os.MkdirTemp("/var/tmp", "oci-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{t: t, runtime: runtime, root: dir + "/root", bundles: dir + "/bundles", rootfs: dir + "/rootfs"}
	t.Cleanup(func() {
		names, err := os.ReadDir(b.root)
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		for _, n := range names {
			if out, err := b.command(context.Background(), "delete", "--force", n.Name()).CombinedOutput(); err != nil {
				t.Errorf("delete %s: %v: %s", n.Name(), err, out)
			}
		}
		if b.within != "" {
			if err := removeCgroup(b.within); err != nil {
				t.Error(err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{b.root, b.bundles, b.rootfs + "/bin", b.rootfs + "/proc", b.rootfs + "/sys", b.rootfs + "/dev", b.rootfs + "/tmp"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(b.root, 0o700); err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.rootfs+"/bin/busybox", raw, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "true"} {
		if err := os.Symlink("busybox", b.rootfs+"/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// alone gives crun what it needs, and a host with v1 beside v2 has not: cgroup2 alone. It
// gets it in namespaces of its own, below a cgroup of the test's.
func (b *bare) alone() {
	b.t.Helper()
	b.within = fmt.Sprintf("%s/oci-test-%d", v2root(b.t), os.Getpid())
	if err := os.Mkdir(b.within, 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// removeCgroup removes a cgroup and those below, as soon as the kernel lets go of them.
func removeCgroup(dir string) error {
	var all []string
	if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, p)
		}
		return nil // those that are gone are what is wanted
	}); err != nil {
		return err
	}
	for n := len(all) - 1; n >= 0; n-- {
		var err error
		for range 200 {
			if err = os.Remove(all[n]); err == nil || os.IsNotExist(err) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

func (b *bare) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{b.runtime, "--root", b.root}, args...)
	if b.within != "" {
		inside := `umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"`
		outside := `echo $$ > ` + b.within + `/cgroup.procs && exec unshare --mount --cgroup --propagation private sh -c "$0" sh "$@"`
		args = append([]string{"sh", "-c", outside, inside}, args...)
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return c
}

// call runs the runtime. Its output goes to a file: a container keeps it open.
func (b *bare) call(args ...string) string {
	b.t.Helper()
	out, err := os.CreateTemp(b.bundles, "out-")
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	c := b.command(b.t.Context(), args...)
	c.Stdout, c.Stderr = out, out
	err = c.Run()
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		b.t.Fatalf("%s: %v, %v: %s", strings.Join(args, " "), err, readErr, text)
	}
	return string(text)
}

// bundle makes a bundle of the runtime's own default specification, as change changes it.
func (b *bare) bundle(id string, change func(*specs.Spec), args ...string) string {
	b.t.Helper()
	dir := path.Join(b.bundles, id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	c := exec.CommandContext(b.t.Context(), "runc", "spec")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		b.t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(raw, &s); err != nil {
		b.t.Fatal(err)
	}
	s.Root.Path, s.Process.Terminal, s.Process.Args = b.rootfs, false, args
	if b.within != "" {
		s.Linux.Resources = nil // there is no controller
	}
	if change != nil {
		change(&s)
	}
	if raw, err = json.Marshal(&s); err == nil {
		err = os.WriteFile(dir+"/config.json", raw, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// run runs a container in the background, until the test ends.
func (b *bare) run(id string, change func(*specs.Spec), args ...string) {
	b.t.Helper()
	b.call("run", "--detach", "--bundle", b.bundle(id, change, args...), id)
}

func v2root(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil {
			return root
		}
	}
	t.Fatal("no cgroup2 hierarchy is mounted")
	return ""
}

// makeCgroup makes one of the default hierarchy until the test ends.
func makeCgroup(t *testing.T, name string) (id uint64, at string) {
	t.Helper()
	at = path.Join(v2root(t), name)
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeCgroup(at); err != nil {
			t.Error(err)
		}
	})
	return inodeOf(t, at), at
}

func inodeOf(t *testing.T, at string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(at, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// kernel tells a host's facts: the cgroups that are made below a directory of the default
// hierarchy, as they are made, and at first those that are there.
type kernel struct {
	teller
	mu      sync.Mutex
	created map[string]uint64 // by path
}

func followKernel(t *testing.T, host teller, below string) *kernel {
	t.Helper()
	k := &kernel{teller: host, created: map[string]uint64{}}
	top := v2root(t)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, path.Join(top, below), unix.IN_CREATE|unix.IN_ONLYDIR); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			for b := buf[:n]; len(b) > 0; {
				size := unix.SizeofInotifyEvent + int(b[12]) + int(b[13])<<8
				name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:size], []byte{0})
				b = b[size:]
				at := path.Join("/", below, string(name))
				var st syscall.Stat_t
				if syscall.Stat(path.Join(top, at), &st) != nil {
					continue // gone already; the tests' containers live longer
				}
				k.mu.Lock()
				k.created[at] = st.Ino
				k.mu.Unlock()
				select {
				case k.teller <- &protov1.HostFacts{Facts: []*protov1.HostFact{{Fact: &protov1.HostFact_Cgroup{
					Cgroup: &protov1.CgroupFact{Change: protov1.CgroupFact_CHANGE_CREATED, Id: st.Ino, Path: at},
				}}}}:
				case <-stop:
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return k
}

// id is that of a cgroup that was made; 0: none.
func (k *kernel) id(at string) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.created[at]
}
