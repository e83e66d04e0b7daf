package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// recorder is an inventory that keeps the contract's rules: it knows what a daemon would
// know, and fails the test where a stream would break.
type recorder struct {
	t *testing.T

	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at every call
	containers map[string]*protov1.Container
	told       map[string]bool // since reset
	inSnapshot bool
	resets     int
	syncs      int
	log        []string
	answers    map[uint64][]string // of cgroups: a container's name, or "" for none
	reason     string
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{t: t, changed: make(chan struct{}), containers: map[string]*protov1.Container{}, told: map[string]bool{}, answers: map[uint64][]string{}}
}

func (r *recorder) add(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *recorder) Reset() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inSnapshot, r.resets = true, r.resets+1
	clear(r.told)
	r.add("reset")
	return nil
}

func (r *recorder) Synced() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.inSnapshot {
		r.t.Error("synced without a reset")
	}
	r.inSnapshot, r.syncs, r.reason = false, r.syncs+1, ""
	maps.DeleteFunc(r.containers, func(id string, _ *protov1.Container) bool { return !r.told[id] })
	r.add("synced")
	return nil
}

// ref is a container's id, after its scope if it has one.
func ref(c interface {
	GetId() string
	GetScope() string
}) string {
	if c.GetScope() == "" {
		return c.GetId()
	}
	return c.GetScope() + " " + c.GetId()
}

func (r *recorder) Container(c *protov1.Container) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets == 0 {
		r.t.Error("a container before the first reset")
	}
	r.containers[c.Id], r.told[c.Id] = c, true
	if c.CgroupId != 0 {
		r.answers[c.CgroupId] = append(r.answers[c.CgroupId], c.Name)
	}
	r.add("container %s %s %s", ref(c), c.Name, strings.ToLower(strings.TrimPrefix(c.State.String(), "STATE_")))
	return nil
}

func (r *recorder) RemoveContainer(of *protov1.ContainerRef) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[of.Id]; c == nil || ref(c) != ref(of) {
		r.t.Errorf("%s is removed, and was never told", ref(of))
	}
	delete(r.containers, of.Id)
	delete(r.told, of.Id)
	r.add("remove %s", ref(of))
	return nil
}

func (r *recorder) Lifecycle(l *protov1.Lifecycle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[l.GetContainer().GetId()]; c == nil || ref(c) != ref(l.GetContainer()) {
		r.t.Errorf("%s of %s, which was never told", l.Action, ref(l.GetContainer()))
	}
	if age := time.Since(time.Unix(0, l.TimeUnixNano)); age < 0 || l.TimeUnixNano < 1e18 {
		r.t.Errorf("%s happened %s ago", l.Action, age)
	}
	r.add("lifecycle %s %s", l.GetContainer().GetId(), l.Action)
	return nil
}

func (r *recorder) Degraded(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = reason
	r.add("degraded: %s", reason)
}

func (r *recorder) Considered(id uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[id] = append(r.answers[id], "")
	r.add("considered %d", id)
	return nil
}

func (r *recorder) Pod(*protov1.Pod) error         { r.t.Error("a pod"); return nil }
func (r *recorder) Service(*protov1.Service) error { r.t.Error("a service"); return nil }
func (r *recorder) RemovePod(string) error         { r.t.Error("a pod"); return nil }
func (r *recorder) RemoveService(string) error     { r.t.Error("a service"); return nil }

var _ discover.Inventory = (*recorder)(nil)

// wait until a condition on what is known holds. It fails when the test's time is nearly
// up.
func (r *recorder) wait(what string, cond func(r *recorder) bool) {
	r.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		ok, changed := cond(r), r.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("waited in vain for %s; told:\n%s", what, strings.Join(r.log[max(0, len(r.log)-60):], "\n"))
		}
	}
}

func (r *recorder) container(id string) *protov1.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.containers[id]
}

// words are what happened to a container, in order.
func (r *recorder) words(id string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.log {
		if w, ok := strings.CutPrefix(l, "lifecycle "+id+" "); ok {
			out = append(out, w)
		}
	}
	return out
}

// answer is what was said first of a cgroup; false: nothing.
func (r *recorder) answer(id uint64) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.answers[id]; len(a) > 0 {
		return a[0], true
	}
	return "", false
}

func (r *recorder) answered(id uint64) {
	r.t.Helper()
	r.wait(fmt.Sprintf("an answer for cgroup %d", id), func(r *recorder) bool { return len(r.answers[id]) > 0 })
}

func inState(id string, s protov1.Container_State) func(*recorder) bool {
	return func(r *recorder) bool { c := r.containers[id]; return c != nil && c.State == s }
}

func synced(n int) func(*recorder) bool { return func(r *recorder) bool { return r.syncs >= n } }

func removed(id string) func(*recorder) bool {
	return func(r *recorder) bool {
		return r.containers[id] == nil && slices.ContainsFunc(r.log, func(l string) bool { return strings.HasPrefix(l, "remove ") && strings.HasSuffix(l, id) })
	}
}

// teller is a host whose facts a test makes up.
type teller chan *protov1.HostFacts

func (teller) Node() *protov1.Node                                  { return nil }
func (t teller) Facts(*protov1.Subscribe) <-chan *protov1.HostFacts { return t }
func (t teller) cgroup(change protov1.CgroupFact_Change, id uint64, path string) {
	t <- &protov1.HostFacts{Facts: []*protov1.HostFact{{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: change, Id: id, Path: path}}}}}
}
func (t teller) created(id uint64, path string) {
	t.cgroup(protov1.CgroupFact_CHANGE_CREATED, id, path)
}

func defaults(roots ...string) Config {
	return Config{Roots: roots, Resync: 30 * time.Second, Lifecycle: lifecycleUnmanaged, FilterConfig: describe.DefaultFilter()}
}

// start runs a discoverer until the test ends, and checks that it then returns.
func start(t *testing.T, c Config, node *protov1.Node) (*recorder, teller) {
	t.Helper()
	r, host := newRecorder(t), make(teller)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newDiscoverer(c, node, testLog(t)).Discover(ctx, host, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Discover ended with %v", err)
		}
	})
	return r, host
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// lines of the log that begin so.
func (r *recorder) lines(prefix string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.log {
		if strings.HasPrefix(l, prefix) {
			out = append(out, l)
		}
	}
	return out
}
