package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	pods       map[string]*protov1.Pod
	told       map[string]bool // since reset
	inSnapshot bool
	resets     int
	syncs      int
	log        []string
	reason     string
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{t: t, changed: make(chan struct{}), containers: map[string]*protov1.Container{}, pods: map[string]*protov1.Pod{}, told: map[string]bool{}}
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
	maps.DeleteFunc(r.pods, func(uid string, _ *protov1.Pod) bool { return !r.told["pod "+uid] })
	r.add("synced")
	return nil
}

func (r *recorder) Container(c *protov1.Container) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets == 0 {
		r.t.Error("a container before the first reset")
	}
	r.containers[c.Id], r.told[c.Id] = c, true
	r.add("container %s %s %s", short(c.Id), c.Name, strings.ToLower(strings.TrimPrefix(c.State.String(), "STATE_")))
	return nil
}

func (r *recorder) RemoveContainer(ref *protov1.ContainerRef) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.containers, ref.Id)
	delete(r.told, ref.Id)
	r.add("remove %s", short(ref.Id))
	return nil
}

func (r *recorder) Pod(p *protov1.Pod) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets == 0 || p.Uid == "" {
		r.t.Error("a pod before the first reset, or without a uid")
	}
	r.pods[p.Uid], r.told["pod "+p.Uid] = p, true
	r.add("pod %s %s %s %d", p.Uid, p.Name, strings.ToLower(p.Phase), len(p.ContainerIds))
	return nil
}

func (r *recorder) RemovePod(uid string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, uid)
	delete(r.told, "pod "+uid)
	r.add("remove pod %s", uid)
	return nil
}

func (r *recorder) Lifecycle(l *protov1.Lifecycle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("lifecycle %s %s", short(l.GetContainer().GetId()), l.Action)
	if v := l.Attributes["exit_code"]; v != "" {
		line += " exit_code=" + v
	}
	if l.TimeUnixNano <= 0 {
		r.t.Errorf("%s has no time", line)
	}
	r.add("%s", line)
	return nil
}

func (r *recorder) Degraded(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = reason
	r.add("degraded: %s", reason)
}

func (r *recorder) Considered(uint64) error {
	r.t.Error("an answer to what was not asked")
	return nil
}
func (r *recorder) Service(*protov1.Service) error { r.t.Error("a service"); return nil }
func (r *recorder) RemoveService(string) error     { r.t.Error("a service"); return nil }

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

func (r *recorder) pod(uid string) *protov1.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pods[uid]
}

// lines of the log that hold all of some words, in order.
func (r *recorder) lines(words ...string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(func(yield func(string) bool) {
		for _, l := range r.log {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l, w) }) && !yield(l) {
				return
			}
		}
	})
}

// taken are the lines told since it was last asked, as one.
func (r *recorder) taken() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.log, "; ")
	r.log = nil
	return s
}

func short(id string) string { return id[:min(8, len(id))] }

var _ discover.Inventory = (*recorder)(nil)

// host tells a discoverer of cgroups.
type host struct {
	facts chan *protov1.HostFacts
	ended <-chan struct{} // when the discoverer is
}

func newHost(ended <-chan struct{}) *host {
	return &host{facts: make(chan *protov1.HostFacts, 64), ended: ended}
}

func (h *host) Node() *protov1.Node { return nil }

func (h *host) Facts(s *protov1.Subscribe) <-chan *protov1.HostFacts {
	if !s.GetCgroups() || s.GetProcesses() || s.GetClaims() {
		panic("another subscription than that to cgroups")
	}
	return h.facts
}

func (h *host) cgroup(change protov1.CgroupFact_Change, path string) {
	fact := &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: change, Id: 1, Path: path}}}
	select {
	case h.facts <- &protov1.HostFacts{Facts: []*protov1.HostFact{fact}}:
	case <-h.ended:
	}
}

// start runs a discoverer until the test ends, and checks that it then returns.
func start(t *testing.T, c Config, node *protov1.Node) (*recorder, *host) {
	t.Helper()
	d, err := newDiscoverer(c, "", node, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, h := newRecorder(t), newHost(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- d.Discover(ctx, h, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Discover ended with %v", err)
		}
	})
	return r, h
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

func synced(n int) func(*recorder) bool { return func(r *recorder) bool { return r.syncs >= n } }

func inState(id string, s protov1.Container_State) func(*recorder) bool {
	return func(r *recorder) bool { c := r.containers[id]; return c != nil && c.State == s }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
