package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

// samplerServer serves an author's Sampler.
type samplerServer struct {
	protov1.UnimplementedSamplerServer
	slot    slot
	process *process
	impl    sampling.Sampler // written once, before process.configured is
}

var _ protov1.SamplerServer = (*samplerServer)(nil)

// interval is what the sampler asks for between two reports; 0: the daemon's.
func (s *samplerServer) interval() time.Duration {
	if p, ok := s.impl.(sampling.Paced); ok {
		return p.Interval()
	}
	return 0
}

// Sample answers the start, and then each report, in lock-step.
func (s *samplerServer) Sample(stream grpc.BidiStreamingServer[protov1.Report, protov1.Answer]) error {
	send := counted(&s.process.sent, stream.Send)
	recv := received(&s.process.received, stream.Recv)
	return s.process.stream(stream.Context(), s.slot, func(ctx context.Context) error {
		first, err := s.impl.Start(ctx)
		if err != nil {
			return fmt.Errorf("start: %w", err)
		}
		if err := send(answer(0, first)); err != nil {
			return fmt.Errorf("send the first answer: %w", err)
		}
		reports := make(chan *protov1.Report)
		// As in Discover: ends right after this handler. The daemon sends no
		// report before the answer to the last, so nothing gathers here.
		go func() {
			defer close(reports)
			for {
				r, err := recv()
				if err != nil {
					return // the stream has ended
				}
				select {
				case reports <- r:
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case <-ctx.Done():
				return nil
			case r, ok := <-reports:
				if !ok {
					return nil
				}
				p, err := s.impl.Plan(ctx, r)
				if err != nil {
					return fmt.Errorf("plan: %w", err)
				}
				if err := send(answer(r.GetSequence(), p)); err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("send an answer: %w", err)
				}
			}
		}
	})
}

// answer holds a policy, or keep for none.
func answer(report uint64, p *protov1.Policy) *protov1.Answer {
	a := &protov1.Answer{ReportSequence: report, Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
	if p != nil {
		a.Answer = &protov1.Answer_Policy{Policy: p}
	}
	return a
}
