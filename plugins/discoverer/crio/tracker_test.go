package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func defaults() Config {
	return Config{Poll: time.Second, Resync: 30 * time.Second, Timeout: 5 * time.Second, InspectWorkers: 4, FilterConfig: describe.DefaultFilter()}
}

// world is a tracker with a clock that stands still until it is moved.
type world struct {
	*tracker
	*recorder
	time time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{recorder: newRecorder(t), time: time.Unix(1_000_000, 0)}
	w.tracker = newTracker(w.recorder)
	w.tracker.describe = newDescriber(defaults(), &protov1.Node{Name: "node"})
	w.describe.runtime = "cri-o"
	w.tracker.events = true
	w.tracker.now = func() time.Time { return w.time }
	return w
}

// synced gives one whose first snapshot is complete.
func (w *world) synced(t *testing.T, l list) *world {
	t.Helper()
	must(t, w.connected())
	w.beginList()
	must(t, w.listed(l, true))
	w.denyAll(t)
	w.log = nil
	return w
}

// denyAll fails all requests, three times each.
func (w *world) denyAll(t *testing.T) {
	t.Helper()
	for {
		r, ok := w.next()
		if !ok {
			return
		}
		must(t, w.answer(answer{request: r, outcome: failed}))
	}
}

// answerAll answers all requests by what is there, beside the sandbox "pod".
func (w *world) answerAll(t *testing.T, truth map[string]cri.ContainerState) {
	t.Helper()
	for {
		r, ok := w.next()
		if !ok {
			return
		}
		must(t, w.answer(w.truly(r, truth)))
	}
}

// truly is the answer to a request of a runtime that has these containers.
func (w *world) truly(r request, truth map[string]cri.ContainerState) answer {
	if r.id == "pod" {
		return answer{request: r, sandbox: w.describe.sandbox(podOf("pod")), container: w.describe.sandboxContainer(podOf("pod"))}
	}
	if s, there := truth[r.id]; there {
		return w.full(r, s)
	}
	return answer{request: r, outcome: notThere}
}

// asks gives the next request, which must be about id.
func (w *world) asks(t *testing.T, id string) request {
	t.Helper()
	r, ok := w.next()
	if !ok || r.id != id {
		t.Fatalf("asks %v %v, want %s", r, ok, id)
	}
	return r
}

func (w *world) asksNothing(t *testing.T) {
	t.Helper()
	if r, ok := w.next(); ok {
		t.Errorf("asks for %+v", r)
	}
}

func (w *world) told(t *testing.T, want ...string) {
	t.Helper()
	if got := w.taken(); got != strings.Join(want, "; ") {
		t.Errorf("told\n\t%s\nwant\n\t%s", strings.ReplaceAll(got, "; ", "\n\t"), strings.Join(want, "\n\t"))
	}
}

const (
	eventCreated = cri.ContainerEventType_CONTAINER_CREATED_EVENT
	eventStarted = cri.ContainerEventType_CONTAINER_STARTED_EVENT
	eventStopped = cri.ContainerEventType_CONTAINER_STOPPED_EVENT
	eventDeleted = cri.ContainerEventType_CONTAINER_DELETED_EVENT
)

func statusOf(id string, state cri.ContainerState) *cri.ContainerStatus {
	s := &cri.ContainerStatus{Id: id, Metadata: &cri.ContainerMetadata{Name: "n-" + id}, State: state, CreatedAt: 100, Image: &cri.ImageSpec{Image: "img:1"}}
	if state >= cri.ContainerState_CONTAINER_RUNNING {
		s.StartedAt = 200
	}
	if state == cri.ContainerState_CONTAINER_EXITED {
		s.FinishedAt, s.ExitCode = 300, 3
	}
	return s
}

func podOf(id string) *cri.PodSandboxStatus {
	return &cri.PodSandboxStatus{Id: id, Metadata: &cri.PodSandboxMetadata{Name: "pod", Uid: "u-" + id, Namespace: "ns"}, CreatedAt: 50, Network: &cri.PodSandboxNetworkStatus{Ip: "10.0.0.1"},
		Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{}}}}
}

