package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func scriptedConfig(s *scripted) Config {
	c := defaults()
	c.Endpoint, c.Timeout = "unix://"+s.socket, 2*time.Second
	return c
}

func TestAThousandContainersAreHeldInBoundedMemory(t *testing.T) {
	const pods, each = 500, 4
	s := (&scripted{}).start(t)
	for p := range pods {
		s.pod(id64(p), fmt.Sprintf("uid-%d", p), fmt.Sprintf("pod-%d", p)).Annotations = map[string]string{"note": strings.Repeat("n", 200)}
		for c := range each {
			s.container(id64(10_000+p*each+c), id64(p), fmt.Sprintf("c%d", c), isRunning).Annotations = map[string]string{"note": strings.Repeat("n", 200)}
		}
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	c := scriptedConfig(s)
	c.Timeout = 30 * time.Second
	r, _ := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("snapshot of %d containers in %d pods in %v, %d statuses, %.1f MB held by discoverer and test", pods*each, pods, took, s.statuses.Load(), float64(held)/1e6)
	if held > 16<<10*pods*each {
		t.Errorf("%d bytes are held for each container", held/(pods*each))
	}
	if len(r.containers) != pods*(each+1) || len(r.pods) != pods {
		t.Errorf("%d containers, %d pods", len(r.containers), len(r.pods))
	}
	if n := s.statuses.Load(); n != pods*(each+1) {
		t.Errorf("%d statuses", n)
	}
	if p := r.pod("uid-7"); len(p.ContainerIds) != each || p.Name != "pod-7" {
		t.Error(p)
	}
}

func TestHugeAnnotationsAreCut(t *testing.T) {
	s := (&scripted{}).start(t)
	huge := map[string]string{"big": strings.Repeat("b", 256<<10), "small": "x", "control\x00\x1b[31m": "line\nbreak\x7f\xff"}
	s.pod(id64(1), "uid", "pod").Annotations = huge
	s.container(id64(2), id64(1), "c", isRunning).Annotations = huge
	delete(huge, "control\x00\x1b[31m") // what is not UTF-8 can't be sent at all
	huge["control\x00\x1b[31m"] = "line\nbreak\x7f"
	r, _ := start(t, scriptedConfig(s), nil)
	r.wait("the snapshot", synced(1))
	c, p := r.container(id64(2)), r.pod("uid")
	if n := len(c.Annotations["big"]); n > 4<<10 || c.Annotations["small"] != "x" || fmt.Sprint(c.Truncated) != "[annotations]" {
		t.Errorf("%d bytes, truncated %v", n, c.Truncated)
	}
	if n := len(p.Annotations["big"]); n > 4<<10 || p.Annotations["small"] != "x" {
		t.Errorf("%d bytes of the pod", n)
	}
}

func TestInfoThatCantBeReadLeavesTheStatus(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":          "not JSON at all",
		"cut":              `{"pid": 5, "runtimeSpec": {"process": {"args": ["a`,
		"of another shape": `{"pid": "five", "sandboxID": 7, "runtimeSpec": [1,2,3], "config": "none"}`,
		"deep":             strings.Repeat("[", 100_000),
		"huge":             `{"x": "` + strings.Repeat("x", maxInfo) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := (&scripted{info: func(string) string { return text }}).start(t)
			s.pod(id64(1), "uid", "pod")
			s.container(id64(2), id64(1), "c", isRunning)
			r, _ := start(t, scriptedConfig(s), nil)
			r.wait("the snapshot", synced(1))
			if c := r.container(id64(2)); c.GetName() != "c" || c.Image.GetName() != "docker.io/library/app" || c.PodUid != "uid" || c.StartedUnixNano != 2000 {
				t.Error(c)
			}
		})
	}
}

func TestAContainerThatIsBeingRemovedIsKnownByItsStatusAlone(t *testing.T) {
	s := (&scripted{noInfo: true}).start(t)
	s.container(id64(2), "", "c", isRunning)
	r, _ := start(t, scriptedConfig(s), nil)
	r.wait("the snapshot", synced(1))
	if c := r.container(id64(2)); c.GetStartedUnixNano() != 2000 || c.Pid != 0 {
		t.Error(c)
	}
}

func TestARuntimeThatAcceptsAndSaysNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	c := defaults()
	c.Endpoint, c.Timeout = "unix://"+socket, 100*time.Millisecond
	r, _ := start(t, c, nil)
	r.wait("word of its silence", func(r *recorder) bool { return strings.Contains(r.reason, "does not answer within 100ms") })
	must(t, l.Close())
	s := (&scripted{socket: socket}).start(t)
	s.container(id64(1), "", "c", isRunning)
	r.wait("the snapshot of its successor", synced(1))
}

