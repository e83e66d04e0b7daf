package env

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// machine is what a test must leave as it was. What lies below Root is left out: other
// tests work there at the same time. So is the one mount that environments share.
type machine struct {
	Rules, Forward string
	Links, Mounts  []string
}

func look(t *testing.T) machine {
	t.Helper()
	nft, err := command("nft")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := output(exec.Command(nft, "--stateless", "list", "ruleset"))
	if err != nil {
		t.Fatal(err)
	}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	m := machine{Rules: rules, Forward: string(forward)}
	for _, link := range links {
		m.Links = append(m.Links, link.Name)
	}
	for _, mount := range mounts {
		if !strings.HasPrefix(mount.point, Root+"/") && mount.point != netnsDir {
			m.Mounts = append(m.Mounts, mount.point)
		}
	}
	return m
}

// watch fails the test if the machine is not as it was, once all that the test starts
// after this call is closed.
func watch(t *testing.T) {
	t.Helper()
	before := look(t)
	t.Cleanup(func() {
		after := look(t)
		if before.Rules != after.Rules {
			t.Errorf("packet rules were\n%s\nand are\n%s", before.Rules, after.Rules)
		}
		if before.Forward != after.Forward {
			t.Errorf("ip_forward was %q and is %q", before.Forward, after.Forward)
		}
		if !slices.Equal(before.Links, after.Links) {
			t.Errorf("network links were %v and are %v", before.Links, after.Links)
		}
		if !slices.Equal(before.Mounts, after.Mounts) {
			t.Errorf("mounts were %v and are %v", before.Mounts, after.Mounts)
		}
	})
}

// checkGone fails the test if, after its environment was closed, anything of that is
// left: its directory, a process, a mount, a shim's socket, a cgroup of its containers.
func checkGone(t *testing.T, s *state, ids, sockets []string) {
	t.Helper()
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", s.dir, err)
	}
	pids, err := pidsThat(func(pid int) bool { return isShim(pid, s.dir, s.record.Outside) || isContained(pid, s.dir) })
	if err != nil || len(pids) > 0 {
		t.Errorf("processes %v are left (%v)", pids, err)
	}
	for _, d := range s.record.Daemons {
		if d.alive() {
			t.Errorf("%s is still running", d.Name)
		}
	}
	if points, err := mountsBelow(s.dir); err != nil || len(points) > 0 {
		t.Errorf("mounts %v are left (%v)", points, err)
	}
	for _, path := range sockets {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("socket %s is left", path)
		}
	}
	if dirs, err := cgroupsOf(ids); err != nil || len(dirs) > 0 {
		t.Errorf("cgroups %v are left (%v)", dirs, err)
	}
	roots, err := cgroupRoots()
	if err != nil {
		t.Error(err)
	}
	for _, pod := range s.record.Cgroups {
		for _, root := range roots {
			if _, err := os.Stat(filepath.Join(root, pod)); err == nil {
				t.Errorf("the cgroup %s of a pod is left in %s", pod, root)
			}
		}
	}
	for _, id := range ids {
		if _, err := os.Stat(filepath.Join(runcDir, id)); err == nil {
			t.Errorf("runc's state of container %s is left", id)
		}
	}
	for _, word := range append(ids, filepath.Base(s.dir)) {
		if notes, err := filepath.Glob(filepath.Join(cniState, "*", "*"+word+"*")); err != nil || len(notes) > 0 {
			t.Errorf("the CNI's notes %v are left (%v)", notes, err)
		}
	}
}