// event of a container in the sandbox "pod".
func event(id string, kind cri.ContainerEventType, state cri.ContainerState) happening {
	h := happening{kind: kind, id: id, at: 999, sandbox: podOf("pod")}
	if kind != eventDeleted {
		h.status = statusOf(id, state)
	}
	return h
}

const (
	isCreated = cri.ContainerState_CONTAINER_CREATED
	isRunning = cri.ContainerState_CONTAINER_RUNNING
	isExited  = cri.ContainerState_CONTAINER_EXITED
)

func row(id string, state cri.ContainerState) *cri.Container {
	return &cri.Container{Id: id, PodSandboxId: "pod", Metadata: &cri.ContainerMetadata{Name: "n-" + id}, State: state, CreatedAt: 100, Image: &cri.ImageSpec{Image: "img:1"}}
}

func podRow(id string) *cri.PodSandbox {
	p := podOf(id)
	return &cri.PodSandbox{Id: id, Metadata: p.Metadata, CreatedAt: p.CreatedAt}
}

// full is an answer about a container that was asked for.
func (w *world) full(r request, state cri.ContainerState) answer {
	c := w.describe.container(statusOf(r.id, state))
	c.SandboxId, c.Hostname = "pod", "answered"
	return answer{request: r, container: c}
}

func TestACreatedEventNamesAContainerAtOnce(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(event("a", eventCreated, isCreated)))
	w.told(t, "pod u-pod pod running 0", "container a n-a created", "lifecycle a created", "pod u-pod pod running 1")
	c := w.container("a")
	if c.Image.GetName() != "img" || c.Image.GetTag() != "1" || c.PodUid != "u-pod" || c.SandboxId != "pod" || c.Runtime != "cri-o" ||
		len(c.Networks) != 1 || c.Networks[0].Ips[0] != "10.0.0.1" || c.NetworkMode != "container:pod" {
		t.Error(c)
	}
	w.asks(t, "a")
}

func TestWhatTheOperatorLeavesOutIsNotToldByThePod(t *testing.T) {
	w := newWorld(t)
	c := defaults()
	c.FieldsExclude, c.LabelsExclude = []string{"networks", "network_mode"}, []string{"secret"}
	w.describe.filter = describe.NewFilter(c.FilterConfig)
	w.synced(t, list{})
	h := event("a", eventCreated, isCreated)
	h.sandbox.Labels = map[string]string{"secret": "x", "app": "y"}
	must(t, w.event(h))
	if c := w.container("a"); c.NetworkMode != "" || c.Networks != nil {
		t.Error(c)
	}
	if p := w.pod("u-pod"); len(p.Labels) != 1 || p.Labels["app"] != "y" {
		t.Error(p)
	}
}

func TestALifeIsToldStepByStep(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	for _, h := range []happening{event("a", eventCreated, isCreated), event("a", eventStarted, isRunning), event("a", eventStopped, isExited), event("a", eventDeleted, 0)} {
		must(t, w.event(h))
	}
	got := w.lines("lifecycle")
	if want := "[lifecycle a created lifecycle a started lifecycle a died exit_code=3 lifecycle a removed]"; fmt.Sprint(got) != want {
		t.Errorf("told %v", got)
	}
	if w.container("a") != nil || len(w.tracker.containers) != 0 {
		t.Error("it is still there")
	}
}

func TestWhatIsTooLateBringsNothingBack(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(event("a", eventCreated, isCreated)))
	r := w.asks(t, "a")
	must(t, w.event(event("a", eventDeleted, 0)))
	w.taken()
	must(t, w.answer(w.full(r, isRunning)))
	must(t, w.event(event("a", eventStopped, isExited)))
	w.beginList()
	must(t, w.listed(list{containers: []*cri.Container{row("a", isRunning)}, sandboxes: []*cri.PodSandbox{podRow("pod")}}, false))
	if got := w.lines(" a "); len(got) > 0 {
		t.Errorf("told %q", got)
	}
}