func TestARuntimeThatFallsSilentIsNoticedAndFollowedAgain(t *testing.T) {
	s := (&scripted{}).start(t)
	s.container(id64(1), "", "c", isRunning)
	c := scriptedConfig(s)
	c.Timeout, c.Resync = 300*time.Millisecond, 0
	r, _ := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	s.silent(func(string) bool { return true })
	r.wait("word of its silence", func(r *recorder) bool { return strings.Contains(r.reason, "does not answer within 300ms") })
	if r.container(id64(1)) == nil {
		t.Error("the container went with the runtime's word")
	}
	s.silent(func(string) bool { return false })
	r.wait("a second snapshot", synced(2))
	if got := r.lines("lifecycle"); len(got) > 0 {
		t.Errorf("told %q", got)
	}
}

func TestOneSickContainerDoesNotHoldUpTheOthers(t *testing.T) {
	s := (&scripted{}).start(t)
	for i := range 20 {
		s.container(id64(i), "", fmt.Sprintf("c%d", i), isRunning)
	}
	s.silent(func(id string) bool { return id == id64(3) })
	defer s.silent(func(string) bool { return false })
	c := scriptedConfig(s)
	c.Timeout = 200 * time.Millisecond
	r, _ := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	if sick := r.container(id64(3)); sick.GetName() != "c3" || sick.Image.GetName() != "docker.io/library/app" {
		t.Errorf("the sick one is not known by its line in the list: %v", sick)
	}
	if r.container(id64(4)).StartedUnixNano == 0 {
		t.Error("a sound one was not asked for")
	}
}

func TestWithoutEventsACgroupNamesItsContainerBeforeTheNextList(t *testing.T) {
	s := (&scripted{noPods: true}).start(t)
	c := scriptedConfig(s)
	c.Poll = time.Minute
	r, h := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	for s.lists.Load() < 2 { // the one that follows the first
		time.Sleep(10 * time.Millisecond)
	}
	s.pod(id64(1), "uid", "pod")
	s.container(id64(2), id64(1), "first", isCreated)
	h.cgroup(protov1.CgroupFact_CHANGE_CREATED, "/kubepods/pod1/"+id64(2))
	r.wait("its name", func(r *recorder) bool { return r.containers[id64(2)].GetName() == "first" })
	if c := r.container(id64(2)); c.Image.GetName() != "docker.io/library/app" || c.SandboxId != id64(1) {
		t.Error(c)
	}
	h.cgroup(protov1.CgroupFact_CHANGE_CREATED, "/kubepods/pod1/cri-containerd-"+id64(1)+".scope")
	r.wait("its pod", func(r *recorder) bool { return r.pods["uid"].GetName() == "pod" })
	s.change(func() {
		st := s.containers[id64(2)]
		st.State, st.StartedAt, st.FinishedAt, st.ExitCode, st.Reason = isExited, 2000, 3000, 137, "OOMKilled"
	})
	h.cgroup(protov1.CgroupFact_CHANGE_REMOVED, "/kubepods/pod1/"+id64(2))
	r.wait("its end", inState(id64(2), protov1.Container_STATE_EXITED))
	r.wait("the words for it", func(r *recorder) bool {
		return strings.Contains(strings.Join(r.log, " "), "started lifecycle 00000002 oom lifecycle 00000002 died exit_code=137")
	})
	if n := s.denied.Load(); n > 0 {
		t.Errorf("%d statuses of what is not there: some runtimes log each as an error", n)
	}
}

func TestWithoutEventsListsTellLives(t *testing.T) {
	s := (&scripted{noPods: true}).start(t)
	c := scriptedConfig(s)
	c.Poll = 100 * time.Millisecond
	r, _ := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	s.pod(id64(1), "uid", "pod")
	s.container(id64(2), id64(1), "c", isCreated)
	r.wait("created", inState(id64(2), protov1.Container_STATE_CREATED))
	s.change(func() { s.containers[id64(2)].State, s.containers[id64(2)].StartedAt = isRunning, 2000 })
	r.wait("running", inState(id64(2), protov1.Container_STATE_RUNNING))
	s.change(func() { s.containers[id64(2)].State, s.containers[id64(2)].ExitCode = isExited, 3 })
	r.wait("exited", inState(id64(2), protov1.Container_STATE_EXITED))
	s.change(func() { delete(s.containers, id64(2)); delete(s.sandboxes, id64(1)) })
	r.wait("gone", func(r *recorder) bool { return len(r.containers) == 0 && len(r.pods) == 0 })
	if got := fmt.Sprint(r.lines("lifecycle 00000002")); got != "[lifecycle 00000002 created lifecycle 00000002 started lifecycle 00000002 died exit_code=3 lifecycle 00000002 removed]" {
		t.Error(got)
	}
}

