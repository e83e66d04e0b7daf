package daemon

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// source answers the local API and the metrics, all from the same numbers.
type source struct{ *daemon }

// Version of the daemon and of what it runs on.
func (s source) Version() *protov1.GetVersionResponse {
	out := &protov1.GetVersionResponse{
		Version: s.options.Version, Revision: s.options.Revision, GoVersion: runtime.Version(),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		out.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return out
}

// Plugins and how they are, and what discoverer "auto" looks for.
func (s source) Plugins() []*protov1.PluginView {
	states := s.host.Status()
	out := make([]*protov1.PluginView, 0, len(states))
	found := map[string]string{}
	for _, l := range s.auto.lookedFor() {
		if l.running {
			found[l.name] = l.found
			continue
		}
		p := &protov1.PluginView{Kind: protov1.Kind_KIND_DISCOVERER, Name: l.name, State: l.state, Reason: l.reason}
		if !l.since.IsZero() {
			p.SinceUnixNano = l.since.UnixNano()
		}
		out = append(out, p)
	}
	for _, p := range states {
		view := &protov1.PluginView{
			Kind: pluginKinds[p.Kind], Name: p.Name, Version: p.Version, State: string(p.State),
			SinceUnixNano: p.Since.UnixNano(), Pid: uint32(p.PID), Restarts: p.Restarts,
			Reason: p.Reason, QueueDepth: p.QueueDepth, QueueDropped: p.QueueDropped,
			MemoryBytes: p.MemoryBytes, CpuSeconds: p.CPUSeconds, LastStderr: p.LastStderr,
			Refused: p.Refused, LastError: p.LastError, Replaced: p.Replaced,
			Program: p.Program, Digest: p.Digest, Sandbox: sandboxView(p.Confinement),
		}
		if p.Kind == config.Discoverer {
			view.Found = found[p.Name]
		}
		out = append(out, view)
	}
	return out
}

func sandboxView(c pluginhost.Confinement) *protov1.Sandbox {
	return &protov1.Sandbox{
		Uid: c.UID, Applied: c.Applied, NotApplied: c.NotApplied, Granted: c.Granted, RootEquivalent: c.RootEquivalent,
	}
}

var pluginKinds = map[config.PluginKind]protov1.Kind{
	config.Discoverer: protov1.Kind_KIND_DISCOVERER,
	config.Mesh:       protov1.Kind_KIND_MESH,
	config.Sampler:    protov1.Kind_KIND_SAMPLER,
}

// Stats of all stages. Outcomes are read before what they are outcomes of: the
// exporters', the pipeline's, the ring's, the kernel's.
func (s source) Stats() (*protov1.Stats, error) {
	out := &protov1.Stats{
		StartedUnixNano: s.started.UnixNano(), Node: s.config.Node.Name,
	}
	for _, x := range s.outputs {
		e := x.Stats()
		out.Exporters = append(out.Exporters, &protov1.ExporterStats{
			Name: e.Name, Released: e.Released, Exported: e.Exported, QueueDropped: e.QueueDropped,
			Failed: e.Failed, ScopedOut: e.ScopedOut, Queued: e.Queued, Bytes: e.Bytes, LastError: e.LastError,
		})
	}
	estimates := s.governor.Estimates()
	p := s.pipeline.Stats()
	out.Pipeline = &protov1.Pipeline{
		Decoded: p.Decoded, Malformed: p.Malformed, Released: p.Released, Held: p.Held,
		InRing: s.kernel.InRing(), SkippedRuns: s.kernel.SkippedRuns(), Injected: p.Injected,
	}
	rows, _, swaps, err := s.kernel.Ledger()
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.Seen == 0 {
			continue
		}
		out.Kernel = append(out.Kernel, &protov1.LedgerRow{
			Kind: r.Kind.String(), Priority: r.Priority.String(), Seen: r.Seen, Kept: r.Kept,
			SampledOut: r.SampledOut, Filtered: r.Filtered, Lost: r.Lost, Bytes: r.Bytes,
			Probability: r.Probability, Estimate: estimateOf(&r, estimates),
		})
	}
	for _, l := range s.pipeline.Lives(&p) {
		out.Kernel = append(out.Kernel, &protov1.LedgerRow{
			Kind: l.Kind.String(), Priority: l.Priority.String(), Seen: l.Injected + l.Lost, Kept: l.Injected,
			Lost: l.Lost, Probability: 1,
		})
	}
	out.User, out.UserEvents = userRows(s.governor.User()), s.governor.User().Stats()
	out.Load = s.loadStats(slices.Concat(out.Kernel, out.User), swaps)
	if out.Faults, err = s.kernel.Faults(); err != nil {
		return nil, err
	}
	inv := s.inventory.Stats()
	out.Faults["inventory_refused"] = inv.Refused
	out.Faults["inventory_unplaced"] = inv.Unplaced
	out.Faults["inventory_missed"] = inv.Missed
	out.Faults["lifecycle_strange"] = inv.LifeStrange
	spaces := s.namespaces.Stats()
	out.Faults["namespaces_unreadable"] = spaces.Unreadable
	out.Faults["namespaces_missed"] = spaces.Missed
	out.Faults["namespaces_unmapped"] = spaces.Unmapped
	s.resources.faults(out.Faults)
	out.Discovered = s.discovered(inv, spaces)
	out.Attribution = &protov1.Attribution{
		Host: p.Host, Container: p.Container, Pending: p.Pending, HeldTotal: p.HeldTotal,
		HeldExpired: p.HeldExpired, HeldOverflow: p.HeldOverflow, Corrected: inv.Corrected,
		DelayP50Seconds: p.Delay.Quantile(0.5).Seconds(), DelayP99Seconds: p.Delay.Quantile(0.99).Seconds(),
		Containers: inv.Containers, Cgroups: inv.Cgroups, Key: s.key,
		Delay: histogram(p.Delay), ByPidNamespace: p.ByPID,
		FirstExecs: p.FirstExecs, FirstExecsNamed: p.FirstExecsNamed,
	}
	for _, q := range s.queues() {
		out.Queues = append(out.Queues, &protov1.QueueDepth{Queue: q.Name, Depth: q.Depth, Capacity: q.Capacity})
	}
	out.Policy = s.policyStats(swaps)
	for _, probe := range s.kernel.Probes() {
		out.Probes = append(out.Probes, &protov1.ProbeStats{
			Name: probe.Name, State: probe.State(), Reason: probe.Reason(), Programs: probe.Programs,
		})
	}
	out.Probes = append(out.Probes, s.shedProbes()...)
	if p := s.resources.probe(); p != nil {
		out.Probes = append(out.Probes, p)
	}
	out.Daemon = daemonStats()
	return out, nil
}

