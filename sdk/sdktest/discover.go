package sdktest

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Detect asks a discoverer whether its runtime is there, and where.
func (p *Plugin) Detect() (present bool, detail string) {
	p.t.Helper()
	ctx, done := p.deadline()
	defer done()
	r, err := protov1.NewDiscovererClient(p.conn).Detect(ctx, &protov1.DetectRequest{})
	if err != nil {
		p.t.Fatalf("detect: %v", err)
	}
	return r.GetPresent(), r.GetDetail()
}

// Discovery is the stream of a discoverer. Its methods may be called from several
// goroutines, Tell from one at a time.
type Discovery struct {
	*stream
	send grpc.BidiStreamingClient[protov1.HostFacts, protov1.InventoryChanges]
	view Inventory
}

// Discover opens the stream. While an earlier one still ends, it waits.
func (p *Plugin) Discover() *Discovery {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := protov1.NewDiscovererClient(p.conn).Discover(ctx)
	if err != nil {
		cancel()
		p.t.Fatalf("open the stream: %v", err)
	}
	d := &Discovery{stream: &stream{t: p.t, cancel: cancel}, send: st, view: newInventory()}
	var judge contract.Inventory
	d.receive(func() error {
		b, err := st.Recv()
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		p.broken(judge.Batch(b))
		d.view.apply(b)
		return nil
	})
	return d
}

// Await waits until what the discoverer told fulfils ok, and fails the test when it
// never does. what ends the sentence "there was never ...". ok must not keep the
// inventory.
func (d *Discovery) Await(what string, ok func(v *Inventory) bool) {
	d.t.Helper()
	d.await(what, func() bool { return ok(&d.view) })
}

// AwaitSynced waits for the first whole snapshot of this stream.
func (d *Discovery) AwaitSynced() { d.t.Helper(); d.AwaitSnapshots(1) }

// AwaitSnapshots waits until n snapshots of this stream were told whole.
func (d *Discovery) AwaitSnapshots(n int) {
	d.t.Helper()
	d.Await("a snapshot (a reset, what there is, synced)", func(v *Inventory) bool { return v.Snapshots >= n })
}

// AwaitSubscribed waits until the discoverer has asked for host facts, and tells
// which.
func (d *Discovery) AwaitSubscribed() *protov1.Subscribe {
	d.t.Helper()
	var s *protov1.Subscribe
	d.Await("a subscription to host facts", func(v *Inventory) bool { s = v.Subscribed; return s != nil })
	return s
}

// Tell sends one batch of host facts.
func (d *Discovery) Tell(facts ...*protov1.HostFact) {
	d.t.Helper()
	if err := d.send.Send(&protov1.HostFacts{Facts: facts}); err != nil {
		d.t.Fatalf("tell host facts: %v", err)
	}
}

// HostReset begins a list of host facts, HostSynced ends it.
func HostReset() *protov1.HostFact {
	return &protov1.HostFact{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}}
}

// HostSynced ends a list of host facts.
func HostSynced() *protov1.HostFact {
	return &protov1.HostFact{Fact: &protov1.HostFact_Synced{Synced: &protov1.Synced{}}}
}

// Cgroup is the fact of a cgroup.
func Cgroup(change protov1.CgroupFact_Change, id uint64, path string) *protov1.HostFact {
	return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: change, Id: id, Path: path}}}
}

// Inventory is what a discoverer told, by the rules of the contract: what a whole
// snapshot did not tell is gone.
type Inventory struct {
	Containers map[string]*protov1.Container // by id
	Pods       map[string]*protov1.Pod       // by uid
	Services   map[string]*protov1.Service   // by uid
	Lifecycles []*protov1.Lifecycle          // all of them, in order
	Snapshots  int                           // told whole
	Subscribed *protov1.Subscribe            // nil: not
	Considered map[uint64]bool               // cgroups that are none of its containers'

	told map[protov1.WorkloadKind]map[string]bool // since the reset of an open snapshot
}

func newInventory() Inventory {
	return Inventory{
		Containers: map[string]*protov1.Container{}, Pods: map[string]*protov1.Pod{}, Services: map[string]*protov1.Service{},
		Considered: map[uint64]bool{},
		told:       map[protov1.WorkloadKind]map[string]bool{},
	}
}

// ContainerNamed is the container of that name, or nil.
func (v *Inventory) ContainerNamed(name string) *protov1.Container {
	for _, c := range v.Containers {
		if c.GetName() == name {
			return c
		}
	}
	return nil
}

const (
	container = protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER
	pod       = protov1.WorkloadKind_WORKLOAD_KIND_POD
	service   = protov1.WorkloadKind_WORKLOAD_KIND_SERVICE
)

func kinds(ks []protov1.WorkloadKind) []protov1.WorkloadKind {
	if len(ks) == 0 {
		return []protov1.WorkloadKind{container, pod, service}
	}
	return ks
}

func (v *Inventory) apply(b *protov1.InventoryChanges) {
	for _, c := range b.GetChanges() {
		switch c := c.GetChange().(type) {
		case *protov1.InventoryChange_Reset_:
			for _, k := range kinds(c.Reset_.GetKinds()) {
				v.told[k] = map[string]bool{}
			}
		case *protov1.InventoryChange_Synced:
			v.synced(c.Synced.GetKinds())
		case *protov1.InventoryChange_Container:
			v.Containers[c.Container.GetId()] = c.Container
			v.tell(container, c.Container.GetId())
		case *protov1.InventoryChange_Pod:
			v.Pods[c.Pod.GetUid()] = c.Pod
			v.tell(pod, c.Pod.GetUid())
		case *protov1.InventoryChange_Service:
			v.Services[c.Service.GetUid()] = c.Service
			v.tell(service, c.Service.GetUid())
		case *protov1.InventoryChange_Removed:
			delete(v.Containers, c.Removed.GetContainer().GetId())
			delete(v.Pods, c.Removed.GetPodUid())
			delete(v.Services, c.Removed.GetServiceUid())
		case *protov1.InventoryChange_Lifecycle:
			v.Lifecycles = append(v.Lifecycles, c.Lifecycle)
		case *protov1.InventoryChange_Subscribe:
			v.Subscribed = proto.CloneOf(c.Subscribe)
		case *protov1.InventoryChange_Considered:
			v.Considered[c.Considered.GetCgroupId()] = true
		}
	}
}

func (v *Inventory) tell(k protov1.WorkloadKind, id string) {
	if t := v.told[k]; t != nil {
		t[id] = true
	}
}

func (v *Inventory) synced(ks []protov1.WorkloadKind) {
	for _, k := range kinds(ks) {
		told := v.told[k]
		if told == nil {
			continue
		}
		delete(v.told, k)
		switch k {
		case container:
			forget(v.Containers, told)
		case pod:
			forget(v.Pods, told)
		case service:
			forget(v.Services, told)
		}
	}
	if len(v.told) == 0 {
		v.Snapshots++
	}
}

func forget[M any](all map[string]M, told map[string]bool) {
	for id := range all {
		if !told[id] {
			delete(all, id)
		}
	}
}
