// Command testplugin is a plugin of each kind, as well- or ill-behaved as its
// configuration says. Its first argument is the kind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func init() { fmt.Println("printed before the handshake") }

type config struct {
	Containers  int      `json:"containers"`  // in the snapshot
	Stream      int      `json:"stream"`      // lifecycles after it, as fast as it goes
	Subscribe   bool     `json:"subscribe"`   // to cgroups, and tell each as a container
	Deaf        bool     `json:"deaf"`        // subscribe, and never read
	Absent      bool     `json:"absent"`      // no runtime
	Detect      string   `json:"detect"`      // hang, crash or error
	NoReset     bool     `json:"no_reset"`    // break the contract
	Refuse      string   `json:"refuse"`      // the configuration, in Validate
	NewError    string   `json:"new_error"`   // of New
	CrashNew    bool     `json:"crash_new"`   // panic in New
	SlowNew     int      `json:"slow_new"`    // milliseconds that New takes
	CrashAfter  int      `json:"crash_after"` // milliseconds into the stream
	ReturnError string   `json:"return_error"`
	Degraded    string   `json:"degraded"`
	Print       bool     `json:"print"`      // to standard output, in Discover
	LongLine    bool     `json:"long_line"`  // 200 KiB to standard error
	Grandchild  bool     `json:"grandchild"` // that holds standard error
	Hostile     bool     `json:"hostile"`    // names that are not UTF-8
	Large       bool     `json:"large"`      // a container that must be shortened
	IgnoreStop  bool     `json:"ignore_stop"`
	Hang        int      `json:"hang"` // a sampler, at this report
	Keep        bool     `json:"keep"`
	Interval    int64    `json:"interval"`
	Env         []string `json:"env"` // variables to tell as labels
}

func block() schema.Block {
	return schema.Block{Doc: "A test.", Attributes: []schema.Attribute{
		{Name: "containers", Type: schema.Integer, Default: int64(1), Min: schema.Bound(0), Doc: "How many."},
		{Name: "pause", Type: schema.Duration, Default: 500 * time.Millisecond},
		{Name: "refuse", Type: schema.String},
	}, Blocks: []schema.NestedBlock{{Name: "level", MaxItems: 3, Block: schema.Block{
		Attributes: []schema.Attribute{{Name: "rate", Type: schema.Number, Required: true}},
	}}}}
}

func validate(c config) diag.Diagnostics {
	if c.Refuse == "" {
		return nil
	}
	return diag.Diagnostics{
		diag.Errorf(diag.Path{diag.Attr("refuse")}, "refused", "%s", c.Refuse),
		{Severity: diag.Warning, Summary: "a warning", Path: diag.Path{diag.Attr("level"), diag.Index(1), diag.Key("a b")}},
	}
}

func build(c config) error {
	if c.CrashNew {
		panic("crash in New")
	}
	time.Sleep(time.Duration(c.SlowNew) * time.Millisecond)
	if c.NewError != "" {
		return errors.New(c.NewError)
	}
	if c.Grandchild {
		cmd := exec.Command("sleep", "1000")
		cmd.Stderr, cmd.Stdout = os.Stderr, os.Stdout
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "grandchild %d\n", cmd.Process.Pid)
	}
	return nil
}

func main() {
	kind := ""
	if len(os.Args) > 1 {
		kind = os.Args[1]
	}
	switch kind {
	case "mesh":
		plugin.Serve(plugin.Detector[config]{
			Name: "test", Version: "1.2.3", Doc: "A test.", Schema: block(), Validate: validate,
			New: func(_ context.Context, c config, env plugin.Env) (mesh.Detector, error) {
				return &detector{c, env}, build(c)
			},
		})
	case "sampler":
		plugin.Serve(plugin.Sampler[config]{
			Name: "test", Version: "1.2.3", Doc: "A test.", Schema: block(), Validate: validate,
			New: func(_ context.Context, c config, env plugin.Env) (sampling.Sampler, error) {
				return &sampler{c: c}, build(c)
			},
		})
	default:
		plugin.Serve(plugin.Discoverer[config]{
			Name: "test", Version: "1.2.3", Doc: "A test.", Schema: block(), Validate: validate,
			New: func(_ context.Context, c config, env plugin.Env) (discover.Discoverer, error) {
				return &discoverer{c, env}, build(c)
			},
		})
	}
}

type discoverer struct {
	c   config
	env plugin.Env
}

func (d *discoverer) Detect(context.Context) (string, error) {
	switch {
	case d.c.Absent:
		return "/no/socket", discover.ErrAbsent
	case d.c.Detect == "hang":
		select {}
	case d.c.Detect == "crash":
		go func() { panic("crash in Detect") }()
		select {}
	case d.c.Detect == "error":
		return "", errors.New("out of order")
	}
	return "here", nil
}

