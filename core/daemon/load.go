package daemon

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

// monitor watches the host, by the thresholds of the configuration.
func (d *daemon) monitor() *monitor.Monitor {
	rules := monitor.DefaultRules()
	c := d.config.Load
	rules.CPU, rules.Network, rules.Disk = c.CPUThreshold, c.NetworkThreshold, c.DiskThreshold
	rules.DaemonMemoryBytes = uint64(c.MemoryThreshold)
	if c.MemoryThreshold == 0 {
		rules.HostMemory = 0
	}
	if c.DiskThreshold == 0 {
		rules.PressureIO = 0
	}
	o := monitor.Options{Rules: rules}
	if root := d.config.Node.HostRoot; root != "" {
		o.Proc, o.Sys = filepath.Join(root, "proc"), filepath.Join(root, "sys")
	}
	return monitor.New(o)
}

// counter counts released events, and those by the group of their cgroup: its container, or else
// the cgroup itself.
type counter struct {
	tally     *load.Tally
	inventory *inventory.Inventory
}

// Export counts one event.
func (c counter) Export(e *event.Event, a pipeline.Attribution) {
	if e.Kind.Internal() || e.Kind.Injected() {
		return
	}
	c.tally.Add(e.CgroupID, e.Kind, e.Priority, e.Weight(), func() string {
		if a.Workload != nil {
			return "container/" + a.Workload.Container.GetId()
		}
		if g := c.inventory.Lookup(e.CgroupID); g != nil {
			return "cgroup/" + strings.TrimPrefix(g.Path, "/")
		}
		return ""
	})
}

// Flush does nothing: what was counted is counted.
func (counter) Flush() {}

// Congested is never so.
func (counter) Congested() bool { return false }

// labeller gives events the priorities that are only shown. It comes after what counts
// them by their own, and before what shows them.
type labeller struct{ labels *filter.Labels }

// Export labels one event.
func (l *labeller) Export(e *event.Event, _ pipeline.Attribution) { l.labels.Of(e) }

// Flush does nothing.
func (*labeller) Flush() {}

// Congested is never so.
func (*labeller) Congested() bool { return false }

// forgetCgroups gives back what the kernel keeps of cgroups that are gone, until ctx is
// done.
func (d *daemon) forgetCgroups(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.kernel.ForgetGone(); err != nil {
			d.log.Warn("forget control groups that are gone", "error", err)
		}
	}
}
