package main

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	created = protov1.Container_STATE_CREATED
	running = protov1.Container_STATE_RUNNING
	paused  = protov1.Container_STATE_PAUSED
	exited  = protov1.Container_STATE_EXITED
)

func node(t *testing.T) *protov1.Node { return &protov1.Node{CgroupRoot: v2root(t)} }

func TestTheLifeOfAContainerOfRunc(t *testing.T) {
	b := startBare(t, "runc")
	c := defaults(b.root)
	c.Env, c.LabelsExclude = true, []string{"secret"}
	r, _ := start(t, c, node(t))
	r.wait("the snapshot", synced(1))

	limit, reservation, swap, quota, shares, period, pids := int64(64<<20), int64(32<<20), int64(96<<20), int64(50_000), uint64(512), uint64(100_000), int64(77)
	dir := b.bundle("life", func(s *specs.Spec) {
		s.Annotations = map[string]string{"team": "a=b", "secret": "x", "org.opencontainers.image.ref.name": "r.example/app:1"}
		s.Hostname = "h1"
		s.Process.Env = []string{"PATH=/bin", "API_TOKEN=x"}
		s.Process.User = specs.User{UID: 1000, GID: 100}
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_CHOWN")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "bind", Source: "/etc", Options: []string{"rbind", "ro"}})
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &limit, Reservation: &reservation, Swap: &swap}, Pids: &specs.LinuxPids{Limit: &pids},
			CPU: &specs.LinuxCPU{Quota: &quota, Shares: &shares, Period: &period, Cpus: "0"},
		}
		s.Linux.CgroupsPath = "/oci-test-elsewhere"
	}, "sleep", "1000")
	b.call("create", "--bundle", dir, "life")
	r.wait("the container", inState("life", created))
	got := r.container("life")
	t.Log(got)
	want := map[string]bool{
		"who it is":   got.Name == "life" && got.Scope == "oci:"+b.root && got.Runtime == "oci",
		"image":       got.Image.GetName() == "r.example/app" && got.Image.GetTag() == "1",
		"times":       got.CreatedUnixNano != 0 && got.StartedUnixNano == 0 && got.FinishedUnixNano == 0,
		"annotations": len(got.Annotations) == 2 && got.Annotations["team"] == "a=b",
		"words":       slices.Equal(got.Args, []string{"sleep", "1000"}),
		"environment": slices.Equal(got.Env, []string{"PATH=/bin"}),
		"mounts":      len(got.Mounts) == 1 && got.Mounts[0].Source == "/etc" && got.Mounts[0].Destination == "/mnt" && got.Mounts[0].GetReadOnly(),
		"hostname":    got.Hostname == "h1",
		"cpu":         got.Limits.GetCpuQuotaUs() == quota && got.Limits.GetCpuPeriodUs() == 100_000 && got.Limits.GetCpuShares() == 512 && got.Limits.Cpuset == "0",
		"memory":      got.Limits.GetMemoryBytes() == limit && got.Limits.GetSwapBytes() == 32<<20 && got.Limits.GetMemoryReservationBytes() == reservation,
		"pids":        got.Limits.GetPids() == 77,
		"ulimits":     len(got.Limits.Ulimits) == 1 && got.Limits.Ulimits[0].Name == "nofile",
		"security": got.Security.User == "1000:100" && got.Security.GetReadOnlyRoot() && !got.Security.GetPrivileged() && got.Security.Seccomp == "unconfined" &&
			slices.Equal(got.Security.CapabilitiesAdded, []string{"CHOWN"}) && len(got.Security.CapabilitiesDropped) == 0,
		"process":     got.Pid != 0,
		"cgroup":      got.CgroupPath == "/oci-test-elsewhere" && got.CgroupId == inodeOf(t, path.Join(v2root(t), "oci-test-elsewhere")),
		"nothing cut": len(got.Truncated) == 0,
		"no exit":     got.ExitCode == nil && got.OomKilled == nil,
	}
	for what, ok := range want {
		if !ok {
			t.Errorf("%s is wrong", what)
		}
	}
	b.call("start", "life")
	r.wait("its start", inState("life", running))
	if got := r.container("life"); got.StartedUnixNano < got.CreatedUnixNano {
		t.Errorf("created %d, started %d", got.CreatedUnixNano, got.StartedUnixNano)
	}
	b.call("pause", "life")
	r.wait("its pause", inState("life", paused))
	b.call("resume", "life")
	r.wait("that it runs again", inState("life", running))
	b.call("update", "--pids-limit", "55", "life")
	r.wait("its new limit", func(r *recorder) bool { return r.containers["life"].GetLimits().GetPids() == 55 })
	if got := r.container("life"); len(got.Limits.Ulimits) != 1 || got.Security.User != "1000:100" {
		t.Errorf("an update took away what the bundle says: %v", got)
	}
	b.call("kill", "life", "KILL")
	r.wait("its end", inState("life", exited))
	if got := r.container("life"); got.Pid != 0 || got.FinishedUnixNano < got.StartedUnixNano || got.CgroupId == 0 {
		t.Errorf("it has ended, and is %v", got)
	}
	b.call("delete", "life")
	r.wait("its removal", removed("life"))
	if got, want := r.words("life"), []string{"created", "started", "paused", "unpaused", "died", "removed"}; !slices.Equal(got, want) {
		t.Errorf("what happened is %q, want %q", got, want)
	}
}