func (d *discoverer) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) error {
	d.env.Log.Info("discovering", "node", host.Node().GetName(), "state_dir", d.env.StateDir)
	var facts <-chan *protov1.HostFacts
	if d.c.Subscribe || d.c.Deaf {
		facts = host.Facts(&protov1.Subscribe{Cgroups: true})
	}
	if d.c.CrashAfter > 0 {
		time.AfterFunc(time.Duration(d.c.CrashAfter)*time.Millisecond, func() { panic("crash in Discover") })
	}
	if d.c.Print {
		fmt.Println("printed to standard output")
		fmt.Fprintln(os.Stderr, "printed to standard error")
	}
	if d.c.LongLine {
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 200<<10))
		d.env.Log.Info("a long record", "value", strings.Repeat("y", 200<<10))
		fmt.Fprintln(os.Stderr, "after the long lines")
	}
	if d.c.NoReset {
		return inv.Synced()
	}
	if err := inv.Reset(); err != nil {
		return err
	}
	labels := map[string]string{}
	for _, e := range os.Environ() {
		if k, v, _ := strings.Cut(e, "="); len(d.c.Env) > 0 {
			labels[k] = v
		}
	}
	for n := range d.c.Containers {
		c := &protov1.Container{Id: fmt.Sprintf("%064x", n), Name: fmt.Sprintf("name-%d", n), Labels: labels, Pid: uint32(os.Getpid())}
		if d.c.Hostile {
			c.Name = "bad\xff\xfename"
			c.Labels = map[string]string{"k\xff": "v\xff", "good": "good"}
			c.Args = []string{"\xc3\x28"}
		}
		if d.c.Large {
			c.Hostname = strings.Repeat("h", 40<<10)
			for i := range 20 {
				c.Env = append(c.Env, fmt.Sprintf("V%d=%s", i, strings.Repeat("e", 30<<10)))
			}
		}
		if err := inv.Container(c); err != nil {
			return err
		}
	}
	if err := inv.Synced(); err != nil {
		return err
	}
	if d.c.ReturnError != "" {
		return errors.New(d.c.ReturnError)
	}
	if d.c.Degraded != "" {
		inv.Degraded(d.c.Degraded)
	}
	for n := range d.c.Stream {
		if err := inv.Lifecycle(&protov1.Lifecycle{Action: "started", TimeUnixNano: int64(n)}); err != nil {
			return err
		}
	}
	if d.c.Deaf {
		facts = nil
	}
	heard := 0
	for {
		select {
		case <-ctx.Done():
			if d.c.IgnoreStop {
				select {}
			}
			return nil
		case batch, ok := <-facts:
			if !ok {
				facts = nil
				continue
			}
			for _, f := range batch.GetFacts() {
				heard++
				c := &protov1.Container{Id: "fact-" + strconv.Itoa(heard)} // one for each: of one only the last word is sent
				switch f := f.GetFact().(type) {
				case *protov1.HostFact_Reset_:
					c.Name = "reset"
				case *protov1.HostFact_Synced:
					c.Name = "synced"
				case *protov1.HostFact_Cgroup:
					c.Name = f.Cgroup.GetPath()
					c.CgroupId = f.Cgroup.GetId()
				}
				if err := inv.Container(c); err != nil {
					return err
				}
			}
		}
	}
}

type detector struct {
	c   config
	env plugin.Env
}

// Detect tells of every container that it is in the mesh.
func (d *detector) Detect(ctx context.Context, workloads <-chan *protov1.InventoryChanges, facts mesh.Facts) error {
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
				m := &protov1.MeshChange{}
				switch c := c.GetChange().(type) {
				case *protov1.InventoryChange_Reset_:
					m.Change = &protov1.MeshChange_Reset_{Reset_: &protov1.Reset{}}
				case *protov1.InventoryChange_Synced:
					m.Change = &protov1.MeshChange_Synced{Synced: &protov1.Synced{}}
				case *protov1.InventoryChange_Container:
					m.Change = &protov1.MeshChange_Fact{Fact: &protov1.MeshFact{
						Mesh: "test", Identity: c.Container.GetName(),
						Workload: &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{
							Container: &protov1.ContainerRef{Id: c.Container.GetId()},
						}},
					}}
				case *protov1.InventoryChange_Removed:
					m.Change = &protov1.MeshChange_Removed{Removed: &protov1.WorkloadRef{
						Workload: &protov1.WorkloadRef_Container{Container: c.Removed.GetContainer()},
					}}
				}
				out.Changes = append(out.Changes, m)
			}
			if err := facts.Send(out); err != nil {
				return err
			}
		}
	}
}

type sampler struct {
	c config
	n int
}

func (s *sampler) Interval() time.Duration { return time.Duration(s.c.Interval) }

func (s *sampler) policy(p float64) *protov1.Policy {
	return &protov1.Policy{DefaultProbability: &p, Reason: "test"}
}

func (s *sampler) Start(context.Context) (*protov1.Policy, error) { return s.policy(1), nil }

func (s *sampler) Plan(ctx context.Context, r *protov1.Report) (*protov1.Policy, error) {
	s.n++
	if s.n == s.c.Hang {
		select {}
	}
	if s.c.Keep {
		return nil, nil
	}
	return s.policy(1 / float64(1+r.GetSequence())), nil
}
