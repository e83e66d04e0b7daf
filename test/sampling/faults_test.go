package sampling

import (
	"math"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal/process"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// struck is when it happens: in the middle of the burst of S2.
const struck = 16 * time.Second

// after has something done in place of the sampler from then on.
func after(at time.Duration, do trouble) trouble {
	var now time.Duration
	return func(s *process.Sampler, r *protov1.Report) (*protov1.Answer, error) {
		now += time.Duration(r.GetIntervalNano())
		if now < at {
			return s.Ask(r)
		}
		return do(s, r)
	}
}

// signalled sends the process a signal, once, and goes on asking it.
func signalled(t *testing.T, signal syscall.Signal) trouble {
	sent := false
	return func(s *process.Sampler, r *protov1.Report) (*protov1.Answer, error) {
		if !sent {
			sent = true
			if err := syscall.Kill(s.PID(), signal); err != nil {
				t.Errorf("send %v to the sampler: %v", signal, err)
			}
		}
		return s.Ask(r)
	}
}

// lying changes each policy that the sampler answers, and answers it each time.
func lying(lie func(*protov1.Policy)) trouble {
	return func(s *process.Sampler, r *protov1.Report) (*protov1.Answer, error) {
		a, err := s.Ask(r)
		if a == nil || err != nil {
			return a, err
		}
		p := a.GetPolicy()
		if p == nil {
			p = &protov1.Policy{DefaultProbability: proto.Float64(1), Rules: []*protov1.Rule{
				{Match: &protov1.ClassPattern{}, Probability: proto.Float64(1)},
			}}
		}
		lie(p)
		return &protov1.Answer{ReportSequence: a.GetReportSequence(), Answer: &protov1.Answer_Policy{Policy: p}}, nil
	}
}

// always is a policy of one probability.
func always(probability float64) func(*protov1.Policy) {
	return func(p *protov1.Policy) {
		p.DefaultProbability = proto.Float64(probability)
		for _, r := range p.Rules {
			r.Probability = proto.Float64(probability)
		}
	}
}

// rules are as many as are said, of classes of groups.
func rules(n int) func(*protov1.Policy) {
	rule := &protov1.Rule{
		Match:       &protov1.ClassPattern{Kind: proto.String("file.open"), Priority: proto.String("debug"), Group: proto.String("g1")},
		Probability: proto.Float64(1),
	}
	return func(p *protov1.Policy) {
		p.Rules = make([]*protov1.Rule, n)
		for i := range p.Rules {
			p.Rules[i] = rule
		}
	}
}

// overLimit is a policy that no stream takes: it ends there, as the host sees it.
func overLimit(t *testing.T, lie func(*protov1.Policy)) trouble {
	tell := lying(lie)
	over := false
	return func(s *process.Sampler, r *protov1.Report) (*protov1.Answer, error) {
		if over {
			return nil, nil
		}
		a, err := tell(s, r)
		if over = proto.Size(a) > wire.MaxMessage; !over {
			t.Errorf("an answer of %d bytes is within the limit", proto.Size(a))
		}
		return nil, err
	}
}

func TestTheBoundsHoldWhateverBecomesOfTheSampler(t *testing.T) {
	own := adaptive(t, time.Second)
	type want struct {
		unanswered, refused bool
	}
	for _, test := range []struct {
		name string
		do   func(t *testing.T) trouble
		want want
	}{
		{"it is killed", func(t *testing.T) trouble { return signalled(t, syscall.SIGKILL) }, want{unanswered: true}},
		{"it is stopped", func(t *testing.T) trouble { return signalled(t, syscall.SIGSTOP) }, want{unanswered: true}},
		{"it answers NaN", func(*testing.T) trouble { return lying(always(math.NaN())) }, want{refused: true}},
		{"it answers probabilities below 0", func(*testing.T) trouble { return lying(always(-1)) }, want{refused: true}},
		{"it answers probabilities above 1", func(*testing.T) trouble { return lying(always(1e9)) }, want{}},
		{"it answers an empty policy", func(*testing.T) trouble { return lying(func(p *protov1.Policy) { proto.Reset(p) }) }, want{refused: true}},
		{"it answers a million rules in one message", func(t *testing.T) trouble { return overLimit(t, rules(1e6)) }, want{unanswered: true}},
		{"it answers a million rules, and no stream stops them", func(*testing.T) trouble { return lying(rules(1e6)) }, want{refused: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := scenario(t, "S2")
			sc := simulation.NewScorer(s)
			began := time.Now()
			r := own.rehearse(t, s, seed, sc, after(struck, test.do(t)))
			t.Log("\n" + table([]result{{s.Name, test.name, r.Score, time.Since(began)}}))
			meet(t, test.name, &r.Score, bounds())
			if (r.Unanswered > 0) != test.want.unanswered || (r.Refused > 0) != test.want.refused {
				t.Errorf("%d reports were not answered and %d policies refused", r.Unanswered, r.Refused)
			}
			// A signal takes effect a moment after it was sent: one answer may come.
			if away := r.AwayFrom; r.Unanswered > 0 && (away < struck || away > struck+time.Second) {
				t.Errorf("it was away from %v on, want %v", away, struck)
			}
		})
	}
	for _, s := range simulation.Scenarios() {
		t.Run("there is none from the start, "+s.Name, func(t *testing.T) {
			r := rehearsed(t, rehearsal.Options{Scenario: s, Seed: seed})
			t.Log("\n" + table([]result{{s.Name, "no sampler", r.Score, 0}}))
			meet(t, s.Name, &r.Score, bounds())
		})
	}
}
