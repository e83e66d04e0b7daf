package thirdparty

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestTheRatesOfDynsamplerAreInForceAndItsWeightsAddUp(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, withPlugins(`sampler "dynsampler" {
  strategy        = "ema_throughput"
  goal_throughput = 200
  interval        = "1s"
}`))
	mine := tag()
	var execs, forks int64
	// Far more than 200 events a second, until what is kept is that of a policy.
	const most = 100
	for round := 0; ; round++ {
		did, err := programs.RunExec(t.Context(), "-n", "1000", "-p", "2", "-a", mine, programs.Noop)
		if err != nil {
			t.Fatal(err)
		}
		execs, forks = execs+did.Execs, forks+did.Forks
		if slices.ContainsFunc(tagged(tr.Events(), programs.Noop, mine), func(e *harness.Event) bool { return e.Weight > 1 }) {
			break
		}
		if round == most {
			t.Fatal("the policy did not change under load")
		}
	}
	stats := tr.Stats()
	ledger := tr.Stop()

	if p := stats.GetPolicy(); p.GetSource() != "dynsampler" || !strings.HasPrefix(p.GetReason(), "ema_throughput: ") || p.GetRefused() != 0 {
		t.Errorf("the policy in force is %v", p)
	}
	for _, row := range stats.GetKernel() {
		if of := 1 / row.GetProbability(); !isWhole(of) || row.GetPriority() == "critical" && of != 1 {
			t.Errorf("%s of priority %s: one event stands for %v, which the library can't have said", row.GetKind(), row.GetPriority(), of)
		}
	}
	sum, variance := 0.0, 0.0
	kept := tagged(tr.Events(), programs.Noop, mine)
	for _, e := range kept {
		if !isWhole(e.Weight) {
			t.Fatalf("the weight is %v: %s", e.Weight, e.Line)
		}
		sum += e.Weight
		variance += e.Weight * (e.Weight - 1)
	}
	t.Logf("%d of %d execs were kept, which stand for %.0f; %s", len(kept), execs, sum, stats.GetPolicy().GetReason())
	// A sound sampler is off by six standard deviations once in 500 million runs.
	if bound := 6 * math.Sqrt(variance); math.Abs(sum-float64(execs)) > bound {
		t.Errorf("%d execs were kept, which stand for %v: more than %v off the %d that there were", len(kept), sum, bound, execs)
	}
	for kind, n := range map[string]int64{"process.exec": execs, "process.fork": forks} {
		if c := ledger.Kind(kind); c.Seen < n || c.Lost > 0 {
			t.Errorf("the ledger has %+v of %s, the load alone made %d", c, kind, n)
		}
	}
	if ledger.Kind("process.exec").SampledOut < execs-int64(len(kept)) {
		t.Errorf("of the load's execs %d are neither told nor sampled out", execs-int64(len(kept)))
	}
}

// isWhole tells whether a weight is a whole number, as near as the kernel's 32 bits of a
// probability can tell.
func isWhole(w float64) bool { return math.Abs(w-math.Round(w)) < 1e-4*w }
