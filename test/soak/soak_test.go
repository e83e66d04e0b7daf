package soak

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

var duration = flag.Duration("duration", 2*time.Second, "how long the load lasts")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the soak needs root: the daemon loads programs into the kernel")
		os.Exit(1)
	}
	if err := env.Install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// config sends events nowhere: half an hour of them fits on no disk.
const config = `
probe "process" {}
probe "network" {}
probe "file" {}
discoverer "docker" { host = "unix://%s" }
mesh "generic" {}
sampler "threshold" {}
budget { events_per_second = 10000000 }
exporter "json" { path = "/dev/null" }
`

func TestNoPluginIsKilledAndTheLedgerClosesUnderFullLoad(t *testing.T) {
	programs, d := load.Build(t), env.StartDocker(t)
	tr := harness.Start(t, fmt.Sprintf(config, d.Socket))
	w := newWatch(t, tr)

	loads := start(t, programs, *duration)
	for busy := true; busy; {
		// Containers that come and go keep the plugins at work.
		if out, err := d.CLI(t.Context(), "run", "--rm", env.NoopImage); err != nil {
			t.Fatalf("run a container: %v: %s", err, out)
		}
		w.look()
		select {
		case <-loads.done:
			busy = false
		case <-time.After(time.Second):
		}
	}
	did := loads.wait(t)
	w.look()
	ledger := tr.Stop()

	w.report(did, ledger)
	for _, p := range w.plugins {
		if p.restarts > 0 {
			t.Errorf("plugin %s was started again %d times, last because %s", p.name, p.restarts, p.lastError)
		}
	}
	if c := ledger.Kind("process.exec"); c.Seen < did.execs.Execs {
		t.Errorf("%d execs were seen, the load alone made %d", c.Seen, did.execs.Execs)
	}
	if c := ledger.Kind("file.open"); c.Seen < did.opens.Opens {
		t.Errorf("%d opens were seen, the load alone made %d", c.Seen, did.opens.Opens)
	}
}

// counts are what the loads did by their own word.
type counts struct {
	execs load.ExecCounts
	opens load.OpenCounts
	err   error
}

// loads are those that run.
type loads struct {
	done   chan struct{} // closed when both have ended
	counts counts        // after done
}

// start runs, on every CPU at once, execs and opens as fast as they go.
func start(t *testing.T, p *load.Programs, during time.Duration) *loads {
	t.Helper()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := &loads{done: make(chan struct{})}
	end := time.Now().Add(during)
	opened := make(chan error, 1)
	go func() {
		var err error
		l.counts.opens, err = p.RunOpen(t.Context(), "-s", fmt.Sprint(max(1, int(during.Seconds()))), "-t", "2", file)
		opened <- err
	}()
	go func() {
		defer close(l.done)
		sum := &l.counts.execs
		for time.Now().Before(end) && l.counts.err == nil {
			var c load.ExecCounts
			c, l.counts.err = p.RunExec(t.Context(), "-n", "2000", "-p", "2", p.Noop)
			sum.Execs += c.Execs
			sum.Forks += c.Forks
			sum.Exits += c.Exits
			sum.Seconds += c.Seconds
		}
		if err := <-opened; l.counts.err == nil {
			l.counts.err = err
		}
	}()
	return l
}

func (l *loads) wait(t *testing.T) counts {
	t.Helper()
	<-l.done
	if l.counts.err != nil {
		t.Fatal(l.counts.err)
	}
	return l.counts
}

// watched is one process, or one plugin over all its processes.
type watched struct {
	name              string
	first, last, most uint64 // resident memory
	cpu               float64
	restarts          uint64
	lastError         string
}

func (w *watched) memory(bytes uint64) {
	if w.first == 0 {
		w.first = bytes
	}
	w.last, w.most = bytes, max(w.most, bytes)
}

// watch looks at the daemon and its plugins now and then.
type watch struct {
	t       *testing.T
	tr      *harness.Tracer
	began   time.Time
	cpu     procfs.CPUStat
	daemon  watched
	plugins []*watched
	looks   int
}

func newWatch(t *testing.T, tr *harness.Tracer) *watch {
	w := &watch{t: t, tr: tr, began: time.Now(), cpu: cpuTime(t), daemon: watched{name: "the daemon"}}
	return w
}

func cpuTime(t *testing.T) procfs.CPUStat {
	t.Helper()
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := fs.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return stat.CPUTotal
}

func (w *watch) look() {
	w.t.Helper()
	w.looks++
	ctx, cancel := context.WithTimeout(w.t.Context(), harness.Patience)
	defer cancel()
	list, err := w.tr.API().ListPlugins(ctx, &protov1.ListPluginsRequest{})
	if err != nil {
		w.t.Fatalf("ask for the plugins: %v", err)
	}
	for _, p := range list.GetPlugins() {
		seen := w.plugin(strings.ToLower(strings.TrimPrefix(p.GetKind().String(), "KIND_")) + "/" + p.GetName())
		seen.memory(p.GetMemoryBytes())
		seen.cpu, seen.restarts, seen.lastError = p.GetCpuSeconds(), p.GetRestarts(), p.GetLastError()
	}
	d := w.tr.Stats().GetDaemon()
	w.daemon.memory(d.GetMemoryBytes())
	w.daemon.cpu = d.GetCpuSeconds()
}

func (w *watch) plugin(name string) *watched {
	for _, p := range w.plugins {
		if p.name == name {
			return p
		}
	}
	p := &watched{name: name}
	w.plugins = append(w.plugins, p)
	return p
}

// report says what became of it all.
func (w *watch) report(did counts, l *harness.Ledger) {
	now := cpuTime(w.t)
	busy := (now.User + now.Nice + now.System + now.IRQ + now.SoftIRQ) - (w.cpu.User + w.cpu.Nice + w.cpu.System + w.cpu.IRQ + w.cpu.SoftIRQ)
	idle := (now.Idle + now.Iowait) - (w.cpu.Idle + w.cpu.Iowait)
	var b strings.Builder
	fmt.Fprintf(&b, "%s under load, %d looks, CPUs busy %.1f %%\n", time.Since(w.began).Round(time.Second), w.looks, 100*busy/max(busy+idle, 1e-9))
	fmt.Fprintf(&b, "execs %d, opens %d (the loads' own counts)\n", did.execs.Execs, did.opens.Opens)
	sum := l.Sum()
	fmt.Fprintf(&b, "ledger: closes %v; seen %d = kept %d + sampled out %d + filtered %d + lost %d; skipped runs %d\n",
		l.Closes, sum.Seen, sum.Kept, sum.SampledOut, sum.Filtered, sum.Lost, l.SkippedRuns)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROCESS\tRSS FIRST\tRSS LAST\tRSS MOST\tCPU\tRESTARTS\tLAST ERROR")
	var kills uint64
	for _, p := range append([]*watched{&w.daemon}, w.plugins...) {
		fmt.Fprintf(t, "%s\t%.1f MiB\t%.1f MiB\t%.1f MiB\t%.1f s\t%d\t%s\n", p.name, mib(p.first), mib(p.last), mib(p.most), p.cpu, p.restarts, p.lastError)
		kills += p.restarts
	}
	if err := t.Flush(); err != nil {
		w.t.Error(err)
	}
	fmt.Fprintf(&b, "false kills: %d", kills)
	w.t.Log("\n" + b.String())
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
