// Package capture records the live load of this host.
//
// It owns the probes while it runs, a kernel side of its own beside that of any daemon:
// nothing is sampled, no budget holds, and no plugin, inventory or exporter is there. It
// must never keep an event, nor write anything but a recording.
package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
	"github.com/ebpf-tracer/ebpf-tracer/core/recording"
)

// Options of Run.
type Options struct {
	Probes    []string // of kernel.ProbeNames
	RingBytes int      // of each ring: a power of two
	Rings     int      // 0: one for each NUMA node
	Duration  time.Duration
	// Began is called when events are recorded from now on; nil: nobody is told.
	Began func(probes []kernel.Probe)
	// Progress is called about twice a second, by Run's own goroutine; nil: nobody is
	// told.
	Progress func(Progress)
}

// Progress of a recording.
type Progress struct {
	Elapsed time.Duration
	Events  uint64
	Lost    uint64
}

// Run records until the time is up or ctx is done, which is no error, and ends the
// recording. What is missing in it is in the header that it gives. It needs the rights to
// load programs.
func Run(ctx context.Context, o Options, w *recording.Writer) (h recording.Header, err error) {
	k, err := kernel.Load(kernel.Options{Probes: o.Probes, RingBytes: o.RingBytes, Rings: o.Rings, NoArgs: true})
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	start := kernel.Monotonic()
	if o.Began != nil {
		o.Began(k.Probes())
	}
	ctx, stop := context.WithTimeout(ctx, o.Duration)
	defer stop()
	s := &sink{kernel: k, recorder: recording.NewRecorder(w, start), progress: o.Progress, start: time.Now(), stop: stop}
	if err := k.Read(ctx, s); err != nil {
		return h, err
	}
	end := kernel.Monotonic()
	if err := k.Detach(); err != nil {
		return h, err
	}
	if err := k.Read(ctx, s); err != nil { // what was in the rings
		return h, err
	}
	if s.err != nil {
		return h, s.err
	}
	lost, err := s.missing()
	if err != nil {
		return h, err
	}
	return w.Close(time.Duration(end-start), lost)
}

// sink records what is read. It is the kernel reader's goroutine's.
type sink struct {
	kernel   *kernel.Kernel
	recorder *recording.Recorder
	decoder  pipeline.Decoder
	event    event.Event
	decoded  uint64 // records that were events
	err      error  // the first
	stop     func()

	progress func(Progress)
	start    time.Time
	told     time.Time
}

var _ kernel.Sink = (*sink)(nil)

// Record implements kernel.Sink.
func (s *sink) Record(record []byte) {
	if s.err != nil || s.decoder.Decode(record, &s.event) != nil {
		return // what is malformed is missing in the end
	}
	s.decoded++
	if s.err = s.recorder.Add(&s.event); s.err != nil {
		s.stop()
	}
}

const tellEvery = 500 * time.Millisecond

// Drained implements kernel.Sink.
func (s *sink) Drained() (again time.Duration) {
	if s.progress == nil {
		return 0
	}
	if now := time.Now(); now.Sub(s.told) >= tellEvery {
		s.told = now
		if lost, err := s.lost(); err == nil {
			s.progress(Progress{Elapsed: now.Sub(s.start), Events: s.decoded, Lost: lost})
		}
	}
	return tellEvery
}

// Congested implements kernel.Sink.
func (s *sink) Congested() bool { return false }

// lost is how many events the kernel has lost so far.
func (s *sink) lost() (uint64, error) {
	_, lost, err := s.ledger()
	return lost, err
}

// ledger gives what the kernel has kept, and what it has lost or not even seen.
func (s *sink) ledger() (kept, lost uint64, err error) {
	rows, _, _, err := s.kernel.Ledger()
	if err != nil {
		return 0, 0, err
	}
	for _, r := range rows {
		kept += r.Kept
		lost += r.Lost
	}
	faults, err := s.kernel.Faults()
	if err != nil {
		return 0, 0, err
	}
	return kept, lost + s.kernel.SkippedRuns() + faults["no_policy"], nil
}

// missing is how many events are not in the recording, once all were read: lost by the
// kernel, or no events.
func (s *sink) missing() (uint64, error) {
	kept, lost, err := s.ledger()
	if err != nil {
		return 0, err
	}
	if kept < s.decoded {
		return 0, fmt.Errorf("the kernel says that it kept %d events, and %d were read: please report this", kept, s.decoded)
	}
	return lost + kept - s.decoded, nil
}
