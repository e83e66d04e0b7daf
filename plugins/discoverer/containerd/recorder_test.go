package main

import (
	"fmt"
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
	containers map[key]*protov1.Container
	told       map[key]bool // since reset
	cgroups    map[uint64]string
	inSnapshot bool
	resets     int
	syncs      int
	log        []string
	happened   map[string]time.Duration // by line: from the event's own time to now
	reason     string
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{
		t: t, changed: make(chan struct{}), containers: map[key]*protov1.Container{}, told: map[key]bool{}, cgroups: map[uint64]string{},
		happened: map[string]time.Duration{},
	}
}

// keyFrom is a container's key; of an id that is unique by itself, without the namespace.
func keyFrom(scope, id string) key { return key{strings.TrimPrefix(scope, "containerd:"), id} }

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
	maps.DeleteFunc(r.containers, func(k key, _ *protov1.Container) bool { return !r.told[k] })
	r.add("synced")
	return nil
}

func (r *recorder) Container(c *protov1.Container) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets == 0 {
		r.t.Error("a container before the first reset")
	}
	if c.Id == "" {
		r.t.Error("a container without an id")
	}
	k := keyFrom(c.Scope, c.Id)
	r.containers[k], r.told[k] = c, true
	line := fmt.Sprintf("container %s %s", short(c.Id), strings.ToLower(strings.TrimPrefix(c.State.String(), "STATE_")))
	if c.CgroupId != 0 {
		r.cgroups[c.CgroupId] = c.Id
		line += fmt.Sprintf(" cgroup=%d", c.CgroupId)
	}
	r.add("%s", line)
	return nil
}

func (r *recorder) RemoveContainer(ref *protov1.ContainerRef) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := keyFrom(ref.Scope, ref.Id)
	delete(r.containers, k)
	delete(r.told, k)
	r.add("remove %s", short(ref.Id))
	return nil
}

func (r *recorder) Lifecycle(l *protov1.Lifecycle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("lifecycle %s %s", short(l.GetContainer().GetId()), l.Action)
	for _, k := range []string{"exit_code", "signal", "image"} {
		if v := l.Attributes[k]; v != "" && (k != "image" || l.Container == nil) {
			line += " " + k + "=" + v
		}
	}
	r.happened[line] = time.Since(time.Unix(0, l.TimeUnixNano))
	r.add("%s", line)
	return nil
}

func (r *recorder) Considered(id uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cgroups[id] = ""
	r.add("considered %d", id)
	return nil
}

func (r *recorder) Degraded(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = reason
	r.add("degraded: %s", reason)
}

func (r *recorder) Pod(*protov1.Pod) error         { r.t.Error("a pod"); return nil }
func (r *recorder) Service(*protov1.Service) error { r.t.Error("a service"); return nil }
func (r *recorder) RemovePod(string) error         { r.t.Error("a pod"); return nil }
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

// container of the namespace default, or of any when its id is unique.
func (r *recorder) container(id string) *protov1.Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(id)
}

func (r *recorder) find(id string) *protov1.Container {
	if describe.IsHex64(id) {
		return r.containers[key{"", id}]
	}
	return r.containers[key{"default", id}]
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

// forgetLog makes what follows easier to read.
func (r *recorder) forgetLog() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

func (r *recorder) delay(line string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.happened[line]
}

func short(id string) string { return id[:min(12, len(id))] }

var _ discover.Inventory = (*recorder)(nil)
