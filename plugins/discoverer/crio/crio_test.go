package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func followed(t *testing.T, socket string) Config {
	t.Helper()
	t.Setenv("CONTAINER_RUNTIME_ENDPOINT", "")
	c := defaults()
	c.Endpoint = "unix://" + socket
	return c
}

// runPod runs a pod that is gone with the test.
func runPod(t *testing.T, c *env.CRI, config *cri.PodSandboxConfig) *env.Pod {
	t.Helper()
	p, err := c.RunPod(t.Context(), config)
	must(t, err)
	return p
}

func runContainer(t *testing.T, c *env.CRI, p *env.Pod, config *cri.ContainerConfig) string {
	t.Helper()
	id, err := c.RunContainer(t.Context(), p, config)
	must(t, err)
	return id
}

// watchCgroups tells a discoverer of the cgroups of pods, as the daemon does with the
// kernel's word.
func watchCgroups(t *testing.T, h *host) {
	t.Helper()
	root := v2root(t)
	var there map[string]bool
	look := func() {
		now := map[string]bool{}
		_ = filepath.WalkDir(filepath.Join(root, "kubepods"), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() { // else it went meanwhile
				now[strings.TrimPrefix(path, root)] = true
			}
			return nil
		})
		for path := range now {
			if there != nil && !there[path] {
				h.cgroup(protov1.CgroupFact_CHANGE_CREATED, path)
			}
		}
		for path := range there {
			if !now[path] {
				h.cgroup(protov1.CgroupFact_CHANGE_REMOVED, path)
			}
		}
		there = now
	}
	look()
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
			look()
		}
	})
	t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
}