func TestNoOlderAnswerTakesALifeBack(t *testing.T) {
	const running, ended = protov1.Container_STATE_RUNNING, protov1.Container_STATE_EXITED
	for _, tt := range []struct {
		name     string
		meantime []happening
		answer   cri.ContainerState
		want     protov1.Container_State
	}{
		{"an answer with nothing meanwhile counts whole", nil, isRunning, running},
		{"an answer from before the start", []happening{event("a", eventStarted, isRunning)}, isCreated, running},
		{"an answer from before the end", []happening{event("a", eventStarted, isRunning), event("a", eventStopped, isExited)}, isRunning, ended},
		{"an answer that knows of the end before its event", nil, isExited, ended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t).synced(t, list{})
			must(t, w.event(event("a", eventCreated, isCreated)))
			r := w.asks(t, "a")
			for _, h := range tt.meantime {
				must(t, w.event(h))
			}
			a := w.full(r, tt.answer)
			a.container.Pid = 7
			must(t, w.answer(a))
			c := w.container("a")
			if c.State != tt.want || c.Hostname != "answered" {
				t.Error(c)
			}
			if tt.want == ended && (c.Pid != 0 || c.GetExitCode() != 3 || c.FinishedUnixNano != 300) {
				t.Errorf("after its end: %v", c)
			}
		})
	}
}

func TestLimitsOfAnEventAreNewerThanThoseOfAnAnswerAskedForBefore(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(event("a", eventCreated, isCreated)))
	r := w.asks(t, "a")
	h := event("a", eventStarted, isRunning)
	h.status.Resources = &cri.ContainerResources{Linux: &cri.LinuxContainerResources{CpuShares: 7}}
	must(t, w.event(h))
	old := w.full(r, isCreated)
	old.container.Limits = &protov1.Limits{CpuShares: proto.Int64(5)}
	must(t, w.answer(old))
	if n := w.container("a").GetLimits().GetCpuShares(); n != 7 {
		t.Errorf("%d shares", n)
	}
}

func TestWhatAnEventDoesNotTellStaysAsAnAnswerToldIt(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(event("a", eventCreated, isCreated)))
	a := w.full(w.asks(t, "a"), isCreated)
	a.container.Limits = &protov1.Limits{Pids: proto.Int64(9)}
	a.container.Image = &protov1.Image{Name: "asked-for", Tag: "2", Id: "sha256:1"}
	must(t, w.answer(a))
	h := event("a", eventStarted, isRunning)
	h.status.Resources = &cri.ContainerResources{Linux: &cri.LinuxContainerResources{CpuShares: 7}}
	must(t, w.event(h))
	c := w.container("a")
	if c.Limits.GetPids() != 9 || c.Limits.GetCpuShares() != 7 || c.Hostname != "answered" || c.Image.Name != "asked-for" || c.Image.Tag != "2" || c.Image.Id != "sha256:1" {
		t.Error(c)
	}
}

func TestTheFirstSnapshotIsNoNews(t *testing.T) {
	w := newWorld(t)
	must(t, w.connected())
	w.beginList()
	must(t, w.event(event("young", eventCreated, isCreated)))
	must(t, w.event(event("old", eventStopped, isExited)))
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("ran", isRunning), row("over", isExited), row("old", isRunning)}}, true))
	if w.syncs != 0 {
		t.Error("synced before all were asked for")
	}
	for range 10 {
		r, ok := w.next()
		if !ok {
			break
		}
		if r.want == wantSandbox {
			must(t, w.answer(answer{request: r, outcome: failed}))
			continue
		}
		state := map[string]cri.ContainerState{"young": isCreated, "ran": isRunning, "over": isExited, "old": isExited}[r.id]
		must(t, w.answer(w.full(r, state)))
	}
	if w.syncs != 1 || len(w.recorder.containers) != 5 || len(w.recorder.pods) != 1 {
		t.Errorf("%d syncs, %d containers", w.syncs, len(w.recorder.containers))
	}
	if got := fmt.Sprint(w.lines("lifecycle")); got != "[lifecycle young created lifecycle old died exit_code=3]" {
		t.Error(got)
	}
	if p := w.pod("u-pod"); len(p.ContainerIds) != 4 || p.Name != "pod" || p.Namespace != "ns" || p.Node != "node" {
		t.Error(p)
	}
}

