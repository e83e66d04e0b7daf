package sdktest

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Sampling is the stream of a sampler. One goroutine uses it.
type Sampling struct {
	*stream
	send     grpc.BidiStreamingClient[protov1.Report, protov1.Answer]
	answers  []*protov1.Answer
	sequence uint64
	policy   *protov1.Policy
}

// Sample opens the stream and waits for the answer of the start. While an earlier
// stream still ends, it waits for that too.
func (p *Plugin) Sample() *Sampling {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	st, err := protov1.NewSamplerClient(p.conn).Sample(ctx)
	if err != nil {
		cancel()
		p.t.Fatalf("open the stream: %v", err)
	}
	s := &Sampling{stream: &stream{t: p.t, cancel: cancel}, send: st}
	var judge contract.Sampling
	s.receive(func() error {
		a, err := st.Recv()
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		p.broken(judge.Answer(uint64(len(s.answers)), a))
		s.answers = append(s.answers, a)
		if q := a.GetPolicy(); q != nil {
			s.policy = q
		}
		return nil
	})
	s.answer("the answer of the start")
	return s
}

func (s *Sampling) answer(what string) *protov1.Answer {
	s.t.Helper()
	var a *protov1.Answer
	s.await(what, func() bool {
		if uint64(len(s.answers)) <= s.sequence {
			return false
		}
		a = s.answers[s.sequence]
		return true
	})
	return a
}

// Report sends a report, whose sequence it fills in, and returns the answer.
func (s *Sampling) Report(r *protov1.Report) *protov1.Answer {
	s.t.Helper()
	s.sequence++
	r.Sequence = s.sequence
	if err := s.send.Send(r); err != nil {
		s.t.Fatalf("send a report: %v", err)
	}
	return s.answer("the answer to a report")
}

// Policy is the one in force: the last that the sampler answered with.
func (s *Sampling) Policy() *protov1.Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policy
}
