package resource

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// host is a host with cgroup v2 in a directory, an inventory and a clock that stands.
type host struct {
	t         testing.TB
	dir       string
	inventory *inventory.Inventory
	now       time.Time
	ids       uint64
	traffic   fakeTraffic
	log       bytes.Buffer
	warned    []warning
}

func newHost(t testing.TB) *host {
	h := &host{t: t, dir: t.TempDir(), now: time.Unix(1_000_000, 0), ids: 100}
	h.inventory = inventory.New(inventory.Options{Now: func() time.Time { return h.now }})
	h.write("cgroup.controllers", "cpu io memory pids\n")
	h.traffic = fakeTraffic{of: map[uint64]kernel.Traffic{}}
	return h
}

func (h *host) monitor(change func(*Options)) *Monitor {
	h.t.Helper()
	layout, err := find(nil, h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	o := Options{
		Inventory: h.inventory, Hierarchies: layout, Traffic: &h.traffic, Interval: 10 * time.Second, Exported: 100, WarnAt: 0.9,
		Log: slog.New(slog.NewTextHandler(&h.log, nil)), Proc: filepath.Join(h.dir, "proc"),
		Now: func() time.Time { return h.now },
	}
	if change != nil {
		change(&o)
	}
	m := New(o)
	m.reader.most = 0 // an open file on a disk outlives its directory, unlike those of a control group
	h.t.Cleanup(m.close)
	return m
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// group makes a cgroup with some figures and tells the inventory.
func (h *host) group(path string, cpuMicroseconds, pids int) uint64 {
	h.t.Helper()
	h.use(path, cpuMicroseconds, pids)
	h.ids++
	h.inventory.CgroupCreated(h.ids, path, time.Now())
	return h.ids
}

func (h *host) use(path string, cpuMicroseconds, pids int) {
	h.t.Helper()
	h.write(path+"/cpu.stat", fmt.Sprintf("usage_usec %d\nuser_usec 0\nsystem_usec 0\n", cpuMicroseconds))
	h.write(path+"/pids.current", fmt.Sprintf("%d\n", pids))
}

func (h *host) gone(path string, id uint64) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.dir, path)); err != nil {
		h.t.Fatal(err)
	}
	h.inventory.CgroupRemoved(id, time.Now())
}

func (h *host) apply(changes ...*protov1.InventoryChange) {
	h.t.Helper()
	if err := h.inventory.Apply("docker", changes); err != nil {
		h.t.Fatal(err)
	}
}

// id is one of 64 digits that a number stands for.
func id(n int) string { return fmt.Sprintf("%064x", n) }

func (h *host) describe(n int, change func(*protov1.Container)) {
	h.t.Helper()
	c := &protov1.Container{
		Id: id(n), Name: fmt.Sprint("c", n), State: protov1.Container_STATE_RUNNING, CgroupPath: "/docker/" + id(n),
		Image: &protov1.Image{Name: "app", Tag: "1"}, StartedUnixNano: 5e9,
	}
	if change != nil {
		change(c)
	}
	h.apply(&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}})
}

func (h *host) removed(n int) {
	h.t.Helper()
	h.apply(&protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{
		What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: id(n)}}}}})
}

// container makes one with its cgroup.
func (h *host) container(n, cpuMicroseconds, pids int) uint64 {
	h.t.Helper()
	group := h.group("/docker/"+id(n), cpuMicroseconds, pids)
	h.describe(n, nil)
	return group
}

// pass lets the time of a pass go by, with all its readings.
func (h *host) pass(m *Monitor) {
	h.t.Helper()
	if m.began.IsZero() {
		m.begin(h.now)
	}
	for m.next < len(m.order) {
		m.step(h.now)
		h.now = h.now.Add(m.options.Interval / slots)
	}
	if at := m.began.Add(m.options.Interval); h.now.Before(at) {
		h.now = at
	}
	m.step(h.now)
	h.warned = append(h.warned, m.waiting...)
	m.tell()
}

// near tells which limits a container is near to.
func (h *host) near(m *Monitor, n int) (out []Limit) {
	for l, near := range m.containers[key{id: id(n)}].near {
		if near {
			out = append(out, Limit(l))
		}
	}
	return out
}

func (h *host) usage(m *Monitor, n int) *Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[key{id: id(n)}]
	if c == nil {
		return nil
	}
	return &c.usage
}

func (h *host) figure(m *Monitor, n int, f Field) any {
	u := h.usage(m, n)
	if u == nil {
		return "not measured"
	}
	v, ok := u.Get(f)
	if !ok {
		return "not known"
	}
	return int(v)
}

// fakeTraffic counts for cgroups what it is told.
type fakeTraffic struct {
	of       map[uint64]kernel.Traffic
	forgot   []uint64
	overflow kernel.Traffic
	err      error
}

func (f *fakeTraffic) Each(each func(uint64, kernel.Traffic) bool) error {
	for cgroup, t := range f.of {
		if !each(cgroup, t) {
			break
		}
	}
	return f.err
}

func (f *fakeTraffic) Of(cgroup uint64) (kernel.Traffic, error) { return f.of[cgroup], f.err }

func (f *fakeTraffic) Forget(cgroup uint64) (kernel.Traffic, error) {
	t := f.of[cgroup]
	delete(f.of, cgroup)
	f.forgot = append(f.forgot, cgroup)
	return t, f.err
}

func (f *fakeTraffic) Overflow() (kernel.Traffic, error) { return f.overflow, f.err }

func (f *fakeTraffic) sent(cgroup uint64, bytes uint64) {
	t := f.of[cgroup]
	t.SentBytes += bytes
	t.SentPackets++
	f.of[cgroup] = t
}