func TestAListFindsWhatNoEventTold(t *testing.T) {
	w := newWorld(t).synced(t, list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isRunning), row("b", isRunning)}})
	w.beginList()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isExited), row("c", isRunning)}}, false))
	w.told(t, "pod u-pod pod running 3", "container c n-c unspecified", "lifecycle b removed", "remove b", "pod u-pod pod running 2")
	// What happened, when and how is asked for.
	must(t, w.answer(w.full(w.asks(t, "a"), isExited)))
	w.told(t, "container a n-a exited", "lifecycle a died exit_code=3")
	must(t, w.answer(w.full(w.asks(t, "c"), isRunning)))
	w.told(t, "container c n-c running", "lifecycle c created", "lifecycle c started")
}

func TestAListIsOlderThanWhatWasHeardMeanwhile(t *testing.T) {
	w := newWorld(t).synced(t, list{sandboxes: []*cri.PodSandbox{podRow("pod")}})
	w.beginList()
	must(t, w.event(event("a", eventCreated, isCreated)))
	must(t, w.event(event("a", eventStarted, isRunning)))
	w.taken()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isCreated)}}, false))
	w.told(t)
	w.beginList()
	must(t, w.event(event("b", eventCreated, isCreated)))
	w.taken()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isRunning)}}, false))
	w.told(t)
	w.beginList()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isRunning)}}, false))
	w.told(t, "lifecycle b removed", "remove b", "pod u-pod pod running 1")
}

func TestASandboxThatGoesTakesItsContainersWithIt(t *testing.T) {
	w := newWorld(t).synced(t, list{sandboxes: []*cri.PodSandbox{podRow("pod"), podRow("other")}, containers: []*cri.Container{row("a", isRunning)}})
	must(t, w.event(happening{kind: eventDeleted, id: "pod", at: 7}))
	w.told(t, "lifecycle a removed", "remove a", "lifecycle pod removed", "remove pod", "remove pod u-pod")
	if w.pod("u-other") == nil || w.container("other") == nil {
		t.Error("the other is gone too")
	}
}

func TestOfAPodsSandboxesTheReadyOneSpeaks(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	old, young := podRow("old"), podRow("young")
	old.Metadata.Uid, young.Metadata.Uid = "u", "u"
	old.State, old.CreatedAt = cri.PodSandboxState_SANDBOX_NOTREADY, 70 // a clock was put back
	young.Labels = map[string]string{"which": "young"}
	w.beginList()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{young, old}}, false))
	if p := w.pod("u"); p.Labels["which"] != "young" || p.Phase != "Running" {
		t.Error(p)
	}
	must(t, w.event(happening{kind: eventDeleted, id: "old", at: 7}))
	if w.pod("u") == nil {
		t.Fatal("the pod went with its old sandbox")
	}
	must(t, w.event(happening{kind: eventDeleted, id: "young", at: 7}))
	if w.pod("u") != nil {
		t.Error("the pod is still there")
	}
}

func TestACgroupIsAskedForUntilItsContainerIsKnown(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	w.tracker.events = false
	w.cgroup(cgroupNews{id: "a"})
	r := w.asks(t, "a")
	if r.want != wantAny || r.known {
		t.Errorf("%+v", r)
	}
	w.asksNothing(t)
	must(t, w.answer(answer{request: r, outcome: notThere}))
	asked := 1
	for range 1000 {
		if r, ok := w.next(); ok {
			asked++
			must(t, w.answer(answer{request: r, outcome: notThere}))
		}
		w.time = w.time.Add(5 * time.Millisecond)
	}
	if asked != createdTries {
		t.Errorf("asked %d times", asked)
	}
	if len(w.probes.waiting) > 0 {
		t.Error("it would be asked for for ever")
	}
}

func TestACgroupOfARuntimeWithEventsIsAskedForOnlyWhenNoneCame(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	w.cgroup(cgroupNews{id: "a"})
	w.cgroup(cgroupNews{id: "b"})
	w.asksNothing(t)
	must(t, w.event(event("a", eventCreated, isCreated)))
	w.asks(t, "a") // for all that is known of it
	w.time = w.time.Add(lateProbe)
	w.asks(t, "b")
	w.asksNothing(t)
}

