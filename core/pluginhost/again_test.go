package pluginhost

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// anotherSocket puts a new socket in the place of what is at path, as a service
// that starts again does.
func anotherSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path+".new")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestAPluginFollowsASocketButNotOneThatKeepsChanging(t *testing.T) {
	dir, err := os.MkdirTemp("", "phs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	anotherSocket(t, socket)
	h := newHost(t, Options{Pace: Pace{
		HealthInterval: 10 * time.Millisecond, BackoffMin: time.Hour, BackoffMax: time.Hour, StableAfter: time.Hour,
	}})
	spec := testSpec(t, config.Discoverer, nil)
	spec.Grants = []config.Grant{{Opens: schema.Socket, Value: socket}}
	got := &heard{}
	d, err := h.RunDiscoverer(t.Context(), spec, got.handler())
	if err != nil {
		t.Fatal(err)
	}
	pid := running(t, d)
	anotherSocket(t, socket)
	eventually(t, "another process", func() bool { s := d.Status(); return s.State == Running && s.PID != 0 && s.PID != pid })
	anotherSocket(t, socket)
	eventually(t, "a pause", func() bool { s := d.Status(); return s.Replaced == 2 && s.State == Backoff })
	if s := d.Status(); s.Restarts != 0 || !strings.Contains(s.Reason, socket) {
		t.Errorf("status is %+v", s)
	}
}

// onFailed calls do when it is logged that a plugin has failed.
type onFailed struct {
	slog.Handler
	do func()
}

func (h onFailed) Enabled(context.Context, slog.Level) bool { return true }
func (h onFailed) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h onFailed) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "has failed") {
		h.do()
	}
	return nil
}

func TestWhoeverSeesThatAPluginHasFailedCanHaveItTriedAgain(t *testing.T) {
	var d atomic.Pointer[Discoverer]
	var failed atomic.Int64
	log := slog.New(onFailed{slog.DiscardHandler, func() {
		if failed.Add(1) > 1 {
			return
		}
		for d.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		if s := d.Load().Status().State; s == Failed {
			d.Load().Restart()
		}
	}})
	h := newHost(t, Options{Log: log})
	run, _ := discover(t, h, map[string]any{"refuse": "because"})
	d.Store(run)
	eventually(t, "its second failure", func() bool { return failed.Load() == 2 })
}
