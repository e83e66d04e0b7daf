package pluginhost

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestChangesArriveInOrderAndWhole(t *testing.T) {
	h := newHost(t, Options{})
	const containers, lifecycles = 1000, 20000
	_, got := discover(t, h, map[string]any{"containers": containers, "stream": lifecycles})
	isLife := func(c *protov1.InventoryChange) bool { return c.GetLifecycle() != nil }
	eventually(t, "the last change", func() bool { return got.count(isLife) == lifecycles })
	got.mu.Lock()
	defer got.mu.Unlock()
	if got.changes[0].GetReset_() == nil || got.changes[containers+1].GetSynced() == nil {
		t.Fatal("the snapshot is not between reset and synced")
	}
	for i, c := range got.changes[1 : containers+1] {
		if want := fmt.Sprintf("name-%d", i); c.GetContainer().GetName() != want {
			t.Fatalf("container %d is %v", i, c)
		}
	}
	for i, c := range got.changes[containers+2:] {
		if c.GetLifecycle().GetTimeUnixNano() != int64(i) {
			t.Fatalf("lifecycle %d is %v", i, c)
		}
	}
}

func TestHostileNamesArriveAsUTF8(t *testing.T) {
	h := newHost(t, Options{})
	_, got := discover(t, h, map[string]any{"hostile": true, "containers": 2})
	eventually(t, "the snapshot", func() bool { return got.synced() == 1 })
	c := got.containers()[1]
	if c.GetName() != "bad\uFFFDname" || c.GetLabels()["k\uFFFD"] != "v\uFFFD" || c.GetLabels()["good"] != "good" || len(c.GetLabels()) != 2 {
		t.Errorf("the container is %v", c)
	}
	if !utf8.ValidString(c.GetArgs()[0]) {
		t.Errorf("its argument is %q", c.GetArgs()[0])
	}
}

func TestALargeContainerArrivesShortenedAndSaysSo(t *testing.T) {
	h := newHost(t, Options{})
	d, got := discover(t, h, map[string]any{"large": true, "containers": 1})
	eventually(t, "the snapshot", func() bool { return got.synced() == 1 })
	c := got.containers()[0]
	if len(c.GetHostname()) != 32<<10 || len(c.GetEnv()) != 0 || c.GetName() != "name-0" {
		t.Errorf("hostname of %d bytes, %d variables, name %q", len(c.GetHostname()), len(c.GetEnv()), c.GetName())
	}
	if !slices.Contains(c.GetTruncated(), "hostname") || !slices.Contains(c.GetTruncated(), "env") {
		t.Errorf("truncated: %v", c.GetTruncated())
	}
	if d.Status().Refused != 0 {
		t.Error("it was refused")
	}
}

func TestAStreamThatBreaksTheOrderEndsWithTheReason(t *testing.T) {
	h := newHost(t, Options{Pace: fast})
	d, got := discover(t, h, map[string]any{"no_reset": true})
	eventually(t, "state degraded", func() bool {
		s := d.Status()
		return s.State == Degraded && strings.Contains(s.Reason, "synced without a reset")
	})
	if got.synced() != 0 {
		t.Error("the change was passed on")
	}
}

// hostFacts is a source of facts as the inventory is one: what is told is in the
// list before.
type hostFacts struct {
	mu    sync.Mutex
	known map[uint64]string
	lists int
}

func cgroupFact(id uint64, path string) *protov1.HostFact {
	return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{
		Change: protov1.CgroupFact_CHANGE_CREATED, Id: id, Path: path,
	}}}
}

func (f *hostFacts) list(*protov1.Subscribe) []*protov1.HostFact {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	var all []*protov1.HostFact
	for id, path := range f.known {
		all = append(all, cgroupFact(id, path))
	}
	return all
}

func (f *hostFacts) add(id uint64) *protov1.HostFact {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := fmt.Sprintf("/c%d", id)
	f.known[id] = path
	return cgroupFact(id, path)
}

// told is what the test plugin said that it heard since the last reset.
func told(got *heard) (known map[uint64]string, resets int, synced bool) {
	known = map[uint64]string{}
	for _, c := range got.containers() {
		if !strings.HasPrefix(c.GetId(), "fact-") {
			continue
		}
		switch c.GetName() {
		case "reset":
			resets++
			synced = false
			clear(known)
		case "synced":
			synced = true
		default:
			known[c.GetCgroupId()] = c.GetName()
		}
	}
	return known, resets, synced
}

