package daemon

import (
	"fmt"
	"io"
	"runtime/debug"
	"strconv"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/selector"
	"github.com/ebpf-tracer/ebpf-tracer/core/share"
)

func budgetOf(b config.Budget) kernel.Budget {
	return kernel.Budget{EventsPerSecond: b.EventsPerSecond, Reserve: b.Reserve}
}

func limitsOf(b config.Budget) load.Limits {
	return load.Limits{CPUs: b.CPU, MemoryBytes: uint64(max(b.Memory, 0))}
}

// limitMemory has the runtime collect its garbage sooner near the bound; without one it is
// as it was when the daemon began.
func (d *daemon) limitMemory(b config.Budget) {
	if b.Memory > 0 {
		debug.SetMemoryLimit(b.Memory)
	} else {
		debug.SetMemoryLimit(d.memoryLimit)
	}
}

// sharesOf are the shares of the budget of a configuration that has been checked.
func sharesOf(shares []config.Share) (out []share.Share) {
	for _, s := range shares {
		out = append(out, share.Share{Name: s.Name, Portion: s.Portion, Selector: selector.Selector{
			Containers: s.Container, Namespaces: s.Namespace, Images: s.Image, Labels: s.Label, Cgroups: s.Cgroup,
		}})
	}
	return out
}

// BudgetPlan is what is kept at most.
type BudgetPlan struct {
	EventsPerSecond float64 `json:"events_per_second"`
	Reserved        float64 `json:"reserved"` // of it, for critical and first events
	// Shares are for what their selectors mean, in order.
	Shares []SharePlan `json:"shares,omitempty"`
}

// SharePlan is a share of the budget.
type SharePlan struct {
	Name            string  `json:"name"`
	EventsPerSecond float64 `json:"events_per_second"`
}

func planBudget(c config.Config) BudgetPlan {
	b := c.Budget
	p := BudgetPlan{EventsPerSecond: b.EventsPerSecond, Reserved: b.EventsPerSecond * b.Reserve}
	for _, s := range c.Shares {
		p.Shares = append(p.Shares, SharePlan{Name: s.Name, EventsPerSecond: b.EventsPerSecond * s.Portion})
	}
	return p
}

// writeShareMetrics tells what is kept of each share of the budget.
func (d *daemon) writeShareMetrics(w io.Writer, wanted func(name string) bool) error {
	if d.shares == nil {
		return nil
	}
	all := d.shares.List()
	var b []byte
	for _, m := range []struct {
		name, help, kind string
		value            func(share.View) string
	}{
		{"ebpf_tracer_budget_share_ratio", "Part of the budget that a share is for its control groups alone.", "gauge",
			func(v share.View) string { return strconv.FormatFloat(v.Portion, 'g', -1, 64) }},
		{"ebpf_tracer_budget_share_kept_total", "Events of a share's control groups that were kept, lost ones among them.", "counter",
			func(v share.View) string { return strconv.FormatUint(v.Kept, 10) }},
	} {
		if len(all) == 0 || !wanted(m.name) {
			continue
		}
		b = fmt.Appendf(b, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
		for _, v := range all {
			b = fmt.Appendf(b, "%s{share=%q} %s\n", m.name, v.Name, m.value(v))
		}
	}
	_, err := w.Write(b)
	return err
}