func TestInstallFindsEverythingThereOnASecondCall(t *testing.T) {
	for range 2 {
		if err := Install(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDockerRunsContainersAndIsGoneAfterClose(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []Option
		before  func(t *testing.T, d *Docker) // happens to dockerd before Close
	}{
		{"while all is well", nil, func(t *testing.T, d *Docker) {}},
		{"with a network", []Option{WithBridge()}, func(t *testing.T, d *Docker) {}},
		{"after dockerd was killed", nil, func(t *testing.T, d *Docker) {
			if err := d.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"after both daemons were killed", nil, func(t *testing.T, d *Docker) {
			if err := errors.Join(d.Kill(t.Context()), d.Containerd().Kill(t.Context())); err != nil {
				t.Fatal(err)
			}
		}},
		{"while dockerd is stopped", nil, func(t *testing.T, d *Docker) {
			if err := d.Pause(); err != nil {
				t.Fatal(err)
			}
		}},
		{"after its owner died", nil, func(t *testing.T, d *Docker) {
			// what the kernel does with the locks of a process that dies
			if err := errors.Join(d.state.lock.Close(), d.state.users.file.Close()); err != nil {
				t.Fatal(err)
			}
			if err := Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch(t)
			d, err := NewDocker(t.Context(), c.options...)
			if err != nil {
				t.Fatal(err)
			}
			closed := false
			defer func() {
				if !closed {
					closeWithTest(t, d.Close)
				}
			}()
			if got := d.Run(t, "--rm", BusyboxImage, "echo", "from a container"); got != "from a container" {
				t.Errorf("the container printed %q", got)
			}
			d.Run(t, "--rm", NoopImage)
			d.Run(t, "--rm", "--privileged", BusyboxImage, "true")
			id := d.Run(t, "--detach", BusyboxImage, "sleep", "1000")
			if len(id) != 64 {
				t.Fatalf("docker run printed %q, want an id", id)
			}
			groups, err := cgroupsOf([]string{id})
			if err != nil || len(groups) == 0 {
				t.Errorf("the container has no cgroup (%v)", err)
			}
			ids, sockets := d.state.containerIDs(), d.state.shimSockets()
			if !slices.Contains(ids, id) || len(sockets) == 0 {
				t.Errorf("the record knows containers %v, sockets %v; want %s and a socket", ids, sockets, id)
			}
			c.before(t, d)
			closed = true
			closeWithTest(t, d.Close)
			checkGone(t, d.state, ids, sockets)
		})
	}
}

// containerds are the kinds of containerd that are to be had.
var containerds = []struct {
	name    string
	options []Option
}{
	{"of the distribution", nil},
	{"of the distribution with its CRI", []Option{WithCRI()}},
	{"of the second major version", []Option{WithContainerd2()}},
	{"of the second major version with its CRI", []Option{WithContainerd2(), WithCRI()}},
}

func TestContainerdRunsContainersAndIsGoneAfterClose(t *testing.T) {
	for _, kind := range containerds {
		t.Run(kind.name, func(t *testing.T) {
			watch(t)
			c, err := NewContainerd(t.Context(), kind.options...)
			if err != nil {
				t.Fatal(err)
			}
			closed := false
			defer func() {
				if !closed {
					closeWithTest(t, c.Close)
				}
			}()
			if got := c.Run(t, "--rm", BusyboxImage, "one", "echo", "from a container"); got != "from a container" {
				t.Errorf("the container printed %q", got)
			}
			c.Run(t, "--rm", NoopImage, "two")
			long := fmt.Sprintf("env-test-%d", os.Getpid())
			c.Run(t, "--detach", "--label", "a=b", BusyboxImage, long, "sleep", "1000")
			ids, sockets := c.state.containerIDs(), c.state.shimSockets()
			if !slices.Contains(ids, long) || len(sockets) == 0 {
				t.Errorf("the record knows containers %v, sockets %v; want %s and a socket", ids, sockets, long)
			}
			if err := c.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Ctr(t.Context(), "task", "list", "--quiet"); err != nil || got != long {
				t.Errorf("after a restart the tasks are %q (%v)", got, err)
			}
			closed = true
			closeWithTest(t, c.Close)
			checkGone(t, c.state, ids, sockets)
		})
	}
}

func TestDockerTellsAnImagesEnvironmentAndLabels(t *testing.T) {
	d := StartDocker(t)
	id := d.Run(t, "--detach", "--name", "named", "--label", "mine=yes", "--env", "X=1", "--stop-signal", "KILL", BusyboxImage, "sleep", "1000")
	text, err := d.CLI(t.Context(), "inspect", id)
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Name   string
		Config struct {
			Env    []string
			Labels map[string]string
		}
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got) != 1 {
		t.Fatalf("inspect: %v in %s", err, text)
	}
	if got[0].Name != "/named" || !slices.Contains(got[0].Config.Env, "IMAGE_ENV=from-image") ||
		!slices.Contains(got[0].Config.Env, "X=1") || got[0].Config.Labels["mine"] != "yes" ||
		got[0].Config.Labels["org.example.image"] != "busybox" {
		t.Errorf("the container is %+v", got[0])
	}

	t.Run("and answers nothing while it is stopped", func(t *testing.T) {
		if err := d.Pause(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if out, err := d.CLI(ctx, "ps"); err == nil {
			t.Errorf("a stopped dockerd answered %q", out)
		}
		if err := d.Resume(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.CLI(t.Context(), "ps"); err != nil {
			t.Error(err)
		}
	})
	t.Run("and knows its containers after it was killed and started again", func(t *testing.T) {
		before := d.PID()
		if err := d.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out, err := d.CLI(t.Context(), "ps", "--all", "--quiet", "--no-trunc"); err != nil || out != id {
			t.Errorf("docker ps printed %q (%v), want %s", out, err, id)
		}
		if d.PID() == before {
			t.Error("dockerd has the same pid as before")
		}
	})
	t.Run("and listens on its socket alone", func(t *testing.T) {
		out, err := exec.Command("ss", "-Hltnp").Output()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), `"dockerd"`) {
			t.Errorf("dockerd listens on TCP:\n%s", out)
		}
	})
}

func TestContainersOfABridgeReachOneAnother(t *testing.T) {
	watch(t)
	d := StartDocker(t, WithBridge())
	server := d.Run(t, "--detach", BusyboxImage, "sh", "-c", "mkdir /w && echo hello >/w/f && exec httpd -f -p 80 -h /w")
	address, err := d.CLI(t.Context(), "inspect", "--format", "{{.NetworkSettings.IPAddress}}", server)
	if err != nil || address == "" {
		t.Fatalf("the server's address is %q (%v)", address, err)
	}
	got := d.Run(t, "--rm", BusyboxImage, "sh", "-c",
		"for i in $(seq 100); do wget -qO- http://"+address+"/f && exit; sleep 0.1; done; exit 1")
	if !strings.Contains(got, "hello") {
		t.Errorf("the client got %q", got)
	}
}

func TestTwoDockersRunAtTheSameTime(t *testing.T) {
	a, b := StartDocker(t), StartDocker(t)
	id := a.Run(t, "--detach", BusyboxImage, "sleep", "1000")
	if out, err := b.CLI(t.Context(), "ps", "--quiet"); err != nil || out != "" {
		t.Errorf("one dockerd knows %q of the other (%v)", out, err)
	}
	closeWithTest(t, b.Close)
	if out, err := a.CLI(t.Context(), "ps", "--quiet", "--no-trunc"); err != nil || out != id {
		t.Errorf("after the other's end, docker ps printed %q (%v)", out, err)
	}
}

func TestAnImageIsTheSameBytesEachTime(t *testing.T) {
	code, err := load.NoopELF("amd64")
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := errors.Join(Noop(code).WriteArchive(&first), Noop(code).WriteArchive(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of one image differ")
	}
}

func TestAContainerdAtASocketElsewhereLeavesNothingEither(t *testing.T) {
	watch(t)
	socket := filepath.Join(t.TempDir(), "c.sock")
	c, err := NewContainerd(t.Context(), WithSocket(socket))
	if err != nil {
		t.Fatal(err)
	}
	c.Run(t, "--detach", BusyboxImage, "stays", "sleep", "1000")
	outside := c.state.record.Outside
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	pids, err := pidsThat(func(pid int) bool { return isShim(pid, c.state.dir, outside) })
	if err != nil || len(pids) > 0 {
		t.Errorf("shims %v are left (%v)", pids, err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Errorf("socket %s is left", socket)
	}
}