func TestASubscriberHearsTheListAndThenWhatChanges(t *testing.T) {
	h := newHost(t, Options{})
	facts := &hostFacts{known: map[uint64]string{}}
	for id := range uint64(1200) { // more than one batch
		facts.add(id)
	}
	got := &heard{}
	handler := got.handler()
	handler.Facts = facts.list
	d, err := h.RunDiscoverer(t.Context(), testSpec(t, config.Discoverer, map[string]any{"subscribe": true}), handler)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list", func() bool {
		known, resets, synced := told(got)
		return len(known) == 1200 && resets == 1 && synced
	})
	d.Tell(facts.add(5000), true)
	d.Tell(&protov1.HostFact{Fact: &protov1.HostFact_Process{Process: &protov1.ProcessFact{Pid: 1}}}, true)
	eventually(t, "the new cgroup", func() bool {
		known, _, _ := told(got)
		return known[5000] == "/c5000"
	})
	// A new process hears everything anew.
	if err := syscall.Kill(running(t, d), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.Tell(facts.add(5001), true)
	eventually(t, "the list again", func() bool {
		known, resets, synced := told(got)
		return len(known) == 1202 && resets == 2 && synced
	})
}

func TestAPluginThatDoesNotReadMissesFactsAndTheDaemonDoesNotWait(t *testing.T) {
	h := newHost(t, Options{})
	facts := &hostFacts{known: map[uint64]string{}}
	got := &heard{}
	handler := got.handler()
	handler.Facts = facts.list
	d, err := h.RunDiscoverer(t.Context(), testSpec(t, config.Discoverer, map[string]any{"deaf": true}), handler)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the subscription", func() bool { return d.subscribed.Load() != nil })
	for id := range uint64(200000) {
		d.Tell(facts.add(id), true)
	}
	s := d.Status()
	if s.QueueDropped == 0 || s.QueueDepth > queueLimit {
		t.Errorf("status is %+v", s)
	}
	if s.State != Running {
		t.Errorf("state is %s", s.State)
	}
}

func TestASlowReaderIsToldEverythingAgain(t *testing.T) {
	// Nobody is to find it frozen meanwhile, however busy the machine is.
	h := newHost(t, Options{Pace: Pace{HealthInterval: time.Hour}})
	facts := &hostFacts{known: map[uint64]string{}}
	got := &heard{}
	handler := got.handler()
	handler.Facts = facts.list
	d, err := h.RunDiscoverer(t.Context(), testSpec(t, config.Discoverer, map[string]any{"subscribe": true}), handler)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the subscription", func() bool { return d.subscribed.Load() != nil })
	pid := running(t, d)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for id := uint64(0); d.Status().QueueDropped == 0; id++ {
		d.Tell(facts.add(id), true)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	facts.mu.Lock()
	want := len(facts.known)
	facts.mu.Unlock()
	eventually(t, "all cgroups", func() bool {
		known, resets, synced := told(got)
		return len(known) == want && resets >= 2 && synced
	})
	if s := d.Status(); s.Restarts != 0 {
		t.Errorf("status is %+v", s)
	}
}

func TestOfACgroupThatNobodyAwaitsAndThatIsGoneNothingIsTold(t *testing.T) {
	d := &Discoverer{facts: newQueue[*protov1.HostFact]()}
	d.subscribed.Store(&protov1.Subscribe{Cgroups: true})
	d.facts.begin()
	fact := func(id uint64, c protov1.CgroupFact_Change) *protov1.HostFact {
		return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Id: id, Change: c}}}
	}
	const created, removed = protov1.CgroupFact_CHANGE_CREATED, protov1.CgroupFact_CHANGE_REMOVED
	d.Tell(fact(1, created), false)
	d.Tell(fact(2, created), true)
	d.Tell(fact(3, created), false)
	d.Tell(fact(4, removed), false) // of which it was told long ago
	d.Tell(fact(1, removed), false)
	d.Tell(fact(2, removed), true)
	d.Tell(&protov1.HostFact{Fact: &protov1.HostFact_Process{Process: &protov1.ProcessFact{Pid: 9}}}, true) // not subscribed to
	items, _, _, err := d.facts.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range items {
		got = append(got, fmt.Sprint(f.GetCgroup().GetId(), " ", f.GetCgroup().GetChange()))
	}
	if s := strings.Join(got, ", "); s != "2 CHANGE_CREATED, 3 CHANGE_CREATED, 4 CHANGE_REMOVED, 2 CHANGE_REMOVED" {
		t.Errorf("told are %s", s)
	}
}
