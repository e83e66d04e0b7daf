package plugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

const (
	// batchChanges is how many changes go into one batch at most.
	batchChanges = 100
	// batchWait is the least time between two batches that are not full: a
	// change after a pause goes out at once, a stream of them in batches.
	batchWait = 5 * time.Millisecond
	// leisure is how long changes that nobody waits for may wait for company.
	leisure = 100 * time.Millisecond
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

// isUrgent tells whether a change is worth a message of its own: events and their names
// may wait for it. What has happened, or is gone, is told a little later where nothing
// else is to be told.
func isUrgent(c *protov1.InventoryChange) bool {
	switch c.GetChange().(type) {
	case *protov1.InventoryChange_Lifecycle, *protov1.InventoryChange_Removed:
		return false
	}
	return true
}

// send writes batches until the inventory is closed and empty, or its context
// is done. Only it calls write.
func (i *inventory) send(write func(*protov1.InventoryChanges) error) error {
	due := time.Now() // of the next batch
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
		b := newBatch(first)
		over := i.gather(b, due, timer) // did not fit any more
		if err := write(&protov1.InventoryChanges{Changes: b.changes}); err != nil {
			return fmt.Errorf("send changes: %w", err)
		}
		if over != nil {
			if err := write(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{over.change}}); err != nil {
				return fmt.Errorf("send changes: %w", err)
			}
		}
		due = time.Now().Add(batchWait)
	}
}

// gather fills a batch until it is full or time is up; due is when it may go. A change
// that would make it too large is returned apart.
func (i *inventory) gather(b *batch, due time.Time, timer *time.Timer) *sized {
	hurry := func() {
		timer.Reset(quiet.Millis(max(0, time.Until(due))))
	}
	urgent := isUrgent(b.changes[0])
	if urgent {
		hurry()
	} else {
		timer.Reset(leisure)
	}
	waiting := true
	for len(b.changes) < batchChanges && b.bytes < wire.MaxBatch {
		var c sized
		if waiting {
			select {
			case c = <-i.changes:
			case <-timer.C:
				waiting = false
				continue
			case <-i.closed:
				waiting = false
				continue
			case <-i.ctx.Done():
				return nil
			}
		} else {
			select {
			case c = <-i.changes:
			default:
				return nil
			}
		}
		if b.bytes+c.bytes > wire.MaxBatch-8*batchChanges {
			return &c
		}
		b.add(c)
		if !urgent && isUrgent(c.change) {
			urgent = true
			hurry()
		}
	}
	return nil
}

// batch is changes that are sent together. Of descriptions of one container with nothing
// said of it in between only the last is: a description is whole.
type batch struct {
	changes []*protov1.InventoryChange
	bytes   int
	sizes   []int
	at      map[workload]int // the last thing said of a container, if it is a description
}

// workload names a container.
type workload struct{ scope, id string }

func newBatch(first sized) *batch {
	b := &batch{at: map[workload]int{}}
	b.add(first)
	return b
}

func (b *batch) add(c sized) {
	if d := c.change.GetContainer(); d != nil {
		k := workload{d.GetScope(), d.GetId()}
		if at, ok := b.at[k]; ok {
			b.bytes += c.bytes - b.sizes[at]
			b.changes[at], b.sizes[at] = c.change, c.bytes
			return
		}
		b.at[k] = len(b.changes)
	} else if about := subject(c.change); about != nil {
		delete(b.at, workload{about.GetScope(), about.GetId()})
	} else {
		clear(b.at) // of all, or of a pod: nothing is told before it that came after
	}
	b.changes = append(b.changes, c.change)
	b.sizes = append(b.sizes, c.bytes)
	b.bytes += c.bytes
}

// subject is the container that a change is about which does not describe it; nil: none.
func subject(c *protov1.InventoryChange) *protov1.ContainerRef {
	if l := c.GetLifecycle(); l != nil {
		return l.GetContainer()
	}
	return c.GetRemoved().GetContainer()
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
