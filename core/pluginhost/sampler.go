package pluginhost

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// SamplerHandler reports the load to a sampler and takes its answers.
type SamplerHandler struct {
	// Interval between reports, given what the sampler asks for (0: nothing).
	// What it returns must be positive.
	Interval func(asked time.Duration) time.Duration
	// Report is the load since the last one. It is called each interval, but
	// only once the last report has been answered: the intervals that passed
	// meanwhile are in merged, and their load in the report. Its sequence and
	// merged are filled in here. It must not block.
	Report func(merged uint64) *protov1.Report
	// Answer takes each answer; its report_sequence is the last report's, or 0
	// at the start of a stream. It has a policy, or keep, or neither, which is
	// to be refused.
	Answer func(*protov1.Answer)
	// Lost says that the sampler is away: its last policy goes on until its TTL.
	Lost func(reason string)
}

// Sampler is a sampler under supervision.
type Sampler struct {
	*Plugin
	handler SamplerHandler
}

var _ kind = (*Sampler)(nil)

// RunSampler supervises a sampler until ctx is done. It returns at once.
func (h *Host) RunSampler(ctx context.Context, s Spec, handler SamplerHandler) (*Sampler, error) {
	if k := s.Entry.Manifest.Kind; k != config.Sampler {
		return nil, fmt.Errorf("run sampler: %s is a %s", s.Entry, k)
	}
	m := &Sampler{Plugin: h.plugin(s), handler: handler}
	if err := m.supervise(ctx, m); err != nil {
		return nil, fmt.Errorf("run plugin %s: %w", s.Entry, err)
	}
	return m, nil
}

// queued is nothing: reports are made when they are sent.
func (s *Sampler) queued() (depth, dropped uint64) { return 0, 0 }

func (s *Sampler) lost(reason string) { s.handler.Lost(reason) }

// stream reports and hears answers, in lock-step.
func (s *Sampler) stream(ctx context.Context, i *instance, open func()) error {
	ctx, cancel := context.WithCancel(ctx)
	st, err := protov1.NewSamplerClient(i.conn).Sample(ctx)
	if err != nil {
		cancel()
		return err
	}
	open()
	answers := make(chan *protov1.Answer)
	failed := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			a, err := st.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case answers <- a:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-ended
	}()
	// A sampler that hangs may hold up sending as well as the answer.
	hang := func(sequence uint64) *time.Timer {
		return time.AfterFunc(i.host.pace.AnswerTimeout, func() {
			select {
			case i.hung <- fmt.Errorf("it has not answered report %d for %s", sequence, i.host.pace.AnswerTimeout):
			default: // told already
			}
			cancel()
		})
	}
	return s.lockstep(i, st, answers, failed, hang)
}

func (s *Sampler) lockstep(i *instance, st grpc.BidiStreamingClient[protov1.Report, protov1.Answer],
	answers <-chan *protov1.Answer, failed <-chan error, hang func(sequence uint64) *time.Timer) error {
	tick := time.NewTicker(s.handler.Interval(i.interval))
	defer tick.Stop()
	var sequence, merged uint64
	waiting := hang(sequence) // for the answer of the start; nil: for none
	defer func() {
		if waiting != nil {
			waiting.Stop()
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		case a := <-answers:
			if waiting == nil || a.GetReportSequence() != sequence {
				return fmt.Errorf("the plugin broke the contract: it answered report %d after report %d was sent", a.GetReportSequence(), sequence)
			}
			waiting.Stop()
			waiting = nil
			s.handler.Answer(a)
		case <-tick.C:
			if waiting != nil {
				merged++
				continue
			}
			r := s.handler.Report(merged)
			sequence++
			r.Sequence, r.Merged = sequence, merged
			waiting, merged = hang(sequence), 0
			if err := st.Send(r); err != nil {
				return <-failed // the receiver knows why
			}
		}
	}
}
