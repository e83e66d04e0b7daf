package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func defaults() Config {
	return Config{Resync: 5 * time.Minute, Timeout: 5 * time.Second, LabelsInclude: []string{"*"}, LabelSize: 4 << 10, LabelsSize: 32 << 10}
}

// fakeHost tells the facts that a test puts into it.
type fakeHost struct {
	facts chan *protov1.HostFacts
	asked chan *protov1.Subscribe
}

func (h *fakeHost) Node() *protov1.Node { return nil }

func (h *fakeHost) Facts(s *protov1.Subscribe) <-chan *protov1.HostFacts {
	h.asked <- s
	return h.facts
}

// start runs a discoverer until the test ends, and checks that it then returns.
func start(t *testing.T, c Config) *recorder {
	r, _ := startWithHost(t, c)
	return r
}

func startWithHost(t *testing.T, c Config) (*recorder, *fakeHost) {
	t.Helper()
	d, err := newDiscoverer(c, "", nil, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	r := newRecorder(t)
	h := &fakeHost{facts: make(chan *protov1.HostFacts), asked: make(chan *protov1.Subscribe, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Discover(ctx, h, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Discover ended with %v", err)
		}
	})
	if s := <-h.asked; !s.Cgroups || !s.Claims {
		t.Errorf("it subscribes to %v", s)
	}
	return r, h
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func inState(id string, s protov1.Container_State) func(*recorder) bool {
	return func(r *recorder) bool { return r.find(id).GetState() == s }
}

func synced(n int) func(*recorder) bool { return func(r *recorder) bool { return r.syncs >= n } }

// configFor follows the namespaces of a containerd.
func configFor(d *env.Containerd) Config {
	c := defaults()
	c.Address = "unix://" + d.Socket
	return c
}

// ctr runs it in the namespace default.
func ctr(t *testing.T, d *env.Containerd, args ...string) string {
	t.Helper()
	out, err := d.Ctr(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestARealContainerd(t *testing.T) {
	d := env.StartContainerd(t)
	d.Run(t, "--detach", "--label", "app.example/tier=web", env.BusyboxImage, "before", "sleep", "1000")
	r := start(t, configFor(d))
	r.wait("the snapshot", synced(1))
	t.Log(r.container("before"))
	t.Run("the life of a container is told in order", func(t *testing.T) {
		d.Run(t, "--detach", env.BusyboxImage, "life", "sleep", "1000")
		r.wait("running, with its pid", func(r *recorder) bool {
			c := r.find("life")
			return c.GetState() == protov1.Container_STATE_RUNNING && c.GetPid() != 0
		})
		ctr(t, d, "task", "pause", "life")
		r.wait("paused", inState("life", protov1.Container_STATE_PAUSED))
		ctr(t, d, "task", "resume", "life")
		r.wait("running again", inState("life", protov1.Container_STATE_RUNNING))
		ctr(t, d, "task", "kill", "--signal", "KILL", "life")
		r.wait("exited", inState("life", protov1.Container_STATE_EXITED))
		ctr(t, d, "task", "delete", "life")
		ctr(t, d, "container", "delete", "life")
		r.wait("removed", func(r *recorder) bool { return r.find("life") == nil })
		want := []string{"created", "started", "paused", "unpaused", "died exit_code=137 signal=9", "removed"}
		got := r.lines("lifecycle life ")
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "lifecycle life ")
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
	t.Run("every container of a crowd of short lives is named by its create event", func(t *testing.T) {
		const n = 40
		var wg sync.WaitGroup
		sem := make(chan struct{}, 8)
		for i := range n {
			wg.Go(func() {
				sem <- struct{}{}
				defer func() { <-sem }()
				if out, err := d.Ctr(t.Context(), d.RunArgs("--rm", env.NoopImage, fmt.Sprintf("short-%d", i))...); err != nil {
					t.Error(out, err)
				}
			})
		}
		wg.Wait()
		r.wait("all removed", func(r *recorder) bool { return len(r.containers) == 1 })
		var delays []time.Duration
		for i := range n {
			id := fmt.Sprintf("short-%d", i)
			life := r.lines(" " + id + " ")
			if len(life) < 2 || life[0] != "container "+id+" created" || life[1] != "lifecycle "+id+" created" {
				t.Errorf("%s was first told as %q", id, life)
				continue
			}
			delays = append(delays, r.delay("lifecycle "+id+" created"))
		}
		slices.Sort(delays)
		t.Logf("from the create event's own time to the inventory: median %v, largest %v", delays[len(delays)/2], delays[len(delays)-1])
	})
	t.Log(strings.Join(r.lines("short-7"), "\n"))
}

func TestDetectTellsAbsentFromThere(t *testing.T) {
	c := defaults()
	c.Address = "unix://" + t.TempDir() + "/none.sock"
	d, err := newDiscoverer(c, "", nil, slog.Default())
	must(t, err)
	if _, err := d.Detect(t.Context()); !errors.Is(err, discover.ErrAbsent) {
		t.Errorf("no socket: %v", err)
	}
	real := env.StartContainerd(t)
	d, err = newDiscoverer(configFor(real), "", nil, slog.Default())
	must(t, err)
	if detail, err := d.Detect(t.Context()); err != nil || !strings.HasPrefix(detail, "containerd ") {
		t.Errorf("a socket: %q, %v", detail, err)
	}
}