// discovered is how much there is, and who finds it.
func (s source) discovered(inv inventory.Stats, spaces namespace.Stats) *protov1.Discovered {
	out := &protov1.Discovered{
		Containers: inv.Containers, Pods: inv.Pods, Services: inv.Services,
		NamespaceIsolation: spaces.Read > 0 || spaces.Unreadable == 0,
	}
	for _, n := range spaces.Namespaces {
		out.Namespaces += n
	}
	for _, p := range s.host.Status() {
		if p.State != pluginhost.Running && p.State != pluginhost.Degraded {
			continue
		}
		switch {
		case p.Kind == config.Mesh:
			out.ServiceMeshSupport = true
		case p.Kind == config.Discoverer && p.Name == "kubernetes":
			out.KubernetesEnabled = true
		}
	}
	return out
}

// NamespaceCounts are the namespaces that containers are in, by type.
func (s source) NamespaceCounts() map[string]uint64 {
	out := make(map[string]uint64, namespace.Types)
	for t, n := range s.namespaces.Stats().Namespaces {
		out[namespace.Type(t).String()] = n
	}
	return out
}

func histogram(h pipeline.Histogram) *protov1.Histogram {
	out := &protov1.Histogram{Counts: h.Counts[:], SumSeconds: h.Sum.Seconds()}
	for _, bound := range pipeline.HistogramBounds {
		out.BoundsSeconds = append(out.BoundsSeconds, bound.Seconds())
	}
	return out
}

