// Command moody is a plugin of each kind that a reload exchanges. Its arguments are its
// kind, its version and its temper: "well"; "broken" describes itself and finds nothing
// wrong with its configuration, and then refuses it; "dead" ends before it says
// anything; "slow" takes a second to find nothing wrong, and "stiff" does nothing at
// all soon after it has found nothing wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

type config struct {
	Says string `json:"says"` // the container's name, or the mesh
}

func block() schema.Block {
	return schema.Block{Doc: "A test.", Attributes: []schema.Attribute{{Name: "says", Type: schema.String, Default: "nothing", Doc: "What it tells."}}}
}

func mood(temper string) error {
	if temper == "broken" {
		return errors.New("it is in a bad mood")
	}
	return nil
}

// freeze stops all of the process: its heap is written, with all else stopped, to
// where nobody reads it.
func freeze() {
	_, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	debug.WriteHeapDump(w.Fd())
}

func validate(temper string) func(config) diag.Diagnostics {
	return func(config) diag.Diagnostics {
		switch temper {
		case "slow":
			time.Sleep(time.Second)
			fmt.Fprintln(os.Stderr, "it has found nothing wrong")
		case "stiff":
			time.AfterFunc(100*time.Millisecond, freeze)
		}
		return nil
	}
}

func main() {
	kind, version, temper := os.Args[1], os.Args[2], os.Args[3]
	if temper == "dead" {
		fmt.Fprintln(os.Stderr, "it does not want to live")
		os.Exit(3)
	}
	switch kind {
	case "discoverer":
		plugin.Serve(plugin.Discoverer[config]{
			Name: "moody", Version: version, Doc: "A test.", Schema: block(), Validate: validate(temper),
			New: func(_ context.Context, c config, _ plugin.Env) (discover.Discoverer, error) {
				return discoverer{c}, mood(temper)
			},
		})
	case "mesh":
		plugin.Serve(plugin.Detector[config]{
			Name: "moody", Version: version, Doc: "A test.", Schema: block(), Validate: validate(temper),
			New: func(_ context.Context, c config, _ plugin.Env) (mesh.Detector, error) {
				return detector{c}, mood(temper)
			},
		})
	case "sampler":
		plugin.Serve(plugin.Sampler[config]{
			Name: "moody", Version: version, Doc: "A test.", Schema: block(), Validate: validate(temper),
			New: func(_ context.Context, c config, _ plugin.Env) (sampling.Sampler, error) {
				return &sampler{config: c}, mood(temper)
			},
		})
	}
}

// discoverer tells one container.
type discoverer struct{ config }

func (discoverer) Detect(context.Context) (string, error) { return "here", nil }

func (d discoverer) Discover(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
	err := errors.Join(inv.Reset(), inv.Container(&protov1.Container{Id: "moody", Scope: "moody", Name: d.Says}), inv.Synced())
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// detector says of every container that it is in the mesh.
type detector struct{ config }

func (d detector) Detect(ctx context.Context, workloads <-chan *protov1.InventoryChanges, facts mesh.Facts) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-workloads:
			if !ok {
				return nil
			}
			out := &protov1.MeshChanges{}
			for _, c := range batch.GetChanges() {
				switch c := c.GetChange().(type) {
				case *protov1.InventoryChange_Reset_:
					out.Changes = append(out.Changes, &protov1.MeshChange{Change: &protov1.MeshChange_Reset_{Reset_: &protov1.Reset{}}})
				case *protov1.InventoryChange_Synced:
					out.Changes = append(out.Changes, &protov1.MeshChange{Change: &protov1.MeshChange_Synced{Synced: &protov1.Synced{}}})
				case *protov1.InventoryChange_Container:
					out.Changes = append(out.Changes, &protov1.MeshChange{Change: &protov1.MeshChange_Fact{Fact: &protov1.MeshFact{
						Mesh: d.Says, Workload: &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{
							Container: &protov1.ContainerRef{Id: c.Container.GetId(), Scope: c.Container.GetScope()},
						}},
					}}})
				}
			}
			if len(out.Changes) > 0 {
				if err := facts.Send(out); err != nil {
					return err
				}
			}
		}
	}
}

// sampler keeps a fifth. After four reports it says what it is told to: "nan",
// "negative", "above", "empty", "million" or "silent"; or it keeps "all", or "no noop": all
// but what processes of that name do.
type sampler struct {
	config
	reports int
}

func (*sampler) Interval() time.Duration { return 250 * time.Millisecond }

func (*sampler) Start(context.Context) (*protov1.Policy, error) {
	p := 0.2
	return &protov1.Policy{DefaultProbability: &p, Reason: "it likes a fifth"}, nil
}

func (s *sampler) Plan(ctx context.Context, _ *protov1.Report) (*protov1.Policy, error) {
	if s.reports++; s.reports < 4 {
		return nil, nil
	}
	value := map[string]float64{"nan": math.NaN(), "negative": -1, "above": 1000, "all": 1, "no noop": 1}[s.Says]
	p := &protov1.Policy{DefaultProbability: &value, Reason: s.Says}
	switch s.Says {
	case "empty":
		return &protov1.Policy{}, nil
	case "million":
		for i := range 1_000_000 {
			group := fmt.Sprint(i)
			p.Rules = append(p.Rules, &protov1.Rule{Match: &protov1.ClassPattern{Group: &group}, Probability: &value})
		}
	case "no noop":
		p.Filters = []*protov1.Filter{{Comm: []string{"noop"}}}
	case "silent":
		<-ctx.Done()
		return nil, ctx.Err()
	case "nothing":
		return nil, nil
	}
	return p, nil
}
