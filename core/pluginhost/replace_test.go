package pluginhost

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
)

// instances are the socket directories of a host: one for each process.
func instances(t *testing.T, h *Host) int {
	t.Helper()
	found, err := os.ReadDir(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestAReplacementTakesOverAndNothingIsLost(t *testing.T) {
	h := newHost(t, Options{})
	d, got := discover(t, h, map[string]any{"containers": 1})
	old := running(t, d)
	eventually(t, "the first snapshot", func() bool { return got.synced() == 1 })
	for n := range 3 {
		before, began := d.Status(), time.Now()
		if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, map[string]any{"containers": 2})); err != nil {
			t.Fatal(err)
		}
		t.Logf("replaced in %s", time.Since(began).Round(100*time.Microsecond))
		s := d.Status()
		if s.PID == before.PID || s.PID == 0 || s.Version != "1.2.3" || s.Replaced != uint64(n+1) || s.Restarts != 0 {
			t.Errorf("status right after is %+v", s)
		}
		if s.CPUSeconds < before.CPUSeconds {
			t.Errorf("CPU time went from %v back to %v", before.CPUSeconds, s.CPUSeconds)
		}
		eventually(t, "the next snapshot", func() bool { return got.synced() == n+2 })
		eventually(t, "the end of the old process", func() bool { return gone(before.PID) })
		running(t, d)
	}
	if l := got.losses(); len(l) != 0 {
		t.Errorf("lost: %q", l)
	}
	if n := len(got.containers()); n != 1+3*2 {
		t.Errorf("%d containers were told, want 1 and 3 times 2", n)
	}
	eventually(t, "one process alone", func() bool { return instances(t, h) == 1 })
	// It is supervised as the first was.
	pid := running(t, d)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its snapshot after a crash", func() bool { return got.synced() == 5 })
	if s := d.Status(); s.Restarts != 1 || s.PID == old || len(got.containers()) != 9 {
		t.Errorf("after a crash status is %+v and %d containers were told", s, len(got.containers()))
	}
}

func TestAReplacementThatIsNoGoodLeavesTheOldProcessAsItWas(t *testing.T) {
	for name, c := range map[string]struct {
		conf    map[string]any
		says    string
		refused bool
	}{
		"it refuses its configuration": {map[string]any{"refuse": "because"}, "because", true},
		"it can't be made":             {map[string]any{"new_error": "because"}, "because", true},
		"it crashes":                   {map[string]any{"crash_new": true}, "panic: crash in New", false},
		"it is too slow":               {map[string]any{"slow_new": 10000}, "did not answer in time", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Options{Pace: Pace{ConfigureTimeout: time.Second}})
			d, got := discover(t, h, nil)
			pid := running(t, d)
			before := d.Status()
			err := d.Replace(t.Context(), testSpec(t, config.Discoverer, c.conf))
			var refusal *diag.Refusal
			if err == nil || !strings.Contains(err.Error(), c.says) || errors.As(err, &refusal) != c.refused {
				t.Errorf("replace: %v", err)
			}
			s := d.Status()
			if s.PID != pid || s.State != Running || !s.Since.Equal(before.Since) || s.Replaced != 0 || s.Restarts != 0 || len(got.losses()) != 0 {
				t.Errorf("status is %+v, lost %q", s, got.losses())
			}
			eventually(t, "the end of the new process", func() bool { return instances(t, h) == 1 })
		})
	}
}

func TestAPluginThatIsDownIsStartedByItsReplacement(t *testing.T) {
	for name, c := range map[string]struct {
		conf  map[string]any
		pace  Pace
		state State
	}{
		"failed":   {map[string]any{"refuse": "because"}, Pace{}, Failed},
		"backoff":  {map[string]any{"crash_new": true}, Pace{BackoffMin: time.Hour, BackoffMax: time.Hour}, Backoff},
		"starting": {map[string]any{"slow_new": 60000}, Pace{ConfigureTimeout: time.Minute}, Starting},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Options{Pace: c.pace})
			d, got := discover(t, h, c.conf)
			eventually(t, "state "+string(c.state), func() bool { return d.Status().State == c.state })
			restarts := d.Status().Restarts
			if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, nil)); err != nil {
				t.Fatal(err)
			}
			running(t, d)
			eventually(t, "its snapshot", func() bool { return got.synced() == 1 })
			if s := d.Status(); s.Replaced != 1 || s.Restarts != restarts {
				t.Errorf("status is %+v", s)
			}
		})
	}
}

func TestReplacementsTakeTurns(t *testing.T) {
	h := newHost(t, Options{})
	d, got := discover(t, h, nil)
	running(t, d)
	const n = 6
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, map[string]any{"containers": i})); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	running(t, d)
	if s := d.Status(); s.Replaced != n || s.Restarts != 0 || len(got.losses()) != 0 {
		t.Errorf("status is %+v, lost %q", s, got.losses())
	}
	eventually(t, "one process alone", func() bool { return instances(t, h) == 1 })
}

func TestAPluginThatIsStoppedMidReplacementIsGoneWithBothProcesses(t *testing.T) {
	for name, stop := range map[string]func(*Host, *Discoverer) error{
		"the plugin": func(_ *Host, d *Discoverer) error { return d.Stop(context.Background()) },
		"the host":   func(h *Host, _ *Discoverer) error { return h.Stop(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Options{})
			d, _ := discover(t, h, nil)
			pid := running(t, d)
			replaced := make(chan error, 1)
			go func() {
				replaced <- d.Replace(context.Background(), testSpec(t, config.Discoverer, map[string]any{"slow_new": 60000}))
			}()
			eventually(t, "the new process", func() bool { return instances(t, h) == 2 })
			if err := stop(h, d); err != nil {
				t.Fatal(err)
			}
			if err := <-replaced; !errors.Is(err, errStopped) {
				t.Errorf("replace: %v", err)
			}
			if !gone(pid) {
				t.Error("the old process is still there")
			}
			if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, nil)); !errors.Is(err, errStopped) {
				t.Errorf("replace what was stopped: %v", err)
			}
		})
	}
}

func TestAReplacementThatDiesLaterIsALossWithItsOwnReason(t *testing.T) {
	h := newHost(t, Options{Pace: fast})
	d, got := discover(t, h, nil)
	running(t, d)
	if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, map[string]any{"crash_after": 1})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a loss", func() bool { return len(got.losses()) > 0 })
	if l := got.losses()[0]; !strings.Contains(l, "it exited with status 2") {
		t.Errorf("lost: %q", l)
	}
	// What follows is the new one again, not the old.
	eventually(t, "a restart", func() bool { return d.Status().Restarts > 0 })
	if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, nil)); err != nil {
		t.Fatal(err)
	}
	running(t, d)
}

func TestAReplacementOfAnotherNameIsRefused(t *testing.T) {
	h := newHost(t, Options{})
	d, _ := discover(t, h, nil)
	err := d.Replace(t.Context(), testSpec(t, config.Mesh, nil))
	if err == nil || !strings.Contains(err.Error(), "mesh/test") {
		t.Errorf("replace: %v", err)
	}
}
