package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

type config struct {
	Prefix string `json:"prefix"`
}

func block() schema.Block {
	return schema.Block{Doc: "A test.", Attributes: []schema.Attribute{
		{Name: "prefix", Type: schema.String, Default: "c-", Doc: "What names begin with."},
	}}
}

// run is a discoverer that is a function.
type run func(ctx context.Context, host discover.Host, inv discover.Inventory) error

func (run) Detect(context.Context) (string, error) { return "nowhere", discover.ErrAbsent }
func (r run) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) error {
	return r(ctx, host, inv)
}

func discoverer(r func(c config, env plugin.Env) run) plugin.Discoverer[config] {
	return plugin.Discoverer[config]{
		Name: "test", Version: "1", Doc: "A test.", Schema: block(),
		Validate: func(c config) diag.Diagnostics {
			if c.Prefix == "" {
				return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("prefix")}, "no prefix", "give one")}
			}
			return nil
		},
		New: func(_ context.Context, c config, env plugin.Env) (discover.Discoverer, error) { return r(c, env), nil },
	}
}

// echo tells a container for each cgroup that it hears of.
func echo(c config, env plugin.Env) run {
	return func(ctx context.Context, host discover.Host, inv discover.Inventory) error {
		env.Log.Info("discovering", "features", env.Features)
		facts := host.Facts(&protov1.Subscribe{Cgroups: true})
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case batch := <-facts:
				for _, f := range batch.GetFacts() {
					var err error
					switch f := f.GetFact().(type) {
					case *protov1.HostFact_Reset_:
						err = inv.Reset()
					case *protov1.HostFact_Synced:
						err = inv.Synced()
					case *protov1.HostFact_Cgroup:
						err = inv.Container(&protov1.Container{Id: fmt.Sprint(f.Cgroup.GetId()), Name: c.Prefix + f.Cgroup.GetPath()})
					}
					if err != nil {
						return err
					}
				}
			}
		}
	}
}

func TestADiscovererIsToldFactsAndItsInventoryIsKept(t *testing.T) {
	p := sdktest.StartWith(t, discoverer(echo), sdktest.Options{Features: []string{"later"}})
	if ds := p.Validate(map[string]any{"prefix": ""}); !ds.HasErrors() {
		t.Error("an empty prefix is valid")
	}
	p.Configure(nil)
	if present, detail := p.Detect(); present || detail != "nowhere" {
		t.Error(present, detail)
	}
	d := p.Discover()
	if s := d.AwaitSubscribed(); !s.GetCgroups() || s.GetProcesses() {
		t.Errorf("subscribed to %v", s)
	}
	present := protov1.CgroupFact_CHANGE_PRESENT
	d.Tell(sdktest.HostReset(), sdktest.Cgroup(present, 1, "one"), sdktest.Cgroup(present, 2, "two"), sdktest.HostSynced())
	d.AwaitSynced()
	d.Await("two containers", func(v *sdktest.Inventory) bool { return len(v.Containers) == 2 && v.ContainerNamed("c-two") != nil })
	d.Tell(sdktest.HostReset(), sdktest.Cgroup(present, 2, "two"), sdktest.HostSynced())
	d.AwaitSnapshots(2)
	d.Await("one container, after a snapshot of one", func(v *sdktest.Inventory) bool { return len(v.Containers) == 1 })
	d.Close()
	again := p.Discover()
	again.AwaitSubscribed()
	if d.Err() == nil || again.Err() != nil {
		t.Errorf("the first stream ended with %v, the second with %v", d.Err(), again.Err())
	}
}

func TestADetectorIsToldWorkloadsAndItsFactsAreKept(t *testing.T) {
	p := sdktest.Start(t, plugin.Detector[config]{
		Name: "test", Version: "1", Doc: "A test.", Schema: block(),
		New: func(context.Context, config, plugin.Env) (mesh.Detector, error) { return everyone{}, nil },
	})
	p.Configure(nil)
	m := p.Mesh()
	m.TellAll(sdktest.Container(&protov1.Container{Id: "a"}), sdktest.Container(&protov1.Container{Id: "b"}))
	m.AwaitSynced()
	m.Await("two facts", func(f *sdktest.Facts) bool { return len(f.Containers) == 2 })
	m.Tell(sdktest.RemoveContainer("a"))
	m.Await("one fact", func(f *sdktest.Facts) bool { return len(f.Containers) == 1 && f.Containers["b"].GetMesh() == "test" })
	m.TellAll()
	m.Await("no fact", func(f *sdktest.Facts) bool { return len(f.Containers) == 0 })
}

// everyone is a detector that tells of every container that it is in the mesh.
type everyone struct{}