func TestARealCRIO(t *testing.T) {
	d := env.StartCRIO(t, env.WithBridge())
	k := d.CRI()
	config := env.WithNetwork(k.PodConfig("before"))
	config.Annotations = map[string]string{"note": "n", "big": strings.Repeat("b", 256<<10)}
	config.Labels["app.example/tier"], config.Labels["secret"] = "web", "x"
	config.PortMappings = []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: 18080, HostIp: "127.0.0.1"}}
	before := runPod(t, k, config)
	app := before.ContainerConfig("app", env.BusyboxImage, "sleep", "1000")
	app.Metadata.Attempt = 2
	app.Command, app.Args = []string{"/bin/sleep"}, []string{"1000"}
	app.Envs = []*cri.KeyValue{{Key: "TOKEN", Value: "hidden"}}
	app.Annotations = map[string]string{annotationPorts: `[{"name":"web","containerPort":80,"protocol":"TCP"}]`, "huge": strings.Repeat("h", 256<<10), "control\x01\x1b[31m": "two\nlines\x7f"}
	app.Mounts = []*cri.Mount{{ContainerPath: "/host-etc", HostPath: "/etc", Readonly: true}}
	app.Linux.Resources = &cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20}
	app.Linux.SecurityContext.ReadonlyRootfs = true
	app.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: 1000}
	app.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 1001}
	running := runContainer(t, k, before, app)
	dead := runContainer(t, k, before, before.ContainerConfig("dead", env.BusyboxImage, "sh", "-c", "exit 7"))
	if code, err := k.WaitExited(t.Context(), dead); err != nil || code != 7 {
		t.Fatal(code, err)
	}

	c := followed(t, d.Socket)
	c.LabelsExclude = []string{"secret"}
	r, h := start(t, c, &protov1.Node{Name: "node", CgroupRoot: v2root(t)})
	watchCgroups(t, h)
	r.wait("the snapshot", synced(1))

	t.Run("a container that ran before is described whole", func(t *testing.T) {
		got := r.container(running)
		if got == nil {
			t.Fatal("not there")
		}
		for what, ok := range map[string]bool{
			"names":          got.Name == "app" && got.KubernetesName == "app" && got.PodUid == config.Metadata.Uid && got.SandboxId == before.ID,
			"image":          got.Image.Name+":"+got.Image.Tag == env.BusyboxImage && strings.HasPrefix(got.Image.Id, "sha256:") && strings.HasPrefix(got.Image.Digest, "sha256:"),
			"runtime":        got.Runtime == "cri-o",
			"state":          got.State == protov1.Container_STATE_RUNNING && got.ExitCode == nil,
			"times":          got.CreatedUnixNano > 0 && got.StartedUnixNano >= got.CreatedUnixNano && got.FinishedUnixNano == 0,
			"labels":         got.Labels["app.example/tier"] == "web" && got.Labels["secret"] == "" && got.Labels[labelContainerName] == "app",
			"annotations":    len(got.Annotations["huge"]) <= 4<<10 && got.Annotations["control\x01\x1b[31m"] == "two\nlines\x7f" && slices.Equal(got.Truncated, []string{"annotations"}),
			"words":          strings.Join(append(slices.Clone(got.Entrypoint), got.Args...), " ") == "/bin/sleep 1000",
			"no environment": len(got.Env) == 0,
			"mounts":         len(got.Mounts) == 1 && got.Mounts[0].Source == "/etc" && got.Mounts[0].Destination == "/host-etc" && got.Mounts[0].GetReadOnly(),
			"ports":          len(got.Ports) == 1 && got.Ports[0].ContainerPort == 80 && got.Ports[0].HostPort == 0,
			"network":        got.NetworkMode == "container:"+before.ID && len(got.Networks) == 1 && len(got.Networks[0].Ips) == 1 && got.Networks[0].InterfaceMac != "" && got.Networks[0].Gateway != "",
			"hostname":       got.Hostname == "before",
			"attempt":        got.GetRestartCount() == 2,
			"cpu":            got.Limits.GetCpuQuotaUs() == 50000 && got.Limits.GetCpuPeriodUs() == 100000 && got.Limits.GetCpuShares() == 512,
			"memory":         got.Limits.GetMemoryBytes() == 64<<20 && got.Limits.GetSwapBytes() == 32<<20,
			"security":       strings.HasPrefix(got.Security.User, "1000") && got.Security.GetReadOnlyRoot() && !got.Security.GetPrivileged(),
			"pid":            got.Pid != 0,
			"cgroup":         got.CgroupPath == config.Linux.CgroupParent+"/crio-"+running && got.CgroupId != 0,
		} {
			if !ok {
				t.Errorf("%s is wrong", what)
			}
		}
		if t.Failed() {
			got.Annotations = nil
			t.Log(got)
		}
	})
	t.Run("its pod, and the pod's own container, are described", func(t *testing.T) {
		p, own := r.pod(config.Metadata.Uid), r.container(before.ID)
		if p.GetName() != "before" || p.Namespace != "default" || p.Node != "node" || p.Phase != "Running" || p.GetHostNetwork() || len(p.Ips) != 1 ||
			p.Labels["app.example/tier"] != "web" || p.Annotations["note"] != "n" || len(p.Annotations["big"]) > 4<<10 || len(p.ContainerIds) != 2 {
			p.Annotations = nil
			t.Error(p)
		}
		if own.GetType() != "sandbox" || own.Name != "POD" || own.Image.GetName()+":"+own.Image.GetTag() != env.PauseImage || own.PodUid != config.Metadata.Uid || own.State != protov1.Container_STATE_RUNNING ||
			len(own.Ports) != 1 || own.Ports[0].HostPort != 18080 || own.Ports[0].Protocol != "tcp" || len(own.Networks) != 1 || own.Networks[0].Ips[0] != p.Ips[0] {
			own.Annotations = nil
			t.Error(own)
		}
	})
	t.Run("a container that ended before has its exit code", func(t *testing.T) {
		got := r.container(dead)
		if got.State != protov1.Container_STATE_EXITED || got.GetExitCode() != 7 || got.Pid != 0 || got.FinishedUnixNano == 0 || got.GetOomKilled() {
			t.Error(got)
		}
	})
	t.Run("the life of a container is told in order", func(t *testing.T) { testLife(t, r, k, before) })
	t.Run("a crowd of pods is told from first to last", func(t *testing.T) { testCrowd(t, r, k, false) })
	t.Run("a container that the kernel ends for its memory is told", func(t *testing.T) {
		config := before.ContainerConfig("hungry", env.BusyboxImage, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=128M count=1; sleep 1")
		config.Linux.Resources = &cri.LinuxContainerResources{MemoryLimitInBytes: 16 << 20, MemorySwapLimitInBytes: 16 << 20}
		id := runContainer(t, k, before, config)
		r.wait("an end", inState(id, protov1.Container_STATE_EXITED))
		st, err := k.Inspect(t.Context(), id)
		must(t, err)
		if oom := st.Status.Reason == "OOMKilled"; r.container(id).GetOomKilled() != oom || (len(r.lines("lifecycle "+short(id)+" oom")) > 0) != oom {
			t.Errorf("CRI-O says %q; told %v, %q", st.Status.Reason, r.container(id), r.lines("lifecycle "+short(id)))
		}
	})
}

