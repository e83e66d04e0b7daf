package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/resource"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// resources are what measures containers.
type resources struct {
	monitor *resource.Monitor // nil: this host tells nothing
	account *kernel.Account   // nil: the network is not accounted
	refused string            // why not, though the configuration wants it
}

// openResources prepares the measuring. What this host can't take of it is left out.
func (d *daemon) openResources() {
	places, err := resource.Find(d.root)
	if err != nil {
		d.log.Warn("what containers use can't be measured", "reason", err)
		return
	}
	c := d.config.Resources
	o := resource.Options{Inventory: d.inventory, Hierarchies: places, Log: d.log}
	if c != nil {
		o.Interval, o.Most, o.Exported, o.WarnAt = c.Interval, c.MaxContainers, c.MaxExported, c.WarnAt
		if c.Network {
			if d.resources.account, err = account(d.root); err != nil {
				d.resources.refused = err.Error()
				d.log.Warn("the traffic of containers is not accounted; the rest is measured", "reason", err)
			} else {
				o.Traffic = d.resources.account
			}
		}
	}
	d.resources.monitor = resource.New(o)
	d.usage = d.resources.monitor
}

// account attaches the accounting of traffic where the default hierarchy is.
func account(root string) (*kernel.Account, error) {
	if root == "" {
		return nil, inventory.ErrNoDefaultHierarchy
	}
	return kernel.NewAccount(root)
}

// runResources measures, where the configuration wants it, until ctx is done.
func (d *daemon) runResources(ctx context.Context) {
	if d.config.Resources != nil && d.resources.monitor != nil {
		d.goes(func() { d.resources.monitor.Run(ctx) })
	}
}

// moreMetrics writes the metrics of filters and shares, and of containers where they are
// measured.
func (d *daemon) moreMetrics() exporter.MoreMetrics {
	containers := d.containerMetrics()
	return func(w io.Writer, wanted func(name string) bool) error {
		err := errors.Join(d.writeFilterMetrics(w, wanted), d.writeShareMetrics(w, wanted))
		if containers != nil {
			err = errors.Join(err, containers(w, wanted))
		}
		return err
	}
}

// containerMetrics writes the metrics of containers, nil where nothing is measured.
func (d *daemon) containerMetrics() exporter.MoreMetrics {
	if d.config.Resources == nil || d.resources.monitor == nil {
		return nil
	}
	return d.resources.monitor.WriteMetrics
}

// close ends the accounting. The measuring must have ended.
func (r *resources) close() error {
	if r.account == nil {
		return nil
	}
	return r.account.Close()
}

// faults adds what went wrong while containers were measured.
func (r *resources) faults(to map[string]uint64) {
	if r.monitor == nil {
		return
	}
	s := r.monitor.Stats()
	to["resources_files"], to["resources_network"], to["resources_missed"] = s.Failed, s.Faults, s.Missed
}

// probe is the accounting as one of the probes, where the configuration wants it.
func (r *resources) probe() *protov1.ProbeStats {
	switch {
	case r.account != nil:
		p := r.account.Probe()
		return &protov1.ProbeStats{Name: p.Name, State: p.State(), Programs: p.Programs}
	case r.refused != "":
		return &protov1.ProbeStats{Name: kernel.AccountName, State: kernel.Probe{}.State(), Reason: r.refused}
	}
	return nil
}

// ResourcePlan is what this host has of what is measured of containers.
type ResourcePlan struct {
	Places  []resource.Place `json:"places"`
	Network ProbePlan        `json:"network"` // the accounting of traffic
}

// planResources attaches the accounting for a moment.
func planResources(c config.Config) (*ResourcePlan, error) {
	if c.Resources == nil {
		return nil, nil
	}
	root, err := inventory.Root()
	if err != nil && !errors.Is(err, inventory.ErrNoDefaultHierarchy) {
		return nil, err
	}
	places, err := resource.Find(root)
	if err != nil {
		return nil, fmt.Errorf("find where this host accounts containers: %w", err)
	}
	p := &ResourcePlan{Places: places.Places(), Network: ProbePlan{Name: kernel.AccountName, Unseen: kernel.Unseen(kernel.AccountName)}}
	if !c.Resources.Network {
		p.Network.State, p.Network.Reason = "off", "the configuration says so"
		return p, nil
	}
	if os.Geteuid() != 0 {
		p.Network.State, p.Network.Reason = "unknown", "it takes root to tell"
		return p, nil
	}
	a, err := account(root)
	if err != nil {
		p.Network.State, p.Network.Reason = kernel.Probe{}.State(), err.Error()
		return p, nil
	}
	p.Network.State, p.Network.Programs = a.Probe().State(), a.Probe().Programs
	return p, a.Close()
}
