package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// The daemon as it ships, with this plugin, names the first process of each container:
// that of the application, which lives some milliseconds, and that of the sandbox. A
// containerd tells nobody of a sandbox before its process runs, and nothing of it in the
// cgroup's name but the id: whether that is in time is the machine's to say.
func TestTheFirstExecOfEachPodIsNamed(t *testing.T) {
	crio := func(opts ...env.Option) func(t *testing.T) (*env.CRI, string) {
		return func(t *testing.T) (*env.CRI, string) {
			d := env.StartCRIO(t, opts...)
			return d.CRI(), d.Socket
		}
	}
	containerd := func(opts ...env.Option) func(t *testing.T) (*env.CRI, string) {
		return func(t *testing.T) (*env.CRI, string) {
			d := env.StartContainerd(t, append(opts, env.WithCRI())...)
			return d.CRI(), d.Socket
		}
	}
	for _, tt := range []struct {
		name      string
		start     func(t *testing.T) (*env.CRI, string)
		pods      int
		sandboxes bool
	}{
		{"CRI-O", crio(), 50, true},
		{"CRI-O without events", crio(env.WithArgs("--enable-pod-events=false")), 20, true},
		{"containerd 1 which sends none", containerd(), 20, false},
		{"containerd 2", containerd(env.WithContainerd2()), 50, false},
	} {
		t.Run(tt.name, func(t *testing.T) { testFirstExecs(t, tt.start, tt.pods, tt.sandboxes) })
	}
}

func testFirstExecs(t *testing.T, start func(t *testing.T) (*env.CRI, string), pods int, sandboxes bool) {
	const atOnce = 4
	k, socket := start(t)
	tr := harness.Start(t, fmt.Sprintf("probe \"process\" {}\ndiscoverer \"crio\" { endpoint = \"unix://%s\" }", socket))
	mine := fmt.Sprintf("crio-%d-%d-", os.Getpid(), time.Now().UnixNano())
	all, containers := make([]*env.Pod, pods), make([]string, pods)
	var running errgroup.Group
	running.SetLimit(atOnce)
	for i := range pods {
		running.Go(func() (err error) {
			config := k.PodConfig(fmt.Sprintf("%s%d", mine, i))
			// For one process namespace CRI-O runs the sandbox's own container too.
			config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
			if all[i], err = k.RunPod(t.Context(), config); err != nil {
				return err
			}
			containers[i], err = k.RunContainer(t.Context(), all[i], all[i].ContainerConfig("noop", env.NoopImage, fmt.Sprintf("%s%d", mine, i)))
			return err
		})
	}
	if err := running.Wait(); err != nil {
		t.Fatal(err)
	}
	isNoop := func(e *harness.Event) bool {
		return e.Process.VPID != 0 && e.Process.Executable.Path == "/noop" && len(e.Process.Args) == 2 && strings.HasPrefix(e.Process.Args[1], mine)
	}
	tr.UntilCount(pods, "process.exec", isNoop)
	for _, p := range all {
		must(t, k.RemovePod(t.Context(), p))
	}
	tr.Stop()

	noops := map[string]*harness.Event{}
	for _, e := range harness.Select(tr.Events(), "process.exec", isNoop) {
		noops[e.Process.Args[1]] = e
	}
	pauses := map[string]*harness.Event{} // by container
	for _, e := range harness.Select(tr.Events(), "process.exec", func(e *harness.Event) bool { return e.Process.Executable.Path == "/pause" && e.Container != nil }) {
		pauses[e.Container.ID] = e
	}
	named, early := 0, 0
	for i, p := range all {
		name := p.Config.Metadata.Name
		if why := unlike(noops[name], containers[i], "noop", env.NoopImage, p); why != "" {
			t.Errorf("the first exec of the container of %s: %s", name, why)
		} else {
			named++
		}
		if why := unlike(pauses[p.ID], p.ID, "POD", env.PauseImage, p); why == "" {
			early++
		} else if sandboxes {
			t.Errorf("the first exec of the sandbox of %s: %s", name, why)
		}
	}
	t.Logf("of %d pods, the first execs of %d containers and of %d sandboxes are named", pods, named, early)
}

// unlike tells in what the first exec of a container is not told as it should be.
func unlike(e *harness.Event, id, name, image string, p *env.Pod) string {
	if e == nil {
		return "not told, or of no container"
	}
	c := e.Container
	repository, tag, _ := strings.Cut(image, ":")
	if c == nil || e.Pending || c.Stale || c.ID != id || c.Name != name || c.Image == nil || c.Image.Name != repository || !slices.Equal(c.Image.Tags, []string{tag}) ||
		!strings.Contains(e.Line, `"pod":{"name":"`+p.Config.Metadata.Name+`"`) {
		return "told as " + e.Line
	}
	return ""
}