func (everyone) Detect(ctx context.Context, workloads <-chan *protov1.InventoryChanges, facts mesh.Facts) error {
	for batch := range workloads {
		out := &protov1.MeshChanges{}
		for _, c := range batch.GetChanges() {
			m := &protov1.MeshChange{}
			switch c := c.GetChange().(type) {
			case *protov1.InventoryChange_Reset_:
				m.Change = &protov1.MeshChange_Reset_{Reset_: &protov1.Reset{}}
			case *protov1.InventoryChange_Synced:
				m.Change = &protov1.MeshChange_Synced{Synced: &protov1.Synced{}}
			case *protov1.InventoryChange_Container:
				m.Change = &protov1.MeshChange_Fact{Fact: &protov1.MeshFact{Mesh: "test", Workload: container(c.Container.GetId())}}
			case *protov1.InventoryChange_Removed:
				m.Change = &protov1.MeshChange_Removed{Removed: container(c.Removed.GetContainer().GetId())}
			}
			out.Changes = append(out.Changes, m)
		}
		if err := facts.Send(out); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func container(id string) *protov1.WorkloadRef {
	return &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{Container: &protov1.ContainerRef{Id: id}}}
}

// half is a sampler that keeps a half, and then what it kept.
type half struct{ sequence uint64 }

func (h *half) Start(context.Context) (*protov1.Policy, error) {
	h.sequence++
	return &protov1.Policy{Sequence: h.sequence, DefaultProbability: proto.Float64(0.5)}, nil
}

func (h *half) Plan(_ context.Context, r *protov1.Report) (*protov1.Policy, error) {
	if len(r.GetClasses()) > 0 {
		h.sequence++
		return &protov1.Policy{Sequence: h.sequence, DefaultProbability: proto.Float64(0.25)}, nil
	}
	return nil, nil
}

func TestASamplerAnswersReports(t *testing.T) {
	p := sdktest.Start(t, plugin.Sampler[config]{
		Name: "test", Version: "1", Doc: "A test.", Schema: block(),
		New: func(context.Context, config, plugin.Env) (sampling.Sampler, error) { return &half{}, nil },
	})
	p.Configure(nil)
	s := p.Sample()
	if got := s.Policy().GetDefaultProbability(); got != 0.5 {
		t.Errorf("starts with %v", got)
	}
	if a := s.Report(&protov1.Report{}); a.GetKeep() == nil {
		t.Errorf("answers %v", a)
	}
	if a := s.Report(&protov1.Report{Classes: []*protov1.ClassLoad{{}}}); a.GetReportSequence() != 2 || s.Policy().GetDefaultProbability() != 0.25 {
		t.Errorf("answers %v", a)
	}
}

// failing records what a harness fails its test with.
type failing struct {
	testing.TB
	mu       sync.Mutex
	said     []string
	cleanups []func()
}

func (f *failing) record(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, s)
}

func (f *failing) Errorf(format string, args ...any) { f.record(fmt.Sprintf(format, args...)) }
func (f *failing) Error(args ...any)                 { f.record(fmt.Sprint(args...)) }
func (f *failing) Fatalf(format string, args ...any) { f.Errorf(format, args...); runtime.Goexit() }
func (f *failing) Fatal(args ...any)                 { f.Error(args...); runtime.Goexit() }
func (f *failing) Cleanup(c func())                  { f.cleanups = append(f.cleanups, c) }

// failure runs a test of its own and gives what it failed with.
func failure(t *testing.T, test func(t testing.TB)) string {
	t.Helper()
	f := &failing{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(f.cleanups) - 1; i >= 0; i-- {
				f.cleanups[i]()
			}
		}()
		test(f)
	}()
	<-done
	return strings.Join(f.said, "\n")
}

func TestWhatBreaksTheContractFailsTheTestWithASentence(t *testing.T) {
	forever := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		discover run
		want     string
	}{
		"no reset": {func(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
			return errors.Join(inv.Container(&protov1.Container{Id: "a"}), inv.Reset(), inv.Synced(), forever(ctx))
		}, `the stream begins with container "a": the first change is a reset`},
		"no id": {func(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
			return errors.Join(inv.Reset(), inv.Container(&protov1.Container{Name: "a"}), inv.Synced(), forever(ctx))
		}, "a container has no id"},
		"returns": {func(_ context.Context, _ discover.Host, inv discover.Inventory) error {
			return inv.Reset()
		}, "the plugin's method returned, without an error"},
		"fails": {func(context.Context, discover.Host, discover.Inventory) error {
			return errors.New("the runtime is odd")
		}, "the stream ended before a snapshot (a reset, what there is, synced): the runtime is odd"},
		"does not end": {func(_ context.Context, _ discover.Host, inv discover.Inventory) error {
			if err := errors.Join(inv.Reset(), inv.Synced()); err != nil {
				return err
			}
			<-t.Context().Done()
			return nil
		}, "a method of the plugin did not return when its context was done"},
	} {
		t.Run(name, func(t *testing.T) {
			said := failure(t, func(t testing.TB) {
				p := sdktest.Start(t, discoverer(func(config, plugin.Env) run { return c.discover }))
				p.Configure(nil)
				p.Discover().AwaitSynced()
				p.Stop()
			})
			if !strings.Contains(said, c.want) {
				t.Errorf("it said %q, want %q", said, c.want)
			}
		})
	}
}

func TestMistakesOfTheTestItselfAreSaid(t *testing.T) {
	good := discoverer(echo)
	for name, c := range map[string]struct {
		test func(t testing.TB)
		want string
	}{
		"an argument that is not in the schema": {func(t testing.TB) { sdktest.Start(t, good).Configure(`{"prefx":"a"}`) }, "there is no argument prefx"},
		"a configuration that is refused":       {func(t testing.TB) { sdktest.Start(t, good).Configure(config{}) }, "prefix: no prefix: give one"},
		"a stream before it is configured":      {func(t testing.TB) { sdktest.Start(t, good).Discover().AwaitSynced() }, "not configured yet"},
		"a stream of another kind":              {func(t testing.TB) { p := sdktest.Start(t, good); p.Configure(nil); p.Sample() }, "unknown service"},
		"no doc": {func(t testing.TB) {
			sdktest.Start(t, plugin.Discoverer[config]{Name: "test", Version: "1", New: good.New})
		}, "it has no doc"},
	} {
		t.Run(name, func(t *testing.T) {
			if said := failure(t, c.test); !strings.Contains(said, c.want) {
				t.Errorf("it said %q, want %q", said, c.want)
			}
		})
	}
}
