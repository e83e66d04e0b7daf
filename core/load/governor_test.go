package load

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// table stands for the kernel, which these rules are not about.
type table struct {
	mu     sync.Mutex // of SetPolicy, which a governor that runs calls
	now    kernel.Policy
	budget kernel.Budget
	groups map[uint64]uint32
	puts   uint32
}

func (k *table) Since() ([]kernel.Period, error) { return nil, nil }

func (k *table) SetPolicy(p kernel.Policy) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = p
	k.puts++
	return k.puts + 1, nil
}

// last gives how many tables were put, and the share that the first row of the last keeps.
func (k *table) last() (puts uint32, first float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.puts, k.now.Pooled[0].Probability
}

func (k *table) SetBudget(b kernel.Budget) { k.budget = b }

func (k *table) SetSharers(int) {}

func (k *table) SetGroup(cgroup uint64, group uint32) error {
	if k.groups == nil {
		k.groups = map[uint64]uint32{}
	}
	k.groups[cgroup] = group
	return nil
}

func (k *table) Capacity() (rows, groups int) { return 8, 2 }

// probability of a pooled class.
func (k *table) probability(kind event.Kind, priority event.Priority) float64 {
	return k.now.Pooled[event.Row(kind, priority)].Probability
}

func p(v float64) *float64 { return &v }

func s(v string) *string { return &v }

func policy(p *protov1.Policy) *protov1.Answer {
	return &protov1.Answer{Answer: &protov1.Answer_Policy{Policy: p}}
}

func governor() (*Governor, *table) {
	k := &table{}
	return New(Options{Kernel: k, Sampler: "test", Log: slog.New(slog.DiscardHandler)}), k
}

func TestAPolicyIsCompiledByItsFirstMatchingRule(t *testing.T) {
	g, k := governor()
	g.Answer(policy(&protov1.Policy{
		DefaultProbability: p(0.1),
		Rules: []*protov1.Rule{
			{Match: &protov1.ClassPattern{Kind: s("process.exec")}, Probability: p(0.5)},
			{Match: &protov1.ClassPattern{Priority: s("error")}, Probability: p(7)},
			{Match: &protov1.ClassPattern{Kind: s("process.exec"), Priority: s("info")}, Probability: p(0.9)},
			{Match: &protov1.ClassPattern{Group: s("web")}, Probability: p(0)},
		},
	}))
	for _, c := range []struct {
		kind     event.Kind
		priority event.Priority
		want     float64
	}{
		{event.ProcessExec, event.Info, 0.5},
		{event.ProcessExec, event.Error, 0.5},
		{event.ProcessExit, event.Error, 1},
		{event.ProcessExit, event.Info, 0.1},
		{event.ProcessExit, event.Critical, 1},
		{event.CgroupCreate, event.Debug, 1},
	} {
		if got := k.probability(c.kind, c.priority); got != c.want {
			t.Errorf("%v %v: %v, want %v", c.kind, c.priority, got, c.want)
		}
	}
	r := g.Report()
	if len(r.Policies) != 1 || !r.Policies[0].Accepted || r.Policies[0].Reason == "" || r.Policies[0].Generation != 2 {
		t.Errorf("the sampler is told %v", r.Policies)
	}
	if len(g.Report().Policies) != 0 {
		t.Error("it is told twice")
	}
}

func TestAPolicyThatIsNoneIsRefusedAndChangesNothing(t *testing.T) {
	for name, a := range map[string]*protov1.Answer{
		"nothing":            {},
		"keep at the start":  {Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}},
		"an empty policy":    policy(&protov1.Policy{}),
		"a default of NaN":   policy(&protov1.Policy{DefaultProbability: p(math.NaN())}),
		"a rule of nothing":  policy(&protov1.Policy{DefaultProbability: p(1), Rules: []*protov1.Rule{{}}}),
		"a rule without p":   policy(&protov1.Policy{DefaultProbability: p(1), Rules: []*protov1.Rule{{Match: &protov1.ClassPattern{}}}}),
		"a negative p":       policy(&protov1.Policy{DefaultProbability: p(-1)}),
		"an infinite p":      policy(&protov1.Policy{DefaultProbability: p(1), Rules: []*protov1.Rule{{Match: &protov1.ClassPattern{}, Probability: p(math.Inf(1))}}}),
		"too many rules":     policy(&protov1.Policy{DefaultProbability: p(1), Rules: make([]*protov1.Rule, maxRules+1)}),
		"a rule for anybody": policy(&protov1.Policy{DefaultProbability: p(1), Rules: []*protov1.Rule{{Probability: p(0)}}}),
	} {
		t.Run(name, func(t *testing.T) {
			g, k := governor()
			g.Answer(a)
			if k.puts != 0 || g.Policy().Refused != 1 || g.Policy().Source != "default" {
				t.Errorf("%d tables put, policy %+v", k.puts, g.Policy())
			}
		})
	}
}

func TestAPolicyThatIsNotRenewedEndsAndKeepRenewsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, k := governor()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); g.Run(ctx) }()
		defer func() { cancel(); <-done }()

		g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5), TtlNano: int64(2 * time.Second)}))
		keep := &protov1.Answer{Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
		for range 5 {
			time.Sleep(1500 * time.Millisecond)
			g.Answer(keep)
		}
		if puts, _ := k.last(); g.Policy().Source != "test" || puts != 1 {
			t.Fatalf("kept: %+v, %d tables put", g.Policy(), puts)
		}
		time.Sleep(2100 * time.Millisecond)
		synctest.Wait()
		if _, first := k.last(); g.Policy().Source != "default" || first != builtin {
			t.Errorf("after its time: %+v, p %v", g.Policy(), first)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if puts, _ := k.last(); puts != 2 {
			t.Errorf("%d tables put, want 2", puts)
		}
		g.Answer(keep)
		if _, first := k.last(); g.Policy().Source != "test" || first != 0.5 {
			t.Errorf("kept after its end: %+v, p %v", g.Policy(), first)
		}
	})
}

func TestAReportTellsTheHostsLoad(t *testing.T) {
	g, _ := governor()
	g.Report()
	var h *protov1.HostLoad
	for h.GetCpuUtilization() == 0 { // the kernel counts in ticks, when it comes to it
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
		}
		h = g.Report().Host
	}
	if *h.CpuUtilization < 0 || *h.CpuUtilization > 1 {
		t.Errorf("CPU utilization %v", *h.CpuUtilization)
	}
	if h.MemoryTotalBytes == 0 || h.MemoryAvailableBytes == 0 || h.DaemonMemoryBytes == 0 || h.DaemonCpuCores == nil {
		t.Errorf("%v", h)
	}
}

func TestANewSamplerTakesOverWithoutAGap(t *testing.T) {
	g, k := governor()
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.5)}))
	g.SetSampler("next")
	if now := g.Policy(); now.Source != "test" || k.now.Pooled[0].Probability != 0.5 {
		t.Errorf("in force is %+v, p %v: the last policy goes on", now, k.now.Pooled[0].Probability)
	}
	keep := &protov1.Answer{Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
	g.Answer(keep) // what another has said
	if now := g.Policy(); now.Source != "test" || now.Refused != 1 {
		t.Errorf("after keeping another's policy: %+v", now)
	}
	g.Answer(policy(&protov1.Policy{DefaultProbability: p(0.25)}))
	if now := g.Policy(); now.Source != "next" || k.now.Pooled[0].Probability != 0.25 {
		t.Errorf("in force is %+v, p %v", now, k.now.Pooled[0].Probability)
	}
}