// testLife follows one container through all that CRI tells of.
func testLife(t *testing.T, r *recorder, k *env.CRI, p *env.Pod) {
	t.Helper()
	id, err := k.CreateContainer(t.Context(), p, p.ContainerConfig("life", env.BusyboxImage, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"))
	must(t, err)
	r.wait("created", inState(id, protov1.Container_STATE_CREATED))
	must(t, k.StartContainer(t.Context(), id))
	r.wait("running, with its pid", func(r *recorder) bool {
		return inState(id, protov1.Container_STATE_RUNNING)(r) && r.containers[id].Pid != 0
	})
	must(t, k.StopContainer(t.Context(), id, 10*time.Second))
	r.wait("exited", inState(id, protov1.Container_STATE_EXITED))
	r.wait("its code", func(r *recorder) bool { return r.containers[id].ExitCode != nil })
	code := r.container(id).GetExitCode()
	must(t, k.RemoveContainer(t.Context(), id))
	r.wait("removed", func(r *recorder) bool { return r.containers[id] == nil })
	want := []string{"created", "started", fmt.Sprintf("died exit_code=%d", code), "removed"}
	got := r.lines("lifecycle " + short(id))
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], "lifecycle "+short(id)+" ")
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// testCrowd runs pods with a container that does nothing, and removes them at once.
func testCrowd(t *testing.T, r *recorder, k *env.CRI, polled bool) {
	t.Helper()
	const n = 12
	r.mu.Lock()
	pods, containers := len(r.pods), len(r.containers)
	r.mu.Unlock()
	var wg sync.WaitGroup
	sem := make(chan struct{}, 4)
	for i := range n {
		wg.Go(func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			config := k.PodConfig(fmt.Sprintf("short-%d", i))
			p, err := k.RunPod(t.Context(), config)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := k.RunContainer(t.Context(), p, p.ContainerConfig("noop", env.NoopImage)); err != nil {
				t.Error(err)
			}
			if err := k.RemovePod(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r.wait("all are gone", func(r *recorder) bool { return len(r.pods) == pods && len(r.containers) == containers })
	for i := range n {
		// One that lives between two lists is seen by its containers' cgroups alone.
		if !polled && len(r.lines("pod ", fmt.Sprintf(" short-%d ", i))) == 0 {
			t.Errorf("pod short-%d was not told", i)
		}
	}
	named := r.lines("container ", " noop ")
	ids := map[string]bool{}
	for _, l := range named {
		ids[strings.Fields(l)[1]] = true
	}
	if len(ids) != n {
		t.Errorf("%d containers were named", len(ids))
	}
	for id := range ids {
		life := r.lines("lifecycle " + id)
		if polled && len(life) == 0 {
			continue // the same
		}
		if len(life) < 2 || !strings.HasSuffix(life[0], "created") || !strings.HasSuffix(life[len(life)-1], "removed") {
			t.Errorf("%s: %q", id, life)
		}
	}
}

func TestARealCRIOWithoutPodEvents(t *testing.T) {
	d := env.StartCRIO(t, env.WithArgs("--enable-pod-events=false"))
	k := d.CRI()
	c := followed(t, d.Socket)
	r, h := start(t, c, &protov1.Node{CgroupRoot: v2root(t)})
	watchCgroups(t, h)
	r.wait("the snapshot", synced(1))
	p := runPod(t, k, k.PodConfig("listed"))
	r.wait("its pod", func(r *recorder) bool { return r.pods[p.Config.Metadata.Uid] != nil })
	testLife(t, r, k, p)
	testCrowd(t, r, k, true)
}

func TestARealContainerdsCRI(t *testing.T) {
	for name, opts := range map[string][]env.Option{"1": nil, "2": {env.WithContainerd2()}} {
		t.Run(name, func(t *testing.T) {
			d := env.StartContainerd(t, append(opts, env.WithCRI())...)
			k := d.CRI()
			config := k.PodConfig("before")
			config.Linux.SecurityContext.Privileged = true
			before := runPod(t, k, config)
			app := before.ContainerConfig("app", env.BusyboxImage, "sleep", "1000")
			app.Linux.SecurityContext.Privileged = true
			running := runContainer(t, k, before, app)
			r, h := start(t, followed(t, d.Socket), &protov1.Node{CgroupRoot: v2root(t)})
			watchCgroups(t, h)
			r.wait("the snapshot", synced(1))
			got, own, p := r.container(running), r.container(before.ID), r.pod(before.Config.Metadata.Uid)
			if got.GetName() != "app" || got.Runtime != "containerd" || got.Image.Name+":"+got.Image.Tag != env.BusyboxImage || got.Pid == 0 || !got.Security.GetPrivileged() ||
				got.CgroupPath != before.Config.Linux.CgroupParent+"/"+running || got.CgroupId == 0 || got.NetworkMode != "host" || got.PodUid != before.Config.Metadata.Uid {
				t.Error(got)
			}
			if own.GetType() != "sandbox" || own.Image.GetName()+":"+own.Image.GetTag() != env.PauseImage || own.Pid == 0 {
				t.Error(own)
			}
			if p.GetName() != "before" || !p.GetHostNetwork() || len(p.ContainerIds) != 1 {
				t.Error(p)
			}
			testLife(t, r, k, before)
			testCrowd(t, r, k, name == "1")
		})
	}
}

func TestACRIOThatComesAndGoes(t *testing.T) {
	dir := t.TempDir()
	socket := dir + "/crio.sock"
	c := followed(t, socket)
	c.Timeout = time.Second
	r, h := start(t, c, &protov1.Node{CgroupRoot: v2root(t)})
	watchCgroups(t, h)
	r.wait("word of its absence", func(r *recorder) bool { return strings.HasPrefix(r.reason, "no container runtime at "+socket) })

	d := env.StartCRIO(t, env.WithSocket(socket))
	k := d.CRI()
	r.wait("a snapshot once it is there", synced(1))
	p := runPod(t, k, k.PodConfig("stays"))
	id := runContainer(t, k, p, p.ContainerConfig("app", env.BusyboxImage, "sleep", "1000"))
	r.wait("a container", inState(id, protov1.Container_STATE_RUNNING))

	must(t, d.Kill(t.Context()))
	r.wait("word of its death", func(r *recorder) bool { return r.reason != "" })
	if r.container(id) == nil || r.pod(p.Config.Metadata.Uid) == nil {
		t.Error("the container was forgotten with its daemon")
	}
	must(t, d.Start(t.Context()))
	r.wait("a second snapshot", synced(2))
	if got := r.container(id); got == nil || got.State != protov1.Container_STATE_RUNNING || got.Name != "app" {
		t.Errorf("after the restart: %v", got)
	}

	syncs := func() int { r.mu.Lock(); defer r.mu.Unlock(); return r.syncs }()
	must(t, d.Pause())
	r.wait("word of its silence", func(r *recorder) bool { return strings.Contains(r.reason, "does not answer within 1s") })
	must(t, d.Resume())
	r.wait("another snapshot", synced(syncs+1))
	must(t, k.RemovePod(t.Context(), p))
	r.wait("the removal of its containers", func(r *recorder) bool { return r.containers[id] == nil })
	if life := r.lines("lifecycle " + short(id)); len(r.lines("lifecycle", short(id), "created")) != 1 || len(r.lines("lifecycle", short(id), "started")) != 1 {
		t.Errorf("told %q", life)
	}
	t.Log(strings.Join(r.lines("degraded"), "\n"))
}

func TestDetectTellsAbsentFromThere(t *testing.T) {
	c := defaults()
	c.Endpoint = "unix://" + t.TempDir() + "/none.sock"
	d, err := newDiscoverer(c, "", nil, slog.Default())
	must(t, err)
	if _, err := d.Detect(t.Context()); !errors.Is(err, discover.ErrAbsent) {
		t.Errorf("no socket: %v", err)
	}
	c.Endpoint = "unix://" + startOther(t)
	d, err = newDiscoverer(c, "", nil, slog.Default())
	must(t, err)
	if _, err := d.Detect(t.Context()); !errors.Is(err, discover.ErrAbsent) {
		t.Errorf("a socket of something else: %v", err)
	}
	s := (&scripted{name: "CRI-O"}).start(t)
	c.Endpoint = "unix://" + s.socket
	d, err = newDiscoverer(c, "", nil, slog.Default())
	must(t, err)
	if detail, err := d.Detect(t.Context()); err != nil || !strings.HasPrefix(detail, "cri-o 9 at ") {
		t.Errorf("a socket: %q, %v", detail, err)
	}
	s.silent(func(string) bool { return true })
	defer s.silent(func(string) bool { return false })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := d.Detect(ctx); err == nil || errors.Is(err, discover.ErrAbsent) || ctx.Err() != nil {
		t.Errorf("one that does not answer: %v", err)
	}
}