func TestWhatIsInspectedBeforeItIsListedIsNamedAndHasNotHappened(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	w.inspects = true
	w.cgroup(cgroupNews{id: "a"})
	r := w.asks(t, "a")
	c, _ := w.describe.inspected("a", &inspected{Sandbox: "pod", Image: "img:1", Spec: map[string]string{crioMetadata: `{"name":"app","attempt":1}`}})
	must(t, w.answer(answer{request: r, container: c, glimpse: true}))
	w.told(t, "container a app unspecified")
	if c := w.container("a"); c.Image.GetName() != "img" || c.GetRestartCount() != 1 {
		t.Error(c)
	}
	must(t, w.event(event("a", eventCreated, isCreated)))
	w.told(t, "pod u-pod pod running 1", "container a app unspecified", "container a n-a created", "lifecycle a created")
	t.Run("one that never comes is forgotten", func(t *testing.T) {
		w.cgroup(cgroupNews{id: "b"})
		r := w.asks(t, "b")
		c, _ := w.describe.inspected("b", &inspected{Spec: map[string]string{crioMetadata: `{"name":"app"}`}})
		must(t, w.answer(answer{request: r, container: c, glimpse: true}))
		w.beginList()
		must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isCreated)}}, false))
		if w.container("b") == nil {
			t.Error("forgotten while it is made")
		}
		w.cgroup(cgroupNews{id: "b", removed: true})
		w.time = w.time.Add(firstCheck)
		must(t, w.answer(answer{request: w.asks(t, "b"), outcome: notThere}))
		if w.container("b") != nil {
			t.Error("still there without a cgroup")
		}
		if len(w.lines("lifecycle b")) > 0 {
			t.Error("what never was has had a life")
		}
	})
}

func TestARemovalThatNoEventTellsIsAskedForWhenTheCgroupGoes(t *testing.T) {
	w := newWorld(t).synced(t, list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isRunning)}})
	w.cgroup(cgroupNews{id: "a", removed: true}) // its event will tell
	w.cgroup(cgroupNews{id: "nobody's", removed: true})
	w.cgroup(cgroupNews{id: "pod", removed: true})
	w.asksNothing(t)
	w.time = w.time.Add(firstCheck)
	r := w.asks(t, "pod")
	must(t, w.answer(answer{request: r, outcome: answered, sandbox: w.describe.sandbox(podOf("pod"))}))
	w.asksNothing(t)
	w.time = w.time.Add(4 * firstCheck)
	must(t, w.answer(answer{request: w.asks(t, "pod"), outcome: notThere}))
	if w.container("pod") != nil || w.container("a") != nil || w.pod("u-pod") != nil {
		t.Errorf("told %q", w.taken())
	}
}

func TestADeniedContainerIsGoneOnceItsEventsHadTheirTime(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(event("a", eventCreated, isCreated)))
	must(t, w.answer(answer{request: w.asks(t, "a"), outcome: notThere}))
	if w.container("a") == nil {
		t.Fatal("gone before its events")
	}
	must(t, w.event(event("a", eventStopped, isExited)))
	w.time = w.time.Add(firstCheck)
	must(t, w.answer(answer{request: w.asks(t, "a"), outcome: notThere}))
	if got := fmt.Sprint(w.lines("lifecycle")); got != "[lifecycle a created lifecycle a started lifecycle a died exit_code=3 lifecycle a removed]" {
		t.Error(got)
	}
}

func TestAnEventThatSaysNothingOfItsContainerIsFollowedByAQuestion(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	h := event("a", eventStarted, isRunning)
	h.status = nil
	must(t, w.event(h))
	r := w.asks(t, "a")
	if r.want != wantAny {
		t.Errorf("%+v", r)
	}
	must(t, w.answer(w.full(r, isRunning)))
	if w.container("a").GetName() != "n-a" {
		t.Error(w.taken())
	}
	h = event("a", eventStopped, isExited)
	h.status = nil
	must(t, w.event(h))
	if c := w.container("a"); c.State != protov1.Container_STATE_EXITED || c.FinishedUnixNano != 999 || c.ExitCode != nil {
		t.Error(c)
	}
}