func (s source) policyStats(swaps uint64) *protov1.PolicyStats {
	p := s.governor.Policy()
	out := &protov1.PolicyStats{
		Generation: p.Generation, Source: p.Source, Reason: p.Reason, Swaps: swaps, Refused: p.Refused,
	}
	if !p.Expires.IsZero() {
		out.ExpiresUnixNano = p.Expires.UnixNano()
	}
	return out
}

func daemonStats() *protov1.DaemonStats {
	out := &protov1.DaemonStats{Pid: uint32(os.Getpid())}
	if self, err := procfs.Self(); err == nil {
		if stat, err := self.Stat(); err == nil {
			out.MemoryBytes = uint64(stat.ResidentMemory())
			out.CpuSeconds = stat.CPUTime()
		}
	}
	return out
}

// queues are the bounded queues between the stages.
func (d *daemon) queues() []load.Queue {
	out := []load.Queue{
		{Name: "hold", Depth: d.pipeline.Stats().Held, Capacity: uint64(d.config.Attribution.HoldTotal)},
		{Name: "inventory", Depth: d.inventory.Stats().Queued, Capacity: inventory.QueueSize},
		{Name: "lifecycle", Depth: uint64(d.pipeline.WaitingLives()), Capacity: pipeline.LifeQueue},
	}
	for _, x := range d.outputs {
		depth, capacity := x.Queue()
		out = append(out, load.Queue{Name: "exporter/" + x.Stats().Name, Depth: depth, Capacity: capacity})
	}
	return out
}

// printLedger writes the ledger of a run that has ended: every event that was seen,
// and what became of it.
func (d *daemon) printLedger() {
	s, err := source{d}.Stats()
	if err != nil {
		d.log.Error("read the ledger", "error", err)
		return
	}
	w := tabwriter.NewWriter(d.options.Stderr, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "KIND\tPRIORITY\tSEEN\tKEPT\tSAMPLED OUT\tFILTERED\tLOST\t")
	var kept, open uint64
	for _, r := range s.Kernel {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", r.Kind, r.Priority, r.Seen, r.Kept, r.SampledOut, r.Filtered, r.Lost)
		kept += r.Kept
		open += r.Seen - r.Kept - r.SampledOut - r.Filtered - r.Lost
	}
	p := s.Pipeline
	if err := w.Flush(); err != nil {
		return // standard error is gone: nobody reads this
	}
	fmt.Fprintf(d.options.Stderr, "kept %d = decoded %d + injected %d + malformed %d + in ring %d; decoded + injected = released %d + held %d; skipped runs %d\n",
		kept, p.Decoded, p.Injected, p.Malformed, p.InRing, p.Released, p.Held, p.SkippedRuns)
	for _, x := range s.Exporters {
		fmt.Fprintf(d.options.Stderr, "%s: released %d = exported %d + queue dropped %d + failed %d + scoped out %d + queued %d\n",
			x.Name, x.Released, x.Exported, x.QueueDropped, x.Failed, x.ScopedOut, x.Queued)
	}
	d.printTruth(s)
	closes := open == 0 && kept == p.Decoded+p.Injected+p.Malformed+p.InRing && p.Decoded+p.Injected == p.Released+p.Held
	for _, x := range s.Exporters {
		closes = closes && x.Released == p.Released
	}
	if closes {
		fmt.Fprintln(d.options.Stderr, "the ledger closes")
	} else {
		d.log.Error("the ledger does not close: please report this", "open", open)
	}
}
