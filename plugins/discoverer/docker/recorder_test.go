package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// recorder is an inventory that keeps the contract's rules: it knows what a
// daemon would know, and fails the test where a stream would break.
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
	happened   map[string]time.Duration // by line: from the event's own time to now
	reason     string
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{t: t, changed: make(chan struct{}), containers: map[string]*protov1.Container{}, told: map[string]bool{}, happened: map[string]time.Duration{}}
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

func (r *recorder) Lifecycle(l *protov1.Lifecycle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("lifecycle %s %s", short(l.GetContainer().GetId()), l.Action)
	for _, k := range []string{"exit_code", "signal"} {
		if v := l.Attributes[k]; v != "" {
			line += " " + k + "=" + v
		}
	}
	r.happened[line] = time.Since(time.Unix(0, l.TimeUnixNano))
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
	r.t.Error("an answer from docker, which asked nothing")
	return nil
}
func (r *recorder) Pod(*protov1.Pod) error         { r.t.Error("a pod from docker"); return nil }
func (r *recorder) Service(*protov1.Service) error { r.t.Error("a service from docker"); return nil }
func (r *recorder) RemovePod(string) error         { r.t.Error("a pod from docker"); return nil }
func (r *recorder) RemoveService(string) error     { r.t.Error("a service from docker"); return nil }

// wait until a condition on what is known holds. It fails when the test's time
// is nearly up.
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

func (r *recorder) delay(line string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.happened[line]
}

func short(id string) string { return id[:min(12, len(id))] }

var _ discover.Inventory = (*recorder)(nil)