func TestAfterAReconnectionNothingIsLostAndNothingToldTwice(t *testing.T) {
	w := newWorld(t).synced(t, list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("stays", isRunning), row("ends", isRunning), row("goes", isRunning)}})
	w.disconnected()
	must(t, w.connected())
	w.beginList()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("stays", isRunning), row("ends", isExited), row("comes", isRunning)}}, true))
	w.answerAll(t, map[string]cri.ContainerState{"stays": isRunning, "ends": isExited, "comes": isRunning})
	if w.syncs != 2 || len(w.recorder.containers) != 4 || w.container("goes") != nil || w.pod("u-pod") == nil {
		t.Errorf("%d syncs: %q", w.syncs, w.lines(""))
	}
	if got := fmt.Sprint(w.lines("lifecycle goes"), w.lines("lifecycle ends"), w.lines("lifecycle comes"), w.lines("lifecycle stays")); got !=
		"[lifecycle goes removed] [lifecycle ends died exit_code=3] [lifecycle comes created lifecycle comes started] []" {
		t.Error(got)
	}
}

func TestASnapshotTellsAgainWhatDidNotChange(t *testing.T) {
	w := newWorld(t)
	l := list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isRunning)}}
	for n := range 3 {
		must(t, w.connected())
		w.beginList()
		must(t, w.listed(l, true))
		w.answerAll(t, map[string]cri.ContainerState{"a": isRunning})
		if w.syncs != n+1 || w.container("a") == nil || w.container("pod") == nil || len(w.pod("u-pod").GetContainerIds()) != 1 {
			t.Fatalf("after snapshot %d: %q", n, w.lines(""))
		}
		w.disconnected()
	}
}

func TestASnapshotDoesNotWaitForWhatIsRemovedMeanwhile(t *testing.T) {
	w := newWorld(t)
	must(t, w.connected())
	w.beginList()
	must(t, w.listed(list{sandboxes: []*cri.PodSandbox{podRow("pod")}, containers: []*cri.Container{row("a", isRunning)}}, true))
	r := w.asks(t, "pod")
	must(t, w.event(event("a", eventDeleted, 0)))
	must(t, w.answer(w.truly(r, nil)))
	if w.syncs != 1 {
		t.Errorf("not synced: %q", w.lines(""))
	}
}

func TestASandboxesOwnContainerIsToldWithItsImage(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	h := happening{kind: eventStarted, id: "pod", at: 999, sandbox: podOf("pod")}
	must(t, w.event(h))
	w.told(t, "pod u-pod pod running 0")
	r := w.asks(t, "pod")
	a := w.truly(r, nil)
	a.container.Image = &protov1.Image{Name: "pause"}
	must(t, w.answer(a))
	w.told(t, "container pod POD running", "lifecycle pod created", "lifecycle pod started")
	t.Run("or without it, when the runtime does not answer", func(t *testing.T) {
		h.id, h.sandbox = "sick", podOf("sick")
		must(t, w.event(h))
		w.taken()
		must(t, w.answer(answer{request: w.asks(t, "sick"), outcome: failed}))
		w.told(t, "container sick POD running", "lifecycle sick created", "lifecycle sick started")
	})
}

func TestAContainerThatNeverStartedIsNotToldToHave(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(event("a", eventCreated, isCreated)))
	h := event("a", eventStopped, isExited)
	h.status.StartedAt, h.status.ExitCode = 0, 128
	must(t, w.event(h))
	if got := fmt.Sprint(w.lines("lifecycle")); got != "[lifecycle a created lifecycle a died exit_code=128]" {
		t.Error(got)
	}
}

func TestASandboxIsNotReadyTwice(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	must(t, w.event(happening{kind: eventStarted, id: "pod", at: 5, sandbox: podOf("pod")}))
	r := w.asks(t, "pod")
	over := podOf("pod")
	over.State, over.Network = cri.PodSandboxState_SANDBOX_NOTREADY, nil
	must(t, w.event(happening{kind: eventStopped, id: "pod", at: 6, sandbox: over}))
	must(t, w.answer(w.truly(r, nil))) // it was ready when it was asked
	if p := w.pod("u-pod"); p.Phase != "Unknown" || len(p.Ips) != 1 {
		t.Error(p)
	}
	if c := w.container("pod"); c.State != protov1.Container_STATE_EXITED || c.FinishedUnixNano != 6 {
		t.Error(c)
	}
}

