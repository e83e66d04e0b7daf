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

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func defaults() Config {
	return Config{Resync: 5 * time.Minute, Timeout: 5 * time.Second, FilterConfig: describe.DefaultFilter()}
}

// fakeHost tells the facts that a test puts into it.
type fakeHost struct {
	facts chan *protov1.HostFacts
	asked chan *protov1.Subscribe
}

func (h *fakeHost) Node() *protov1.Node { return nil }

func (h *fakeHost) Facts(s *protov1.Subscribe) <-chan *protov1.HostFacts {
	h.asked <- s
	return h.facts
}

// start runs a discoverer until the test ends, and checks that it then returns.
func start(t *testing.T, c Config) *recorder {
	r, _ := startWithHost(t, c)
	return r
}

func startWithHost(t *testing.T, c Config) (*recorder, *fakeHost) {
	t.Helper()
	d, err := newDiscoverer(c, "", nil, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder(t)
	h := &fakeHost{facts: make(chan *protov1.HostFacts), asked: make(chan *protov1.Subscribe, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Discover(ctx, h, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Discover ended with %v", err)
		}
	})
	if s := <-h.asked; !s.Cgroups || !s.Claims {
		t.Errorf("it subscribes to %v", s)
	}
	return r, h
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func inState(id string, s protov1.Container_State) func(*recorder) bool {
	return func(r *recorder) bool { return r.find(id).GetState() == s }
}

func synced(n int) func(*recorder) bool { return func(r *recorder) bool { return r.syncs >= n } }

// configFor follows the namespaces of a containerd.
func configFor(d *env.Containerd) Config {
	c := defaults()
	c.Address = "unix://" + d.Socket
	return c
}

// ctr runs it in the namespace default.
func ctr(t *testing.T, d *env.Containerd, args ...string) string {
	t.Helper()
	out, err := d.Ctr(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// versions are those of containerd that are tested.
func versions() map[string][]env.Option {
	return map[string][]env.Option{"of the distribution": nil, "of the second major version": {env.WithContainerd2()}}
}

func TestARealContainerd(t *testing.T) {
	for version, options := range versions() {
		t.Run(version, func(t *testing.T) { testContainerd(t, env.StartContainerd(t, options...)) })
	}
}

func testContainerd(t *testing.T, d *env.Containerd) {
	d.Run(t, "--detach", "--label", "app.example/tier=web", "--label", "secret=x", "--annotation", "org.example/note=a", "--env", "TOKEN=hidden",
		"--memory-limit", "67108864", "--cpus", "0.5", "--cpu-shares", "512", "--read-only", "--seccomp", "--cap-add", "CAP_SYS_ADMIN", "--cap-drop", "CAP_MKNOD",
		"--mount", "type=bind,src=/etc,dst=/host-etc,options=rbind:ro", "--net-host", env.BusyboxImage, "before", "sleep", "1000")
	d.Run(t, "--detach", "--privileged", env.BusyboxImage, "privileged", "sleep", "1000")
	d.Run(t, "--detach", env.BusyboxImage, "dead", "sh", "-c", "exit 7")
	ctr(t, d, "container", "create", env.BusyboxImage, "never-run")
	waitTask(t, d, "dead", "STOPPED")
	c := configFor(d)
	c.LabelsExclude = []string{"secret"}
	r := start(t, c)
	r.wait("the snapshot", synced(1))

	t.Run("a container that ran before is described whole", func(t *testing.T) {
		got := r.container("before")
		name, tag, _ := strings.Cut(env.BusyboxImage, ":")
		for what, ok := range map[string]bool{
			"name":        got.Name == "before",
			"scope":       got.Scope == "containerd:default",
			"image":       got.Image.Name == name && got.Image.Tag == tag && strings.HasPrefix(got.Image.Digest, "sha256:"),
			"runtime":     got.Runtime == "containerd",
			"state":       got.State == protov1.Container_STATE_RUNNING && got.ExitCode == nil,
			"times":       got.CreatedUnixNano > 0 && got.FinishedUnixNano == 0,
			"labels":      got.Labels["app.example/tier"] == "web" && got.Labels["secret"] == "",
			"annotations": got.Annotations["org.example/note"] == "a",
			"words":       strings.Join(got.Args, " ") == "sleep 1000",
			"environment": len(got.Env) == 0,
			"mounts": slices.ContainsFunc(got.Mounts, func(m *protov1.Mount) bool {
				return m.Type == "bind" && m.Destination == "/host-etc" && m.Source == "/etc" && m.GetReadOnly()
			}),
			"network":      got.NetworkMode == "host",
			"cpu":          got.Limits.GetCpuQuotaUs() == 50000 && got.Limits.GetCpuPeriodUs() == 100000 && got.Limits.GetCpuShares() == 512,
			"memory":       got.Limits.GetMemoryBytes() == 64<<20 && got.Limits.GetSwapBytes() == -1 && got.Limits.GetPids() == -1,
			"ulimits":      len(got.Limits.Ulimits) == 1 && got.Limits.Ulimits[0].Name == "nofile" && got.Limits.Ulimits[0].Soft == 1024,
			"user":         got.Security.User == "0:0",
			"security":     got.Security.GetReadOnlyRoot() && !got.Security.GetPrivileged() && got.Security.Seccomp == "filtered",
			"capabilities": strings.Join(got.Security.CapabilitiesAdded, " ") == "SYS_ADMIN" && strings.Join(got.Security.CapabilitiesDropped, " ") == "MKNOD",
			"pid":          got.Pid != 0,
			"cgroup":       got.CgroupPath == "/default/before" && strings.HasSuffix(cgroupOf(t, got.Pid), got.CgroupPath),
			"nothing cut":  len(got.Truncated) == 0,
		} {
			if !ok {
				t.Errorf("%s is wrong", what)
			}
		}
		plain := r.container("privileged")
		if !plain.Security.GetPrivileged() || plain.Security.Seccomp != "unconfined" || plain.NetworkMode != "" || len(plain.Security.CapabilitiesAdded) < 20 {
			t.Error(plain.Security)
		}
	})
	t.Run("one that ended before has its exit code, and one that never ran no state", func(t *testing.T) {
		got := r.container("dead")
		if got.State != protov1.Container_STATE_EXITED || got.GetExitCode() != 7 || got.Pid != 0 || got.FinishedUnixNano == 0 {
			t.Error(got)
		}
		if got := r.container("never-run"); got.State != protov1.Container_STATE_UNSPECIFIED || got.ExitCode != nil {
			t.Error(got)
		}
	})
	t.Run("the life of a container is told in order", func(t *testing.T) {
		d.Run(t, "--detach", env.BusyboxImage, "life", "sleep", "1000")
		r.wait("running, with its pid", func(r *recorder) bool {
			c := r.find("life")
			return c.GetState() == protov1.Container_STATE_RUNNING && c.GetPid() != 0 && c.GetImage().GetDigest() != "" && c.GetStartedUnixNano() != 0
		})
		ctr(t, d, "task", "exec", "--exec-id", "e1", "life", "true") // its end is not the container's
		ctr(t, d, "task", "pause", "life")
		r.wait("paused", inState("life", protov1.Container_STATE_PAUSED))
		ctr(t, d, "task", "resume", "life")
		r.wait("running again", inState("life", protov1.Container_STATE_RUNNING))
		ctr(t, d, "container", "label", "life", "new=label")
		r.wait("its new label", func(r *recorder) bool { return r.find("life").GetLabels()["new"] == "label" })
		ctr(t, d, "task", "kill", "--signal", "KILL", "life")
		r.wait("exited", inState("life", protov1.Container_STATE_EXITED))
		if got := r.container("life"); got.GetExitCode() != 137 || got.Pid != 0 || got.FinishedUnixNano < got.StartedUnixNano {
			t.Error(got)
		}
		waitTask(t, d, "life", "STOPPED")
		ctr(t, d, "task", "delete", "life")
		ctr(t, d, "container", "delete", "life")
		r.wait("removed", func(r *recorder) bool { return r.find("life") == nil })
		want := []string{"created", "started", "paused", "unpaused", "died exit_code=137 signal=9", "removed"}
		got := r.lines("lifecycle life ")
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "lifecycle life ")
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
	t.Run("a container that the kernel ends for its memory is told", func(t *testing.T) {
		d.Run(t, "--detach", "--memory-limit", "8388608", env.BusyboxImage, "hungry", "sh", "-c", "sleep 0.5; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000")
		r.wait("word of the kill as it happened", func(r *recorder) bool { return slices.Contains(r.log, "lifecycle hungry oom") })
		if !r.container("hungry").GetOomKilled() {
			t.Error("the container's description says nothing of it")
		}
		ctr(t, d, "task", "kill", "--signal", "KILL", "hungry")
		r.wait("its end", func(r *recorder) bool {
			return r.find("hungry").GetState() == protov1.Container_STATE_EXITED && r.find("hungry").GetOomKilled()
		})
	})
	t.Run("an image that comes is told", func(t *testing.T) {
		ctr(t, d, "image", "tag", env.BusyboxImage, "example.org/new:1")
		r.wait("word of it", func(r *recorder) bool {
			return slices.Contains(r.log, "lifecycle  pulled image=example.org/new:1")
		})
	})
	t.Run("every container of a crowd of short lives is named by its create event", func(t *testing.T) {
		const n = 40
		before := len(r.containers)
		var wg sync.WaitGroup
		sem := make(chan struct{}, 8)
		for i := range n {
			wg.Go(func() {
				sem <- struct{}{}
				defer func() { <-sem }()
				if out, err := d.Ctr(t.Context(), d.RunArgs("--rm", env.NoopImage, fmt.Sprintf("short-%d", i))...); err != nil {
					t.Error(out, err)
				}
			})
		}
		wg.Wait()
		r.wait("all removed", func(r *recorder) bool { return len(r.containers) == before })
		var delays []time.Duration
		lost := 0
		for i := range n {
			id := fmt.Sprintf("short-%d", i)
			life := append(r.lines(" "+id+" "), r.lines("remove "+id)...)
			if len(life) < 2 || life[0] != "container "+id+" created" || life[1] != "lifecycle "+id+" created" {
				t.Errorf("%s was first told as %q", id, life)
				continue
			}
			var words []string
			for _, l := range life[2:] {
				if w, ok := strings.CutPrefix(l, "lifecycle "+id+" "); ok {
					words = append(words, w)
				}
			}
			// A shim that ends itself may lose its word of the task's end.
			if len(words) == 2 {
				words = slices.Insert(words, 1, "died exit_code=0")
				lost++
			}
			if want := []string{"started", "died exit_code=0", "removed"}; !slices.Equal(words, want) {
				t.Errorf("%s: told %q, want %q", id, words, want)
			}
			delays = append(delays, r.delay("lifecycle "+id+" created"))
		}
		slices.Sort(delays)
		t.Logf("from the create event's own time to the inventory: median %v, largest %v; ends that nobody told: %d", delays[len(delays)/2], delays[len(delays)-1], lost)
	})
}

// waitTask waits until ctr tells a task's status.
func waitTask(t *testing.T, d *env.Containerd, id, status string) {
	t.Helper()
	for {
		for l := range strings.Lines(ctr(t, d, "task", "ls")) {
			if f := strings.Fields(l); len(f) == 3 && f[0] == id && f[2] == status {
				return
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("task %s is never %s", id, status)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cgroupOf is a process's cgroup on the default hierarchy.
func cgroupOf(t *testing.T, pid uint32) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	t.Fatalf("process %d is in no cgroup of the default hierarchy: %s", pid, text)
	return ""
}

func TestTheContainersOfAPod(t *testing.T) {
	for version, options := range versions() {
		t.Run(version, func(t *testing.T) {
			d := env.StartContainerd(t, append(options, env.WithCRI(), env.WithBridge())...)
			early := start(t, configFor(d))
			early.wait("the snapshot", synced(1))
			pod, app, host := runPods(t, d.CRI())
			check := func(t *testing.T, r *recorder) {
				checkPod(t, r, pod, app, host)
			}
			early.wait("both described", func(r *recorder) bool {
				return len(r.find(pod.ID).GetNetworks()) > 0 && r.find(app).GetState() == protov1.Container_STATE_RUNNING && r.find(host.ID).GetNetworkMode() != ""
			})
			t.Run("told by events", func(t *testing.T) { check(t, early) })
			late := start(t, configFor(d))
			late.wait("the snapshot", synced(1))
			t.Run("told by a list", func(t *testing.T) { check(t, late) })

			must(t, d.CRI().StopContainer(t.Context(), app, 0))
			early.wait("its end", func(r *recorder) bool {
				return r.find(app).GetState() == protov1.Container_STATE_EXITED && r.find(app).GetExitCode() == 137
			})
			must(t, d.CRI().RemoveContainer(t.Context(), app))
			must(t, d.CRI().RemovePod(t.Context(), pod))
			early.wait("the removals", func(r *recorder) bool { return r.find(app) == nil && r.find(pod.ID) == nil })
			for _, id := range []string{app, pod.ID} {
				var got []string
				for _, l := range early.lines("lifecycle " + short(id)) {
					got = append(got, strings.Fields(l)[2])
				}
				if want := []string{"created", "started", "died", "removed"}; !slices.Equal(got, want) {
					t.Errorf("told %q, want %q", got, want)
				}
			}
		})
	}
}

// runPods runs a pod with a network and a container, and one without.
func runPods(t *testing.T, c *env.CRI) (pod *env.Pod, app string, host *env.Pod) {
	t.Helper()
	config := env.WithNetwork(c.PodConfig("wired"))
	config.PortMappings = []*cri.PortMapping{{Protocol: cri.Protocol_UDP, ContainerPort: 53}}
	config.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1Mi", "example.org/of": "the pod"}
	pod, err := c.RunPod(t.Context(), config)
	must(t, err)
	in := pod.ContainerConfig("app", env.BusyboxImage, "sleep", "1000")
	in.Metadata.Attempt = 3
	in.Annotations = map[string]string{annotationPorts: `[{"name":"http","containerPort":8080,"protocol":"TCP"}]`}
	in.Envs = []*cri.KeyValue{{Key: "TOKEN", Value: "hidden"}}
	in.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 256, MemoryLimitInBytes: 32 << 20}
	in.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
	app, err = c.RunContainer(t.Context(), pod, in)
	must(t, err)
	host, err = c.RunPod(t.Context(), c.PodConfig("host"))
	must(t, err)
	return pod, app, host
}

func checkPod(t *testing.T, r *recorder, pod *env.Pod, app string, host *env.Pod) {
	t.Helper()
	own, got := r.container(pod.ID), r.container(app)
	busybox, _, _ := strings.Cut(env.BusyboxImage, ":")
	pause, _, _ := strings.Cut(env.PauseImage, ":")
	uid := pod.Config.Metadata.Uid
	for what, ok := range map[string]bool{
		"name of the sandbox":     own.Name == "POD" && own.KubernetesName == "POD",
		"type of the sandbox":     own.Type == "sandbox" && own.SandboxId == pod.ID,
		"pod of the sandbox":      own.PodUid == uid,
		"image of the sandbox":    own.Image.Name == pause,
		"network of the sandbox":  len(own.Networks) == 1 && own.Networks[0].Name == "eth0" && len(own.Networks[0].Ips) == 1 && own.Networks[0].InterfaceMac != "" && own.Networks[0].Gateway != "",
		"ports of the sandbox":    len(own.Ports) == 1 && own.Ports[0].ContainerPort == 53 && own.Ports[0].Protocol == "udp",
		"hostname of the sandbox": own.Hostname == "wired",
		"bandwidth":               own.Limits.GetNetwork().GetIngressBitsPerSecond() == 10_000_000 && own.Limits.GetNetwork().GetEgressBitsPerSecond() == 1<<20,
		"pod's annotations":       own.Annotations["example.org/of"] == "the pod",
		"pod's labels":            own.Labels["io.kubernetes.pod.name"] == "wired",
		"name":                    got.Name == "app" && got.KubernetesName == "app" && got.Scope == "",
		"type":                    got.Type == "",
		"pod":                     got.PodUid == uid && got.SandboxId == pod.ID,
		"image":                   got.Image.Name == busybox && got.Image.Tag == "test" && strings.HasPrefix(got.Image.Id, "sha256:") && strings.HasPrefix(got.Image.Digest, "sha256:"),
		"attempts":                got.GetRestartCount() == 3,
		"ports":                   len(got.Ports) == 1 && got.Ports[0].ContainerPort == 8080 && got.Ports[0].Protocol == "tcp",
		"network":                 got.NetworkMode == "container:"+pod.ID && len(got.Networks) == 0,
		"limits":                  got.Limits.GetMemoryBytes() == 32<<20 && got.Limits.GetCpuShares() == 256,
		"user":                    got.Security.GetUser() == "1000:0" && !got.Security.GetPrivileged(),
		"environment":             len(got.Env) == 0,
		"cgroup":                  strings.HasPrefix(got.CgroupPath, pod.Config.Linux.CgroupParent+"/") && strings.HasSuffix(cgroupOf(t, got.Pid), got.CgroupPath),
		"network of the host":     r.container(host.ID).GetNetworkMode() == "host" && len(r.container(host.ID).GetNetworks()) == 0,
		"nothing cut":             len(got.Truncated)+len(own.Truncated) == 0,
	} {
		if !ok {
			t.Errorf("%s is wrong", what)
		}
	}
}

func TestDetectTellsAbsentFromThere(t *testing.T) {
	c := defaults()
	c.Address = "unix://" + t.TempDir() + "/none.sock"
	d, err := newDiscoverer(c, "", nil, slog.Default())
	must(t, err)
	if _, err := d.Detect(t.Context()); !errors.Is(err, discover.ErrAbsent) {
		t.Errorf("no socket: %v", err)
	}
	real := env.StartContainerd(t)
	d, err = newDiscoverer(configFor(real), "", nil, slog.Default())
	must(t, err)
	if detail, err := d.Detect(t.Context()); err != nil || !strings.HasPrefix(detail, "containerd ") {
		t.Errorf("a socket: %q, %v", detail, err)
	}
}
