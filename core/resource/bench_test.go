package resource

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const many = 1000 // containers of a benchmark

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReading reads 1,000 containers with groups in every hierarchy of this host.
//
// On a hybrid host, a virtual machine that was busy otherwise, where a container has 13
// files that are read each time and 5 now and then, a reading took 70 to 110 us of CPU
// time with all files kept open, and 165 to 220 us with each opened anew. As it is, with
// at most 1,024 open, 1,000 containers every ten seconds took 1.7 to 2.5 % of one CPU.
func BenchmarkReading(b *testing.B) {
	h := here(b)
	parent := fmt.Sprintf("/ebpf-tracer-bench-%d", os.Getpid())
	groupsOn(b, h, parent)
	sources := make([]source, many)
	for i := range sources {
		path := fmt.Sprintf("%s/%064x", parent, i)
		groupsOn(b, h, path)
		sources[i].groups = h.locate(path, "", "")
	}
	for _, c := range []struct {
		name string
		most int
	}{{"opened each time", 0}, {"as it is", mostOpen}, {"all kept open", 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			r := newReader(h)
			r.most = c.most
			var u Usage
			pass := func(n int) {
				for i := range sources {
					if err := r.read(&sources[i], &u, n%limitsEvery == 0, true, time.Now()); err != nil {
						b.Fatal(err)
					}
				}
			}
			pass(0)
			b.ReportAllocs()
			n := 0
			began := cpuTime(b)
			for b.Loop() {
				pass(n)
				n++
			}
			each := float64(cpuTime(b)-began) / float64(n) / many
			b.ReportMetric(each, "cpu-ns/container")
			b.ReportMetric(each*many/float64(10*time.Second)*100, "%cpu-at-10s")
			b.ReportMetric(float64(r.open), "open")
			for i := range sources {
				r.free(&sources[i])
			}
		})
	}
}

// BenchmarkRound is a full round as the daemon does it, but all at once: it lists the
// containers and the traffic of all cgroups, reads 1,000 containers with groups in every
// hierarchy of this host, and judges how near to their limits they are.
//
//	go test ./core/resource -run XXX -bench Round -benchtime 20x
//
// On a hybrid host, a virtual machine of two busy CPUs, a round took 202 to 206 ms of CPU
// time, 2.0 % of one CPU at a round every ten seconds: 85 % of it in the kernel, where
// files are opened, read and closed. It allocated 0.9 MB, for the list of containers.
func BenchmarkRound(b *testing.B) {
	h := here(b)
	if h.v2 == "" {
		b.Fatal("this host has no default hierarchy, where traffic is accounted")
	}
	account, err := kernel.NewAccount(h.v2)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := account.Close(); err != nil {
			b.Error(err)
		}
	})
	parent := fmt.Sprintf("/ebpf-tracer-round-%d", os.Getpid())
	groupsOn(b, h, parent)
	containers := make([]*protov1.InventoryChange, many)
	for i := range containers {
		path := fmt.Sprintf("%s/%s", parent, id(i))
		groupsOn(b, h, path)
		containers[i] = &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
			Id: id(i), CgroupPath: path, State: protov1.Container_STATE_RUNNING}}}
	}
	all := inventory.New(inventory.Options{})
	if _, err := all.Scan(h.v2); err != nil {
		b.Fatal(err)
	}
	if err := all.Apply("bench", containers); err != nil {
		b.Fatal(err)
	}
	m := New(Options{Inventory: all, Hierarchies: h, Traffic: account, Exported: many, WarnAt: 0.9})
	b.Cleanup(m.close)
	round := func() {
		m.begin(time.Now())
		for _, c := range m.order {
			m.readOne(c, time.Now())
		}
	}
	round()
	before := m.Stats()
	b.ReportAllocs()
	began, n := cpuTime(b), 0
	for b.Loop() {
		round()
		n++
	}
	took := float64(cpuTime(b)-began) / float64(n)
	s := m.Stats()
	if s.Readings-before.Readings != uint64(n*many) || s.Gone+s.Failed+s.Faults > 0 {
		b.Errorf("%d rounds: %+v", n, s)
	}
	b.ReportMetric(took/1e6, "cpu-ms/round")
	b.ReportMetric(took/float64(10*time.Second)*100, "%cpu-at-10s")
	b.ReportMetric(float64(s.Open), "open")
}

// BenchmarkMemory is what a container costs in memory while it is measured and exported:
// 1.6 KB, and 4.4 KiB of the kernel's for each file that is kept open.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		h := newHost(b)
		m := h.monitor(func(o *Options) { o.Exported = many })
		for i := range many {
			group := h.container(i, i, 1)
			h.traffic.sent(group, 1)
		}
		before := heap()
		h.pass(m)
		h.pass(m)
		if err := m.WriteMetrics(discard{}, all); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(heap()-before)/many, "B/container")
		runtime.KeepAlive(m)
	}
}

func heap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkScrape writes the metrics of 500 containers: 2.6 MB in 1.8 ms of CPU time.
func BenchmarkScrape(b *testing.B) {
	h := newHost(b)
	m := h.monitor(func(o *Options) { o.Exported = 500 })
	for i := range 500 {
		h.container(i, i, 1)
	}
	h.pass(m)
	for _, c := range m.containers {
		if c.usage.time == 0 {
			c.usage.time = 1
		}
		for field := range fields {
			c.usage.set(field, 1234567890)
		}
	}
	size := 0
	b.ReportAllocs()
	began := cpuTime(b)
	for b.Loop() {
		var w counting
		if err := m.WriteMetrics(&w, all); err != nil {
			b.Fatal(err)
		}
		size = int(w)
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N)/1e6, "cpu-ms/scrape")
	b.ReportMetric(float64(size), "B/scrape")
}

type counting int

func (c *counting) Write(b []byte) (int, error) {
	*c += counting(len(b))
	return len(b), nil
}
