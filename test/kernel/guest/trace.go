package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

// trace is a loaded kernel side and everything that has been read from it.
type trace struct {
	kernel *kernel.Kernel
	cancel context.CancelFunc
	read   chan error
	sink   sink
}

func start() (*trace, error) {
	k, err := kernel.Load(kernel.Options{Probes: kernel.ProbeNames(), RingBytes: 4 << 20})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &trace{kernel: k, cancel: cancel, read: make(chan error, 1)}
	go func() { t.read <- k.Read(ctx, &t.sink) }()
	return t, nil
}

// patience is how long events may take to arrive, on an emulated machine too. It
// is only spent when something is missing.
const patience = 20 * time.Second

// await returns when every expectation is met, or when no more is to be hoped for.
func (t *trace) await(expected []expectation) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-t.read:
			t.read <- err
			return fmt.Errorf("read the rings: %w", err)
		default:
		}
		records := t.sink.snapshot()
		met := true
		for _, x := range expected {
			if ok, _ := x.met(records); !ok {
				met = false
				break
			}
		}
		if met {
			return nil
		}
	}
	return nil
}

// stop detaches, drains the rings and gives everything that was read.
func (t *trace) stop() ([]event.Event, error) {
	err := t.kernel.Detach()
	t.cancel()
	err = errors.Join(err, <-t.read)
	t.read <- nil
	if err != nil {
		return nil, fmt.Errorf("detach and drain: %w", err)
	}
	return t.sink.snapshot(), nil
}

func (t *trace) close() {
	t.cancel()
	<-t.read
	if err := t.kernel.Close(); err != nil {
		fmt.Println("close:", err)
	}
}

// ledger adds up what the kernel counted against what was read, and prints what
// does not fit. It gives how many lines do not.
func (t *trace) ledger(out io.Writer, records []event.Event) (wrong int) {
	fail := func(format string, args ...any) {
		wrong++
		fmt.Fprintf(out, "FAIL  "+format+"\n", args...)
	}
	rows, _, _, err := t.kernel.Ledger()
	if err != nil {
		fail("the ledger can be read: %v", err)
		return wrong
	}
	read := map[[2]int]uint64{}
	for _, e := range records {
		read[[2]int{int(e.Kind), int(e.Priority)}]++
	}
	var total kernel.Counts
	for _, r := range rows {
		if sum := r.Kept + r.SampledOut + r.Filtered + r.Lost; sum != r.Seen {
			fail("ledger: %v %v: seen %d, outcomes %d", r.Kind, r.Priority, r.Seen, sum)
		}
		if n := read[[2]int{int(r.Kind), int(r.Priority)}]; n != r.Kept {
			fail("ledger: %v %v: kept %d, read %d", r.Kind, r.Priority, r.Kept, n)
		}
		total.Seen += r.Seen
		total.Kept += r.Kept
		total.SampledOut += r.SampledOut
		total.Filtered += r.Filtered
		total.Lost += r.Lost
	}
	if total.Lost > 0 || t.sink.malformed > 0 || t.kernel.InRing() > 0 {
		fail("ledger: %d lost, %d malformed, %d left in the rings", total.Lost, t.sink.malformed, t.kernel.InRing())
	}
	faults, err := t.kernel.Faults()
	if err != nil {
		fail("the faults can be read: %v", err)
	}
	for name, n := range faults {
		if n > 0 {
			fail("fault %s: %d", name, n)
		}
	}
	if wrong == 0 {
		fmt.Fprintf(out, "ok    the ledger closes: seen %d = kept %d + sampled out %d + filtered %d + lost %d; read %d\n",
			total.Seen, total.Kept, total.SampledOut, total.Filtered, total.Lost, len(records))
	}
	return wrong
}

// sink decodes records and keeps them all.
type sink struct {
	decoder   pipeline.Decoder
	mu        sync.Mutex
	events    []event.Event
	malformed int
}

// Record implements kernel.Sink.
func (s *sink) Record(record []byte) {
	var e event.Event
	err := s.decoder.Decode(record, &e)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.malformed++
		return
	}
	// The slices are the ring's and the decoder's.
	for _, b := range []*[]byte{
		&e.Comm, &e.Exec.Path, &e.Exec.Args, &e.Network.LocalAddr, &e.Network.PeerAddr,
		&e.Open.Path, &e.Cgroup.Path,
	} {
		*b = bytes.Clone(*b)
	}
	s.events = append(s.events, e)
}

// Drained implements kernel.Sink.
func (s *sink) Drained() time.Duration { return 0 }

// Congested implements kernel.Sink.
func (s *sink) Congested() bool { return false }

func (s *sink) snapshot() []event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[:len(s.events):len(s.events)]
}