func TestEventsNameAndEndContainers(t *testing.T) {
	s := (&scripted{}).start(t)
	r, _ := start(t, scriptedConfig(s), nil)
	r.wait("the snapshot", synced(1))
	<-s.connected
	s.pod(id64(1), "uid", "pod")
	s.event(id64(1), eventCreated)
	s.event(id64(1), eventStarted)
	s.container(id64(2), id64(1), "c", isCreated)
	s.event(id64(2), eventCreated)
	r.wait("its name", func(r *recorder) bool { return r.containers[id64(2)].GetName() == "c" })
	r.wait("what was asked", func(r *recorder) bool { return r.containers[id64(2)].GetPid() == 77 })
	s.change(func() { s.containers[id64(2)].State = isRunning })
	s.event(id64(2), eventStarted)
	s.change(func() { s.containers[id64(2)].State = isExited })
	s.event(id64(2), eventStopped)
	r.wait("its end", func(r *recorder) bool {
		c := r.containers[id64(2)]
		return c.GetState() == protov1.Container_STATE_EXITED && c.GetPid() == 0 && c.ExitCode != nil
	})
	s.change(func() { delete(s.containers, id64(2)) })
	s.event(id64(2), eventDeleted)
	r.wait("its removal", func(r *recorder) bool { return r.containers[id64(2)] == nil })
	if p := r.pod("uid"); p.GetPhase() != "Running" || len(p.ContainerIds) != 0 || p.Ips[0] != "10.1.2.3" || p.GetHostNetwork() {
		t.Error(p)
	}
	r.wait("the sandbox's own container", func(r *recorder) bool { return r.containers[id64(1)] != nil })
	if c := r.container(id64(1)); c.Type != "sandbox" || c.Name != "POD" || c.Image.GetName() != "pause" || c.PodUid != "uid" {
		t.Error(c)
	}
}

func TestAStreamThatTheRuntimeClosesIsOpenedAgain(t *testing.T) {
	s := (&scripted{}).start(t)
	r, _ := start(t, scriptedConfig(s), nil)
	r.wait("the snapshot", synced(1))
	<-s.connected
	s.container(id64(2), "", "c", isCreated)
	s.event(id64(2), eventCreated)
	r.wait("its name", func(r *recorder) bool { return r.containers[id64(2)].GetName() == "c" })
	s.change(func() {
		for to := range s.streams {
			to <- nil
		}
	})
	r.wait("another snapshot", synced(2))
	<-s.connected
}

// The list is the same all the time, but the lost events told otherwise: only a list,
// which nothing else asks for, finds what is there.
func TestEventsThatCameTooFastLeadToAList(t *testing.T) {
	s := (&scripted{}).start(t)
	conn, err := dial(t.Context(), s.socket, 10*time.Second)
	must(t, err)
	r := newRecorder(t)
	tr := newTracker(r)
	tr.describe = newDescriber(defaults(), nil)
	c := defaults()
	c.Resync = 0
	ses := &session{conn: conn, tracker: tr, facts: &facts{news: make(chan cgroupNews, 1)}, config: c, log: testLog(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ses.run(ctx) }()
	r.wait("an empty snapshot", synced(1))
	for s.lists.Load() < 2 { // the one that follows the first
		time.Sleep(10 * time.Millisecond)
	}
	s.container(id64(1), "", "c", isRunning)
	ses.stream.lost.Store(5)
	ses.stream.events <- happening{kind: eventStopped, id: "a"} // any event shows the loss
	r.wait("what the list tells", func(r *recorder) bool { return r.containers[id64(1)] != nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, conn.close())
}

func TestAStreamThatIsNotReadIsBounded(t *testing.T) {
	s := (&scripted{}).start(t)
	s.pod(id64(1), "uid", "pod").Annotations = map[string]string{"big": strings.Repeat("b", 256<<10)}
	conn, err := dial(t.Context(), s.socket, 10*time.Second)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	st := conn.events(ctx)
	<-s.connected
	const n = 200
	for range n {
		s.event(id64(1), eventStarted)
	}
	for st.lost.Load()+uint64(len(st.events)) < n {
		time.Sleep(time.Millisecond)
	}
	if b := st.bytes.Load(); b > maxEventBytes || st.lost.Load() == 0 {
		t.Errorf("%d bytes wait, %d events were dropped", b, st.lost.Load())
	}
	cancel()
	<-st.done
	must(t, conn.close())
}

func TestWhatDoesNotServeCRIIsSaidToBeSo(t *testing.T) {
	s := (&scripted{}).start(t)
	c := scriptedConfig(s)
	c.Endpoint = "unix://" + startOther(t)
	r, _ := start(t, c, nil)
	r.wait("word of it", func(r *recorder) bool { return strings.Contains(r.reason, "does not serve CRI v1") })
}