func TestContainersOfBeforeAreASnapshot(t *testing.T) {
	b := startBare(t, "runc")
	b.run("runs", nil, "sleep", "1000")
	b.run("ended", nil, "true")
	b.call("create", "--bundle", b.bundle("waits", nil, "sleep", "1000"), "waits")
	b.run("stopped", nil, "sleep", "1000")
	b.call("pause", "stopped")
	for _, id := range []string{"runs", "waits"} {
		// Bundles that are gone, or not shown to the plugin.
		if err := os.RemoveAll(path.Join(b.bundles, id)); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]Config{"by its cgroups": defaults(b.root), "by its processes": func() Config { c := defaults(b.root); c.Proc = "/proc"; return c }()} {
		t.Run(what, func(t *testing.T) {
			r, _ := start(t, c, node(t))
			r.wait("the snapshot", synced(1))
			for id, state := range map[string]protov1.Container_State{"runs": running, "ended": exited, "waits": created, "stopped": paused} {
				got := r.container(id)
				if got.GetState() != state || (got.GetPid() != 0) != (state != exited) || got.GetCgroupPath() == "" {
					t.Errorf("%s is %v", id, got)
				}
				if w := r.words(id); len(w) != 0 {
					t.Errorf("%s: what happened before is told: %q", id, w)
				}
			}
			if c.Proc != "" {
				r.wait("arguments of a process", func(r *recorder) bool { return slices.Equal(r.containers["runs"].Args, []string{"sleep", "1000"}) })
			}
			if got := r.container("runs"); c.Proc == "" && len(got.Args) != 0 || got.Security.User != "" || got.Limits.GetPids() != -1 ||
				!slices.Equal(got.Security.CapabilitiesAdded, nil) || !got.Security.GetReadOnlyRoot() {
				t.Errorf("without its bundle it is %v", got)
			}
		})
	}
}

// shortLife checks what is told of a container that lived for some milliseconds: all of it,
// which it counts as 1, or no more than that there was one, where its life was over before its
// state could be read.
func shortLife(t *testing.T, r *recorder, id string) int {
	t.Helper()
	switch got := strings.Join(r.words(id), " "); got {
	case "created started died removed":
		return 1
	case "created removed":
	default:
		t.Errorf("what happened to %s is %q", id, got)
	}
	return 0
}

