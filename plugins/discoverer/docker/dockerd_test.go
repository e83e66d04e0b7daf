package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func defaults() Config {
	return Config{Resync: 30 * time.Second, Timeout: 5 * time.Second, InspectWorkers: 4, FilterConfig: describe.DefaultFilter()}
}

// start runs a discoverer until the test ends, and checks that it then returns.
func start(t *testing.T, c Config, node *protov1.Node) *recorder {
	t.Helper()
	d, err := newDiscoverer(docker(), c, "", node, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Discover(ctx, nil, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Discover ended with %v", err)
		}
	})
	return r
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func v2root(t *testing.T) string {
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil {
			return root
		}
	}
	t.Fatal("no cgroup2 hierarchy is mounted")
	return ""
}

func state1(id string, s protov1.Container_State) func(*recorder) bool {
	return func(r *recorder) bool { c := r.containers[id]; return c != nil && c.State == s }
}

func synced(n int) func(*recorder) bool { return func(r *recorder) bool { return r.syncs >= n } }

func TestARealDockerd(t *testing.T) {
	d := env.StartDocker(t, env.WithBridge())
	t.Setenv("DOCKER_HOST", "")
	before := d.Run(t, "--detach", "--name", "before", "--label", "app.example/tier=web", "--label", "secret=x",
		"--env", "TOKEN=hidden", "--hostname", "h1", "--memory", "64m", "--memory-swap", "96m", "--cpu-shares", "512", "--cpus", "0.5", "--cpuset-cpus", "0",
		"--pids-limit", "77", "--ulimit", "nofile=100:200", "--user", "1000:1000", "--read-only", "--tmpfs", "/scratch:ro", "--volume", "/etc:/host-etc:ro", "--volume", "data:/data",
		"--publish", "127.0.0.1:18080:80", "--expose", "9000-9001", "--security-opt", "seccomp=unconfined", "--cap-drop", "MKNOD",
		"--entrypoint", "/bin/sleep", "--stop-signal", "KILL", env.BusyboxImage, "1000")
	dead := d.Run(t, "--detach", "--name", "dead", env.BusyboxImage, "sh", "-c", "exit 7")
	if out, err := d.CLI(t.Context(), "wait", dead); err != nil || out != "7" {
		t.Fatal(out, err)
	}

	c := defaults()
	c.Host = "unix://" + d.Socket
	c.LabelsExclude = []string{"secret"}
	r := start(t, c, &protov1.Node{CgroupRoot: v2root(t)})
	r.wait("the snapshot", synced(1))

	t.Run("a container that ran before is described whole", func(t *testing.T) {
		got := r.container(before)
		if got == nil {
			t.Fatal("not there")
		}
		t.Log(got)
		for what, ok := range map[string]bool{
			"name":             got.Name == "before",
			"image":            got.Image.Name+":"+got.Image.Tag == env.BusyboxImage || got.Image.Name == env.BusyboxImage,
			"image id":         strings.HasPrefix(got.Image.Id, "sha256:"),
			"runtime":          got.Runtime == "docker",
			"state":            got.State == protov1.Container_STATE_RUNNING && got.ExitCode == nil,
			"times":            got.CreatedUnixNano > 0 && got.StartedUnixNano >= got.CreatedUnixNano && got.FinishedUnixNano == 0,
			"labels":           got.Labels["app.example/tier"] == "web" && got.Labels["secret"] == "",
			"words":            strings.Join(got.Entrypoint, " ") == "/bin/sleep" && strings.Join(got.Args, " ") == "1000",
			"no environment":   len(got.Env) == 0,
			"mounts":           len(got.Mounts) == 3,
			"ports":            len(got.Ports) == 3 && got.Ports[0].ContainerPort == 80 && got.Ports[0].HostPort == 18080 && got.Ports[0].HostIp == "127.0.0.1" && got.Ports[0].Protocol == "tcp",
			"network":          len(got.Networks) == 1 && got.Networks[0].Name == "bridge" && len(got.Networks[0].Ips) == 1 && got.Networks[0].InterfaceMac != "" && got.Networks[0].Gateway != "",
			"hostname":         got.Hostname == "h1",
			"cpu":              got.Limits.GetCpuQuotaUs() == 50000 && got.Limits.GetCpuPeriodUs() == 100000 && got.Limits.GetCpuShares() == 512 && got.Limits.Cpuset == "0",
			"memory":           got.Limits.GetMemoryBytes() == 64<<20 && got.Limits.GetSwapBytes() == 32<<20 && got.Limits.GetMemoryReservationBytes() == -1,
			"pids and ulimits": got.Limits.GetPids() == 77 && len(got.Limits.Ulimits) == 1 && got.Limits.Ulimits[0].Soft == 100 && got.Limits.Ulimits[0].Hard == 200,
			"security":         got.Security.User == "1000:1000" && got.Security.GetReadOnlyRoot() && !got.Security.GetPrivileged() && got.Security.Seccomp == "unconfined" && len(got.Security.CapabilitiesDropped) == 1,
			"pid":              got.Pid != 0,
			"cgroup":           got.CgroupPath == "/docker/"+before && got.CgroupId != 0,
			"nothing cut":      len(got.Truncated) == 0,
		} {
			if !ok {
				t.Errorf("%s is wrong", what)
			}
		}
	})
	t.Run("a container that ended before has its exit code", func(t *testing.T) {
		got := r.container(dead)
		if got.State != protov1.Container_STATE_EXITED || got.GetExitCode() != 7 || got.Pid != 0 || got.FinishedUnixNano == 0 {
			t.Error(got)
		}
	})
	t.Run("the life of a container is told in order", func(t *testing.T) {
		id := d.Run(t, "--detach", "--name", "life", "--label", "a=b", "--stop-signal", "KILL", env.BusyboxImage, "sleep", "1000")
		r.wait("running, with its pid", func(r *recorder) bool {
			return r.containers[id] != nil && r.containers[id].Pid != 0
		})
		for _, args := range [][]string{{"pause", id}, {"unpause", id}, {"rename", id, "other"}, {"update", "--cpu-shares", "333", id}} {
			if _, err := d.CLI(t.Context(), args...); err != nil {
				t.Fatal(err)
			}
		}
		r.wait("the new limit", func(r *recorder) bool { return r.containers[id].Limits.GetCpuShares() == 333 })
		if got := r.container(id); got.Name != "other" || got.State != protov1.Container_STATE_RUNNING {
			t.Error(got)
		}
		if _, err := d.CLI(t.Context(), "kill", id); err != nil {
			t.Fatal(err)
		}
		r.wait("exited", state1(id, protov1.Container_STATE_EXITED))
		r.wait("exit code", func(r *recorder) bool { return r.containers[id].GetExitCode() == 137 })
		if _, err := d.CLI(t.Context(), "rm", id); err != nil {
			t.Fatal(err)
		}
		r.wait("removed", func(r *recorder) bool { return r.containers[id] == nil })
		want := []string{"created", "started", "paused", "unpaused", "died exit_code=137 signal=9", "removed"}
		got := r.lines("lifecycle " + short(id))
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "lifecycle "+short(id)+" ")
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
	t.Run("every container of a crowd of short lives is named by its create event", func(t *testing.T) {
		const n = 40
		var wg sync.WaitGroup
		sem := make(chan struct{}, 8)
		for i := range n {
			wg.Go(func() {
				sem <- struct{}{}
				defer func() { <-sem }()
				if out, err := d.CLI(t.Context(), "run", "--rm", "--network", "none", "--name", fmt.Sprintf("short-%d", i), env.NoopImage); err != nil {
					t.Error(out, err)
				}
			})
		}
		wg.Wait()
		r.wait("all removed", func(r *recorder) bool {
			return len(r.containers) == 2
		})
		var delays []time.Duration
		for i := range n {
			lines := r.lines(fmt.Sprintf(" short-%d ", i))
			if len(lines) == 0 || !strings.HasSuffix(lines[0], "created") {
				t.Errorf("short-%d was first told as %q", i, lines)
				continue
			}
			id := strings.Fields(lines[0])[1]
			delays = append(delays, r.delay("lifecycle "+id+" created"))
			life := r.lines(id)
			if want := "container " + id; !strings.HasPrefix(life[0], want) || life[1] != "lifecycle "+id+" created" || life[len(life)-1] != "remove "+id {
				t.Errorf("short-%d: %q", i, life)
			}
		}
		slices.Sort(delays)
		t.Logf("from the create event's own time to the inventory: median %v, largest %v", delays[len(delays)/2], delays[len(delays)-1])
	})
	t.Run("networks that come and go are described", func(t *testing.T) {
		if _, err := d.CLI(t.Context(), "network", "create", "extra"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.CLI(t.Context(), "network", "connect", "extra", before); err != nil {
			t.Fatal(err)
		}
		r.wait("two networks", func(r *recorder) bool { return len(r.containers[before].Networks) == 2 })
		if _, err := d.CLI(t.Context(), "network", "disconnect", "extra", before); err != nil {
			t.Fatal(err)
		}
		r.wait("one network", func(r *recorder) bool { return len(r.containers[before].Networks) == 1 })
	})
	t.Run("a container that the kernel ends for its memory is told", func(t *testing.T) {
		id := d.Run(t, "--detach", "--network", "none", "--memory", "8m", "--memory-swap", "8m", env.BusyboxImage,
			"sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1")
		r.wait("an end", state1(id, protov1.Container_STATE_EXITED))
		r.wait("word of the kill", func(r *recorder) bool { return r.containers[id].GetOomKilled() })
		if len(r.lines("lifecycle "+short(id)+" oom")) == 0 {
			t.Error("no oom was told as it happened")
		}
	})
	t.Run("a container that joins another's network names it by its id", func(t *testing.T) {
		id := d.Run(t, "--detach", "--network", "container:before", "--stop-signal", "KILL", env.BusyboxImage, "sleep", "1000")
		r.wait("its description", func(r *recorder) bool { return r.containers[id].GetNetworkMode() == "container:"+before })
	})
}

func TestADockerdThatComesAndGoes(t *testing.T) {
	dir := t.TempDir()
	socket := dir + "/docker.sock"
	c := defaults()
	c.Host, c.Timeout = "unix://"+socket, time.Second
	r := start(t, c, &protov1.Node{CgroupRoot: v2root(t)})
	r.wait("word of its absence", func(r *recorder) bool { return strings.HasPrefix(r.reason, "no Docker daemon at "+socket) })

	d := env.StartDocker(t, env.WithSocket(socket), env.WithArgs("--live-restore"))
	r.wait("a snapshot once it is there", synced(1))
	id := d.Run(t, "--detach", "--name", "stays", "--stop-signal", "KILL", env.BusyboxImage, "sleep", "1000")
	r.wait("a container", state1(id, protov1.Container_STATE_RUNNING))

	if err := d.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wait("word of its death", func(r *recorder) bool { return r.reason != "" })
	if r.container(id) == nil {
		t.Error("the container was forgotten with its daemon")
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wait("a second snapshot", synced(2))
	if got := r.container(id); got == nil || got.State != protov1.Container_STATE_RUNNING || got.Name != "stays" {
		t.Errorf("after the restart: %v", got)
	}

	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	r.wait("word of its silence", func(r *recorder) bool { return strings.Contains(r.reason, "does not answer within 1s") })
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	r.wait("a third snapshot", synced(3))
	if _, err := d.CLI(t.Context(), "rm", "--force", id); err != nil {
		t.Fatal(err)
	}
	r.wait("its removal", func(r *recorder) bool { return r.containers[id] == nil })
	t.Log(strings.Join(r.lines("degraded"), "\n"))
}

func TestDetectTellsAbsentFromThere(t *testing.T) {
	c := defaults()
	c.Host = "unix://" + t.TempDir() + "/none.sock"
	d, err := newDiscoverer(docker(), c, "", nil, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Detect(t.Context()); !errors.Is(err, discover.ErrAbsent) {
		t.Errorf("no socket: %v", err)
	}
	real := env.StartDocker(t)
	c.Host = "unix://" + real.Socket
	if d, err = newDiscoverer(docker(), c, "", nil, slog.Default()); err != nil {
		t.Fatal(err)
	}
	if detail, err := d.Detect(t.Context()); err != nil || !strings.HasPrefix(detail, "docker ") {
		t.Errorf("a socket: %q, %v", detail, err)
	}
}
