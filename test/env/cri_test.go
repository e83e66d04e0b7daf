package env

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// criServer is a runtime that serves the CRI.
type criServer struct {
	client *CRI
	state  *state
	netns  string
	close  func(*testing.T)
}

// criServers are the runtimes that do.
var criServers = []struct {
	name  string
	start func(t *testing.T) criServer
}{
	{"containerd of the distribution", func(t *testing.T) criServer { return criContainerd(t, WithCRI(), WithBridge()) }},
	{"containerd of the second major version", func(t *testing.T) criServer {
		return criContainerd(t, WithContainerd2(), WithCRI(), WithBridge())
	}},
	{"CRI-O", func(t *testing.T) criServer {
		c := StartCRIO(t, WithBridge())
		return criServer{c.CRI(), c.state, c.Netns(), func(t *testing.T) { closeWithTest(t, c.Close) }}
	}},
}

func criContainerd(t *testing.T, opts ...Option) criServer {
	c := StartContainerd(t, opts...)
	return criServer{c.CRI(), c.state, c.Netns(), func(t *testing.T) { closeWithTest(t, c.Close) }}
}

// cgroupOf is a process's cgroup on the default hierarchy.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	t.Fatalf("process %d is in no cgroup of the default hierarchy: %s", pid, text)
	return ""
}

func TestTheCRIRunsPodsAndNothingIsLeftAfterClose(t *testing.T) {
	for _, kind := range criServers {
		t.Run(kind.name, func(t *testing.T) {
			watch(t)
			s := kind.start(t)
			c, ctx := s.client, t.Context()

			pod, err := c.RunPod(ctx, c.PodConfig("first"))
			if err != nil {
				t.Fatal(err)
			}
			short, err := c.RunContainer(ctx, pod, pod.ContainerConfig("short", NoopImage, "an-argument"))
			if err != nil {
				t.Fatal(err)
			}
			if code, err := c.WaitExited(ctx, short); err != nil || code != 0 {
				t.Errorf("the short container ended with status %d (%v)", code, err)
			}
			if err := c.RemoveContainer(ctx, short); err != nil {
				t.Error(err)
			}
			app, err := c.RunContainer(ctx, pod, pod.ContainerConfig("app", BusyboxImage, "sleep", "1000"))
			if err != nil {
				t.Fatal(err)
			}
			if out, err := c.Exec(ctx, app, "echo", "from a container"); err != nil || out != "from a container" {
				t.Errorf("the container printed %q (%v)", out, err)
			}
			r, err := c.Inspect(ctx, app)
			if err != nil {
				t.Fatal(err)
			}
			var info struct {
				PID int `json:"pid"`
			}
			if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.PID == 0 {
				t.Fatalf("the runtime tells no pid in %v (%v)", r.GetInfo(), err)
			}
			group := cgroupOf(t, info.PID)
			if want := pod.Config.GetLinux().GetCgroupParent() + "/"; !strings.HasPrefix(group, want) || !strings.Contains(group, app) {
				t.Errorf("the container's cgroup is %s, want one of its id %s below %s", group, app, want)
			}
			if r.GetStatus().GetLabels()["io.kubernetes.pod.name"] != "first" {
				t.Errorf("the container's labels are %v", r.GetStatus().GetLabels())
			}

			wired, err := c.RunPod(ctx, WithNetwork(c.PodConfig("wired")))
			if err != nil {
				t.Fatal(err)
			}
			status, err := c.InspectPod(ctx, wired)
			if err != nil || status.GetStatus().GetNetwork().GetIp() == "" {
				t.Errorf("the pod with a network has no address: %v (%v)", status, err)
			}
			if err := c.RemovePod(ctx, wired); err != nil {
				t.Error(err)
			}
			left, err := c.RunPod(ctx, WithNetwork(c.PodConfig("left")))
			if err != nil {
				t.Fatal(err)
			}
			ids, sockets := s.state.containerIDs(), s.state.shimSockets()
			for _, id := range []string{pod.ID, app, left.ID} {
				if !slices.Contains(ids, id) {
					t.Errorf("the record knows containers %v, want %s among them", ids, id)
				}
			}
			s.close(t)
			checkGone(t, s.state, ids, sockets)
		})
	}
}
