package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// errSilent ends a stream on which nothing is answered.
var errSilent = errors.New("no answer in time")

// stream asks in lock-step.
type stream struct {
	grpc.BidiStreamingClient[protov1.Report, protov1.Answer]
	parent   context.Context
	ctx      context.Context
	cancel   context.CancelCauseFunc
	patience time.Duration
	sequence uint64
}

func open(parent context.Context, conn grpc.ClientConnInterface, patience time.Duration) (*stream, error) {
	ctx, cancel := context.WithCancelCause(parent)
	client, err := protov1.NewSamplerClient(conn).Sample(ctx)
	if err != nil {
		cancel(err)
		return nil, err
	}
	return &stream{client, parent, ctx, cancel, patience, 0}, nil
}

// ask sends a report and waits for its answer; of nil it waits for that of the start.
func (s *stream) ask(report *protov1.Report) (*protov1.Answer, error) {
	// It may hold up sending as well as the answer.
	late := time.AfterFunc(s.patience, func() { s.cancel(errSilent) })
	defer late.Stop()
	if report != nil {
		s.sequence++
		report.Sequence = s.sequence
		// Why the stream has ended is the receiver's to say.
		if err := s.Send(report); err != nil && !errors.Is(err, io.EOF) {
			return nil, s.cause(err)
		}
	}
	a, err := s.Recv()
	if err != nil {
		return nil, s.cause(err)
	}
	if a.GetReportSequence() != s.sequence {
		return nil, fmt.Errorf("it broke the contract: it answered report %d after report %d was sent", a.GetReportSequence(), s.sequence)
	}
	return a, nil
}

// cause says why the stream has ended.
func (s *stream) cause(err error) error {
	switch {
	case errors.Is(context.Cause(s.ctx), errSilent):
		return fmt.Errorf("it has not answered report %d for %s", s.sequence, s.patience)
	case errors.Is(err, io.EOF):
		return errors.New("it ended the stream by itself")
	}
	if st, ok := status.FromError(err); ok {
		return fmt.Errorf("%s (%s)", st.Message(), st.Code())
	}
	return err
}
