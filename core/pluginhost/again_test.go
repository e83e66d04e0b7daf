package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
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

func TestAPluginFollowsWhatComesBelowTheHostsRoot(t *testing.T) {
	root, err := os.MkdirTemp("", "phr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, dir := range []string{"run", "var"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/run", filepath.Join(root, "var/run")); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, Options{HostRoot: root, Pace: fast})
	spec := testSpec(t, config.Discoverer, map[string]any{"env": []string{"all"}})
	spec.Entry.Manifest.Needs.Sockets = []string{"/var/run/phr.sock"}
	spec.Entry.Manifest.Needs.Paths = []string{"/var/run/phr.dir"}
	got := &heard{}
	d, err := h.RunDiscoverer(t.Context(), spec, got.handler())
	if err != nil {
		t.Fatal(err)
	}
	pid := running(t, d)
	next := func(what string) {
		t.Helper()
		eventually(t, what, func() bool { s := d.Status(); return s.State == Running && s.PID != 0 && s.PID != pid })
		pid = d.Status().PID
	}
	anotherSocket(t, filepath.Join(root, "run/phr.sock"))
	next("a process that can use the socket")
	if err := os.Mkdir(filepath.Join(root, "run/phr.dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	next("a process that can read the directory")
	if err := os.WriteFile(filepath.Join(root, "run/phr.dir/entry"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"run/phr.sock", "var/run/phr.sock", "run/phr.dir/entry", "var/run/phr.dir/entry"} {
			at := filepath.Join(root, name)
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, at)); err != nil {
				t.Errorf("the plugin does not see %s: %v", at, err)
			}
		}
	}
	if s := d.Status(); s.Restarts != 0 || !slices.Contains(s.Confinement.Granted, "socket "+root+"/var/run/phr.sock") ||
		!slices.Contains(s.Confinement.Granted, "read "+root+"/var/run/phr.dir") {
		t.Errorf("status is %+v", s)
	}
}

func TestALinkOutOfTheHostsRootLeadsNowhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give plugins a root directory of their own")
	}
	root, err := os.MkdirTemp("", "phr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for name, to := range map[string]string{"passwords": "/etc/shadow", "up": "../../../../../../etc/shadow", "all": "/", "own": "."} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	h := newHost(t, Options{HostRoot: root, Pace: fast})
	spec := testSpec(t, config.Discoverer, nil)
	spec.Entry.Manifest.Needs.Paths = []string{"/passwords", "/up"}
	got := &heard{}
	d, err := h.RunDiscoverer(t.Context(), spec, got.handler())
	if err != nil {
		t.Fatal(err)
	}
	pid := running(t, d)
	for _, name := range []string{"passwords", "up"} {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/root%s/%s", pid, root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the plugin sees something at %s: %v", name, err)
		}
	}
	for _, name := range []string{"/all", "/own"} {
		spec.Entry.Manifest.Needs.Paths = []string{name}
		if _, err := h.Detect(t.Context(), spec, nil); err == nil || !strings.Contains(err.Error(), "leads to the host's root directory") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is not there when a plugin starts can't be shown to it, such as the directory that
// a runtime makes with its first container.
func TestAPluginSeesADirectoryThatComesLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	h := newHost(t, Options{Pace: fast})
	spec := testSpec(t, config.Discoverer, nil)
	spec.Grants = []config.Grant{{Opens: schema.Path, Value: dir}}
	got := &heard{}
	d, err := h.RunDiscoverer(t.Context(), spec, got.handler())
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(n uint64) func() bool {
		return func() bool { s := d.Status(); return s.State == Running && s.PID != 0 && s.Replaced == n }
	}
	running(t, d)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a process that sees it", replaced(1))
	// What happens in it changes nothing.
	if err := os.Mkdir(filepath.Join(dir, "web"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a process that sees the one in its place", replaced(2))
	if s := d.Status(); s.Restarts != 0 {
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
