package process

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// server answers as a function says; an error ends the stream.
type server struct {
	protov1.UnimplementedSamplerServer
	answer func(r *protov1.Report) (*protov1.Answer, error)
}

func (s *server) Sample(st grpc.BidiStreamingServer[protov1.Report, protov1.Answer]) error {
	for r := (*protov1.Report)(nil); ; {
		a, err := s.answer(r)
		if a == nil {
			return err
		}
		if err := st.Send(a); err != nil {
			return err
		}
		if r, err = st.Recv(); err != nil {
			return err
		}
	}
}

// served gives a sampler that a function answers for, over a socket.
func served(t *testing.T, ctx context.Context, patience time.Duration, answer func(*protov1.Report) (*protov1.Answer, error)) *Sampler {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.MaxSendMsgSize(64 << 20))
	protov1.RegisterSamplerServer(g, &server{answer: answer})
	done := make(chan error)
	go func() { done <- g.Serve(l) }()
	conn, err := grpc.NewClient("unix:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Stop()
		if err := errors.Join(<-done, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	st, err := open(ctx, conn, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.cancel(nil) })
	return &Sampler{stream: st, ended: func() string { return "" }}
}

func keep(r *protov1.Report) *protov1.Answer {
	return &protov1.Answer{ReportSequence: r.GetSequence(), Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
}

func TestReportsAreNumberedAndAnsweredOneByOne(t *testing.T) {
	s := served(t, t.Context(), time.Minute, func(r *protov1.Report) (*protov1.Answer, error) { return keep(r), nil })
	for n, r := range []*protov1.Report{nil, {}, {}, {}} {
		a, err := s.Ask(r)
		if err != nil || a.GetReportSequence() != uint64(n) || s.Away() != "" {
			t.Fatalf("report %d: %v, %v, %s", n, a, err, s.Away())
		}
	}
}

// Once it is away it stays away, and each later report is answered by nothing at once.
func TestASamplerThatDoesNotAnswerIsAway(t *testing.T) {
	for name, test := range map[string]struct {
		second func(ctx context.Context, r *protov1.Report) (*protov1.Answer, error)
		away   string
	}{
		"it hangs": {func(ctx context.Context, _ *protov1.Report) (*protov1.Answer, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "it has not answered report 2 for 500ms"},
		"it ends the stream": {func(context.Context, *protov1.Report) (*protov1.Answer, error) { return nil, nil },
			"it ended the stream by itself"},
		"it fails": {func(context.Context, *protov1.Report) (*protov1.Answer, error) { return nil, errors.New("no plan") },
			"no plan (Unknown)"},
		"it answers another report": {func(_ context.Context, r *protov1.Report) (*protov1.Answer, error) {
			r.Sequence++
			return keep(r), nil
		}, "it broke the contract: it answered report 3 after report 2 was sent"},
		"it answers a million rules": {func(_ context.Context, r *protov1.Report) (*protov1.Answer, error) {
			rule := &protov1.Rule{Match: &protov1.ClassPattern{}, Probability: proto.Float64(1)}
			p := &protov1.Policy{DefaultProbability: proto.Float64(1)}
			for range 1_000_000 {
				p.Rules = append(p.Rules, rule)
			}
			return &protov1.Answer{ReportSequence: r.GetSequence(), Answer: &protov1.Answer_Policy{Policy: p}}, nil
		}, "received message larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			hanging, release := context.WithCancel(t.Context())
			defer release()
			patience := 10 * time.Second
			if name == "it hangs" {
				patience = 500 * time.Millisecond
			}
			s := served(t, t.Context(), patience, func(r *protov1.Report) (*protov1.Answer, error) {
				if r.GetSequence() == 2 {
					return test.second(hanging, r)
				}
				return keep(r), nil
			})
			for n, want := range []bool{true, true, false, false, false} {
				var report *protov1.Report
				if n > 0 {
					report = &protov1.Report{}
				}
				a, err := s.Ask(report)
				if err != nil || (a != nil) != want || (s.Away() == "") != want {
					t.Fatalf("report %d: %v, %v, %s", n, a, err, s.Away())
				}
			}
			if !strings.Contains(s.Away(), test.away) {
				t.Errorf("it is away because %q, want %q", s.Away(), test.away)
			}
		})
	}
}

func TestAnEndThatIsWantedIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := served(t, ctx, time.Minute, func(r *protov1.Report) (*protov1.Answer, error) {
		if r != nil {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return keep(r), nil
	})
	if _, err := s.Ask(nil); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Ask(&protov1.Report{}); !errors.Is(err, context.Canceled) || a != nil || s.Away() != "" {
		t.Errorf("%v, %v, %s", a, err, s.Away())
	}
}
