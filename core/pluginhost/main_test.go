package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// hostRole makes this test binary a host of its own, to be killed by a test.
const hostRole = "PLUGINHOST_TEST_ROLE"

// pluginDir holds the test plugin, built once, as every kind.
var pluginDir string

func TestMain(m *testing.M) {
	if sandbox.Called() {
		sandbox.Main()
	}
	if d := os.Getenv(hostRole); d != "" {
		pluginDir = d
		victim()
		return
	}
	if pluginDir = os.Getenv(elsewhere); pluginDir != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "ph-")
	if err != nil {
		panic(err)
	}
	pluginDir = dir
	code := 1
	if err := buildPlugins(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func buildPlugins(dir string) error {
	bin := filepath.Join(dir, "testplugin")
	if out, err := exec.Command("go", "build", "-o", bin, "./testdata/testplugin").CombinedOutput(); err != nil {
		return fmt.Errorf("build the test plugin: %w\n%s", err, out)
	}
	for _, kind := range []string{"discoverer", "mesh", "sampler"} {
		sub := filepath.Join(dir, kind)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		if err := os.Link(bin, filepath.Join(sub, "test")); err != nil {
			return err
		}
		manifest := fmt.Sprintf("plugin %q \"test\" {\n  protocol = 1\n  command = [\"./test\", %q]\n  needs {\n    env = [\"PH_TEST_GIVEN\"]\n  }\n}\n", kind, kind)
		if err := os.WriteFile(filepath.Join(sub, "test.plugin.hcl"), []byte(manifest), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fast is a pace that keeps tests short where nothing real is measured by it.
var fast = Pace{BackoffMin: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond}

// newHost is a host for one test, stopped at its end.
func newHost(t testing.TB, o Options) *Host {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Stop(ctx); err != nil {
			t.Errorf("stop the host: %v", err)
		}
	})
	return h
}

// testSpec is the test plugin as a kind, under a configuration.
func testSpec(t testing.TB, kind config.PluginKind, conf map[string]any) Spec {
	t.Helper()
	c, err := NewCatalog([]string{pluginDir})
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Find(kind, "test")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return Spec{Entry: e, Config: raw, Node: &protov1.Node{Name: "node-1"}}
}

// eventually waits for a condition; the limit is for a test that fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never came: %s", what)
}

// heard records what a discoverer told.
type heard struct {
	mu      sync.Mutex
	changes []*protov1.InventoryChange
	lost    []string
}

func (h *heard) handler() DiscovererHandler {
	return DiscovererHandler{
		Changes: func(cs []*protov1.InventoryChange) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changes = append(h.changes, cs...)
		},
		Lost: func(reason string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lost = append(h.lost, reason)
		},
	}
}

func (h *heard) count(is func(*protov1.InventoryChange) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, c := range h.changes {
		if is(c) {
			n++
		}
	}
	return n
}

func (h *heard) synced() int {
	return h.count(func(c *protov1.InventoryChange) bool { return c.GetSynced() != nil })
}

func (h *heard) containers() []*protov1.Container {
	h.mu.Lock()
	defer h.mu.Unlock()
	var cs []*protov1.Container
	for _, c := range h.changes {
		if c.GetContainer() != nil {
			cs = append(cs, c.GetContainer())
		}
	}
	return cs
}

func (h *heard) losses() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.lost...)
}

// discover runs a discoverer until the end of the test.
func discover(t testing.TB, h *Host, conf map[string]any) (*Discoverer, *heard) {
	t.Helper()
	got := &heard{}
	d, err := h.RunDiscoverer(t.Context(), testSpec(t, config.Discoverer, conf), got.handler())
	if err != nil {
		t.Fatal(err)
	}
	return d, got
}

// running waits for the state and returns the process id.
func running(t testing.TB, p interface{ Status() Status }) int {
	t.Helper()
	eventually(t, "state running", func() bool { s := p.Status(); return s.State == Running && s.PID != 0 })
	return p.Status().PID
}

// gone tells whether a process has ended; a zombie has.
func gone(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(raw, []byte(") Z "))
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