func TestAListDoesNotTakeAYoungerPodAway(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	w.beginList()
	must(t, w.event(happening{kind: eventStarted, id: "pod", at: 5, sandbox: podOf("pod")}))
	must(t, w.event(event("a", eventCreated, isCreated)))
	must(t, w.listed(list{}, false))
	if w.pod("u-pod") == nil || w.container("a").GetPodUid() != "u-pod" {
		t.Errorf("told %q", w.lines(""))
	}
}

func TestADenialFromBeforeTheLastWordIsOld(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	w.inspects = true
	w.cgroup(cgroupNews{id: "a"})
	r := w.asks(t, "a")
	c, _ := w.describe.inspected("a", &inspected{Spec: map[string]string{crioMetadata: `{"name":"app"}`}})
	must(t, w.answer(answer{request: r, container: c, glimpse: true}))
	w.cgroup(cgroupNews{id: "a", removed: true}) // by a low-level runtime that tries again
	w.time = w.time.Add(firstCheck)
	r = w.asks(t, "a")
	must(t, w.event(event("a", eventCreated, isCreated)))
	must(t, w.answer(answer{request: r, outcome: notThere}))
	if w.container("a") == nil {
		t.Errorf("told %q", w.lines(""))
	}
}

func TestNothingIsAskedForTwiceAtATime(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	w.inspects = true
	w.cgroup(cgroupNews{id: "a"})
	w.cgroup(cgroupNews{id: "a"})
	must(t, w.event(event("b", eventCreated, isCreated)))
	r := w.asks(t, "a")
	w.asks(t, "b")
	must(t, w.event(event("b", eventStarted, isRunning)))
	w.time = w.time.Add(time.Second)
	w.asksNothing(t)
	must(t, w.answer(answer{request: r, outcome: notThere}))
	w.time = w.time.Add(time.Second)
	w.asks(t, "a")
}

func TestTheMemoryOfRemovalsIsBounded(t *testing.T) {
	var r recent
	for i := range 3000 {
		r.add(fmt.Sprint(i), forever)
	}
	if len(r.set) != len(r.ring) || r.has("1") || !r.has("2999") || !r.has(fmt.Sprint(3000-len(r.ring))) {
		t.Errorf("%d are remembered", len(r.set))
	}
}

func TestRunningContainersAreAskedForAgainInTurns(t *testing.T) {
	const n = 3 * refreshed
	var rows []*cri.Container
	for i := range n {
		rows = append(rows, row(fmt.Sprint(i), isRunning))
	}
	w := newWorld(t).synced(t, list{containers: rows})
	times := map[string]int{}
	for range 3 {
		w.refresh()
		for {
			r, ok := w.next()
			if !ok {
				break
			}
			times[r.id]++
			must(t, w.answer(w.full(r, isRunning)))
		}
	}
	if len(times) != n {
		t.Errorf("%d of %d were asked for", len(times), n)
	}
}

func TestMoreContainersThanCanBeRememberedAreCounted(t *testing.T) {
	w := newWorld(t).synced(t, list{})
	for i := range maxContainers + 10 {
		must(t, w.event(happening{kind: eventCreated, id: fmt.Sprint(i), status: statusOf(fmt.Sprint(i), isCreated)}))
		w.log = nil
	}
	if len(w.tracker.containers) != maxContainers || w.refused != 10 {
		t.Errorf("%d remembered, %d refused", len(w.tracker.containers), w.refused)
	}
	for i := range maxProbes + 10 {
		w.probe(fmt.Sprintf("p%d", i), false)
	}
	if len(w.probes.waiting) != maxProbes || w.refused != 20 {
		t.Errorf("%d questions, %d refused", len(w.probes.waiting), w.refused)
	}
}