// The cgroup of a container is called like anything; its first process lives for some
// milliseconds.
func TestEveryCgroupIsAnsweredFor(t *testing.T) {
	b := startBare(t, "runc")
	r, host := start(t, defaults(b.root), node(t))
	r.wait("the snapshot", synced(1))
	k := followKernel(t, host, "")
	whole := 0
	const n = 20
	for i := range n {
		id := fmt.Sprintf("web-%d", i)
		change := func(s *specs.Spec) {
			if i%2 == 1 {
				s.Linux.CgroupsPath = fmt.Sprintf("/oci-test-other-%d", i)
			}
		}
		b.call("run", "--bundle", b.bundle(id, change, "true"), id)
	}
	for i := range n {
		id := fmt.Sprintf("web-%d", i)
		at := "/" + id
		if i%2 == 1 {
			at = fmt.Sprintf("/oci-test-other-%d", i)
		}
		r.wait("the removal of "+id, removed(id))
		cgroup := k.id(at)
		if cgroup == 0 {
			t.Errorf("no cgroup %s was made", at)
			continue
		}
		r.answered(cgroup)
		if name, _ := r.answer(cgroup); name != id {
			t.Errorf("the cgroup of %s is said to be of %q", id, name)
		}
		whole += shortLife(t, r, id)
	}
	if whole == 0 {
		t.Error("of none is told that it started and died")
	}
	t.Run("and of those that are no container's", func(t *testing.T) {
		b.run("sleeps", nil, "sleep", "1000")
		r.wait("the container", inState("sleeps", running))
		for _, name := range []string{"oci-test-plain", "oci-test-" + strings.Repeat("ab", 32) + ".scope", "sleeps/below", "oci-test-web-99.scope"} {
			id, _ := makeCgroup(t, name)
			host.created(id, "/"+name)
			r.answered(id)
			if got, _ := r.answer(id); got != "" {
				t.Errorf("%s is said to be of %q", name, got)
			}
		}
	})
}

func TestWhatIsThereWhenAListComesIsAnswered(t *testing.T) {
	b := startBare(t, "runc")
	b.run("listed", nil, "sleep", "1000")
	r, host := start(t, defaults(b.root), node(t))
	r.wait("the snapshot", synced(1))
	id := inodeOf(t, path.Join(v2root(t), "listed"))
	for range 2 { // the daemon lists again when it has lost something
		before := len(r.lines("container"))
		host.cgroup(protov1.CgroupFact_CHANGE_PRESENT, id, "/listed")
		r.wait("an answer", func(*recorder) bool { return true })
		host.cgroup(protov1.CgroupFact_CHANGE_PRESENT, 1, "/")
		r.answered(1)
		if after := len(r.lines("container")); after != before+1 {
			t.Errorf("%d descriptions were told", after-before)
		}
	}
	if got := r.container("listed"); got.CgroupId != id || !proto.Equal(got, r.container("listed")) {
		t.Errorf("it is %v", got)
	}
}

// Another is created while the cgroup of one that has ended keeps its path.
func TestTwoContainersWithOneCgroupPath(t *testing.T) {
	b := startBare(t, "runc")
	at := func(s *specs.Spec) { s.Linux.CgroupsPath = "/oci-test-shared" }
	r, host := start(t, defaults(b.root), node(t))
	r.wait("the snapshot", synced(1))
	b.run("first", at, "sleep", "1000")
	r.wait("the first", inState("first", running))
	b.call("kill", "first", "KILL")
	r.wait("its end", inState("first", exited))
	old := r.container("first").CgroupId
	if err := removeCgroup(path.Join(v2root(t), "oci-test-shared")); err != nil {
		t.Fatal(err)
	}
	host.cgroup(protov1.CgroupFact_CHANGE_REMOVED, old, "/oci-test-shared")
	k := followKernel(t, host, "")
	b.run("second", at, "sleep", "1000")
	r.wait("the second", inState("second", running))
	r.wait("that the path is the second's alone", func(r *recorder) bool {
		return r.containers["second"].GetCgroupPath() == "/oci-test-shared" && r.containers["first"].GetCgroupPath() == ""
	})
	id := k.id("/oci-test-shared")
	r.answered(id)
	if got, _ := r.answer(id); got != "second" || id == old {
		t.Errorf("cgroup %d, after %d, is said to be of %q", id, old, got)
	}
}
