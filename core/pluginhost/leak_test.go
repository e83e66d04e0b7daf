package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestRestartsLeaveNoGoroutinesAndNoFiles(t *testing.T) {
	before, files := runtime.NumGoroutine(), openFiles(t)
	h, err := New(Options{Log: slog.New(slog.DiscardHandler), Pace: Pace{StableAfter: time.Nanosecond, Restarts: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	got := &heard{}
	d, err := h.RunDiscoverer(t.Context(), testSpec(t, config.Discoverer, nil), got.handler())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		eventually(t, "a snapshot", func() bool { return got.synced() == n+1 })
		if err := syscall.Kill(d.Status().PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last snapshot", func() bool { return got.synced() == 21 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	ok := func() bool { return runtime.NumGoroutine() <= before && openFiles(t) <= files }
	for until := time.Now().Add(10 * time.Second); !ok() && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	if !ok() {
		var b strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
			t.Error(err)
		}
		t.Errorf("%d goroutines, %d before; %d files, %d before\n%s", runtime.NumGoroutine(), before, openFiles(t), files, b.String())
	}
}