// A runtime that lives by chance, and events, answers and lists that come late, in any
// order, or not at all: in the end what was told is what is there.
func TestWhateverComesInWhateverOrderTheEndIsTheTruth(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		w.tracker.events = seed%3 != 0
		truth := map[string]cri.ContainerState{}
		young := map[string]bool{} // made after the first snapshot
		var stream []happening
		var requests []answer
		var pendingList *list
		must(t, w.connected())
		w.beginList()
		snapshot := true
		look := func() *list {
			l := &list{sandboxes: []*cri.PodSandbox{podRow("pod")}}
			for _, id := range slices.Sorted(maps.Keys(truth)) {
				l.containers = append(l.containers, row(id, truth[id]))
			}
			return l
		}
		pendingList = look()
		send := func(h happening) {
			if w.tracker.events && rnd.IntN(10) > 0 { // else it is lost
				stream = append(stream, h)
			}
		}
		for range 300 {
			w.time = w.time.Add(time.Duration(rnd.IntN(20)) * time.Millisecond)
			id := fmt.Sprintf("c%d", rnd.IntN(1000))
			switch rnd.IntN(8) {
			case 0: // a life goes on
				if len(truth) < 5 {
					if !w.gone.has(id) && w.tracker.containers[id] == nil {
						truth[id], young[id] = isCreated, w.syncs > 0
						w.cgroup(cgroupNews{id: id})
						send(event(id, eventCreated, isCreated))
					}
				}
			case 1:
				for _, id := range slices.Sorted(maps.Keys(truth)) {
					if rnd.IntN(2) == 0 {
						continue
					}
					switch truth[id] {
					case isCreated:
						truth[id] = isRunning
						send(event(id, eventStarted, isRunning))
					case isRunning:
						truth[id] = isExited
						send(event(id, eventStopped, isExited))
					case isExited:
						delete(truth, id)
						w.cgroup(cgroupNews{id: id, removed: true})
						send(event(id, eventDeleted, 0))
					}
					break
				}
			case 2, 3:
				if len(stream) > 0 {
					must(t, w.event(stream[0]))
					stream = stream[1:]
				}
			case 4:
				if r, ok := w.next(); ok { // seen now, answered later
					a := w.truly(r, truth)
					if rnd.IntN(10) == 0 {
						a = answer{request: r, outcome: failed}
					}
					requests = append(requests, a)
				}
			case 5:
				if len(requests) > 0 {
					i := rnd.IntN(len(requests))
					must(t, w.answer(requests[i]))
					requests = append(requests[:i], requests[i+1:]...)
				}
			case 6:
				if pendingList != nil {
					must(t, w.listed(*pendingList, snapshot))
					pendingList, snapshot = nil, false
				} else {
					w.beginList()
					pendingList = look()
				}
			}
		}
		for _, h := range stream {
			must(t, w.event(h))
		}
		for _, a := range requests {
			must(t, w.answer(a))
		}
		if pendingList != nil {
			must(t, w.listed(*pendingList, snapshot))
		}
		for range 2 {
			for range 100 {
				w.time = w.time.Add(100 * time.Millisecond)
				w.answerAll(t, truth)
			}
			w.time = w.time.Add(2 * earlyFor)
			w.beginList()
			must(t, w.listed(*look(), false))
		}
		if w.syncs != 1 {
			t.Fatalf("seed %d: %d syncs", seed, w.syncs)
		}
		if len(w.recorder.containers) != len(truth)+1 {
			t.Errorf("seed %d: %d containers told, %d are there", seed, len(w.recorder.containers)-1, len(truth))
		}
		for id, s := range truth {
			c := w.container(id)
			if c == nil || c.State != containerState(s) || c.Hostname != "answered" || c.PodUid != "u-pod" {
				t.Errorf("seed %d: %s is %v, want %v", seed, id, c, s)
			}
		}
		if p := w.pod("u-pod"); len(p.GetContainerIds()) != len(truth) {
			t.Errorf("seed %d: the pod has %v, want %d", seed, p, len(truth))
		}
		lives := map[string]string{}
		for _, l := range w.lines("lifecycle") {
			f := strings.Fields(l)
			lives[f[1]] += f[2] + " "
		}
		for id, life := range lives { // no step twice, none before one that comes first
			last := -1
			for word := range strings.FieldsSeq(life) {
				at := slices.Index([]string{"created", "started", "died", "removed"}, word)
				if at <= last {
					t.Errorf("seed %d: the life of %s was told as %q", seed, id, life)
				}
				last = at
			}
			if _, there := truth[id]; !there && last != 3 || young[id] && !strings.HasPrefix(life, "created ") && life != "removed " {
				t.Errorf("seed %d: the life of %s was told as %q", seed, id, life)
			}
		}
		if t.Failed() {
			t.Fatalf("told:\n%s", strings.Join(w.lines(""), "\n"))
		}
	}
}
