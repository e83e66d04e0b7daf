package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

const (
	// batchChanges is how many changes go into one batch at most.
	batchChanges = 100
	// batchWait is the least time between two batches that are not full: a
	// change after a pause goes out at once, a stream of them in batches.
	batchWait = 2 * time.Millisecond
	// pendingChanges is how many changes wait for the daemon before the
	// author's calls do.
	pendingChanges = 4 * batchChanges
)

// inventory gathers an author's calls into batches.
type inventory struct {
	ctx      context.Context
	degraded func(string)
	changes  chan sized
	closed   chan struct{} // closed when Discover has returned
}

// sized is a change and its bytes on the wire.
type sized struct {
	change *protov1.InventoryChange
	bytes  int
}

var _ discover.Inventory = (*inventory)(nil)

func newInventory(ctx context.Context, degraded func(string)) *inventory {
	return &inventory{
		ctx: ctx, degraded: degraded,
		changes: make(chan sized, pendingChanges),
		closed:  make(chan struct{}),
	}
}

func (i *inventory) put(c *protov1.InventoryChange) error {
	n, ok := wire.Shorten(c)
	if !ok {
		return fmt.Errorf("describe a workload in %d bytes: the daemon takes %d; leave out what is largest", n, wire.MaxChange)
	}
	if err := i.ctx.Err(); err != nil {
		return err
	}
	select {
	case i.changes <- sized{c, n}:
		return nil
	case <-i.ctx.Done():
		return i.ctx.Err()
	}
}

// close lets send end once everything is sent. No call may follow it.
func (i *inventory) close() { close(i.closed) }

// send writes batches until the inventory is closed and empty, or its context
// is done. Only it calls write.
func (i *inventory) send(write func(*protov1.InventoryChanges) error) error {
	var last time.Time
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var first sized
		select {
		case first = <-i.changes:
		case <-i.ctx.Done():
			return nil
		case <-i.closed:
			select {
			case first = <-i.changes:
			default:
				return nil
			}
		}
		batch := []*protov1.InventoryChange{first.change}
		bytes := first.bytes
		timer.Reset(max(0, batchWait-time.Since(last)))
		var over *sized // did not fit any more
		over, batch = i.gather(batch, bytes, timer.C)
		if err := write(&protov1.InventoryChanges{Changes: batch}); err != nil {
			return fmt.Errorf("send changes: %w", err)
		}
		if over != nil {
			if err := write(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{over.change}}); err != nil {
				return fmt.Errorf("send changes: %w", err)
			}
		}
		last = time.Now()
	}
}

// gather fills a batch until it is full or time is up. A change that would make
// it too large is returned apart.
func (i *inventory) gather(batch []*protov1.InventoryChange, bytes int, up <-chan time.Time) (*sized, []*protov1.InventoryChange) {
	waiting := true
	for len(batch) < batchChanges && bytes < wire.MaxBatch {
		var c sized
		if waiting {
			select {
			case c = <-i.changes:
			case <-up:
				waiting = false
				continue
			case <-i.closed:
				waiting = false
				continue
			case <-i.ctx.Done():
				return nil, batch
			}
		} else {
			select {
			case c = <-i.changes:
			default:
				return nil, batch
			}
		}
		if bytes+c.bytes > wire.MaxBatch-8*batchChanges {
			return &c, batch
		}
		batch = append(batch, c.change)
		bytes += c.bytes
	}
	return nil, batch
}

var errNil = errors.New("describe a workload: it is nil")

func (i *inventory) Reset() error {
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}})
}

func (i *inventory) Synced() error {
	i.degraded("")
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}}})
}

func (i *inventory) Container(c *protov1.Container) error {
	if c == nil {
		return errNil
	}
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}})
}

func (i *inventory) Pod(p *protov1.Pod) error {
	if p == nil {
		return errNil
	}
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: p}})
}

func (i *inventory) Service(s *protov1.Service) error {
	if s == nil {
		return errNil
	}
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Service{Service: s}})
}

func (i *inventory) RemoveContainer(c *protov1.ContainerRef) error {
	if c == nil {
		return errNil
	}
	return i.remove(&protov1.Removed{What: &protov1.Removed_Container{Container: c}})
}

func (i *inventory) RemovePod(uid string) error {
	return i.remove(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: uid}})
}

func (i *inventory) RemoveService(uid string) error {
	return i.remove(&protov1.Removed{What: &protov1.Removed_ServiceUid{ServiceUid: uid}})
}

func (i *inventory) remove(r *protov1.Removed) error {
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: r}})
}

func (i *inventory) Lifecycle(l *protov1.Lifecycle) error {
	if l == nil {
		return errNil
	}
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Lifecycle{Lifecycle: l}})
}

func (i *inventory) Considered(cgroupID uint64) error {
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Considered{Considered: &protov1.Considered{CgroupId: cgroupID}}})
}

// subscribe asks the daemon for facts.
func (i *inventory) subscribe(s *protov1.Subscribe) error {
	return i.put(&protov1.InventoryChange{Change: &protov1.InventoryChange_Subscribe{Subscribe: s}})
}

func (i *inventory) Degraded(reason string) { i.degraded(reason) }
