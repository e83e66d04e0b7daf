package pluginhost

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// DetectorHandler is told what a mesh detector found.
type DetectorHandler struct {
	// Changes, Lost: as a DiscovererHandler's.
	Changes func([]*protov1.MeshChange)
	Lost    func(reason string)
	// Workloads lists the merged inventory as it is now, without reset and
	// synced. It is called when a stream begins, and after changes were dropped.
	Workloads func() []*protov1.InventoryChange
}

// Detector is a mesh detector under supervision.
type Detector struct {
	*Plugin
	handler   DetectorHandler
	workloads *queue[*protov1.InventoryChange]
}

var _ kind = (*Detector)(nil)

// RunDetector supervises a mesh detector until ctx is done. It returns at once.
func (h *Host) RunDetector(ctx context.Context, s Spec, handler DetectorHandler) (*Detector, error) {
	if k := s.Entry.Manifest.Kind; k != config.Mesh {
		return nil, fmt.Errorf("run mesh detector: %s is a %s", s.Entry, k)
	}
	d := &Detector{Plugin: h.plugin(s), handler: handler, workloads: newQueue[*protov1.InventoryChange]()}
	if err := d.supervise(ctx, d); err != nil {
		return nil, fmt.Errorf("run plugin %s: %w", s.Entry, err)
	}
	return d, nil
}

// Tell passes changes of the merged inventory on: descriptions and removals. It
// never blocks and keeps the messages, which must not be changed any more.
// Whoever calls it has made them visible to DetectorHandler.Workloads.
func (d *Detector) Tell(changes ...*protov1.InventoryChange) { d.workloads.put(changes...) }

func (d *Detector) queued() (depth, dropped uint64) { return d.workloads.state() }

func (d *Detector) lost(reason string) { d.handler.Lost(reason) }

func (d *Detector) stream(ctx context.Context, i *instance, open func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := protov1.NewDetectorClient(i.conn).Detect(ctx)
	if err != nil {
		return err
	}
	open()
	d.workloads.begin()
	told := make(chan struct{})
	go func() {
		defer close(told)
		d.tell(ctx, i, st)
	}()
	defer func() {
		cancel()
		<-told
		d.workloads.end()
	}()
	begun, snapshot := false, false
	for {
		batch, err := st.Recv()
		if err != nil {
			return err
		}
		out := batch.GetChanges()[:0]
		for _, c := range batch.GetChanges() {
			switch c.GetChange().(type) {
			case nil:
				continue // of a newer plugin
			case *protov1.MeshChange_Reset_:
				begun, snapshot = true, true
			case *protov1.MeshChange_Synced:
				if !snapshot {
					return errSynced
				}
				snapshot = false
			}
			if !begun {
				return errNoReset
			}
			if proto.Size(c) > wire.MaxChange {
				d.refused.Add(1)
				continue
			}
			out = append(out, c)
		}
		if len(out) > 0 {
			d.handler.Changes(out)
		}
	}
}

// tell sends the inventory, and then what changes.
func (d *Detector) tell(ctx context.Context, i *instance, st grpc.BidiStreamingClient[protov1.InventoryChanges, protov1.MeshChanges]) {
	send := func(changes []*protov1.InventoryChange) error {
		i.told.Add(1)
		return st.Send(&protov1.InventoryChanges{Changes: changes})
	}
	list := func() []*protov1.InventoryChange {
		all := []*protov1.InventoryChange{{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}}}
		all = append(all, d.handler.Workloads()...)
		return append(all, &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}}})
	}
	changes := list()
	for {
		refused, err := inBatches(changes, send)
		d.refused.Add(refused)
		if err != nil {
			return // the receiver knows why
		}
		var again bool
		if changes, again, _, err = d.workloads.take(ctx); err != nil {
			return
		}
		if again {
			changes = append(list(), changes...)
		}
	}
}
