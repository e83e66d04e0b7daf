package e2e

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestASampledEventStandsForThoseThatWereLeftOut(t *testing.T) {
	const n, rate = 6000, 0.1
	// The sum of n weights, each 1/p with probability p and else 0, is n on average,
	// with a standard deviation of sqrt(n (1-p)/p): 232 here. A sound sampler is off by
	// more than six of them once in 500 million runs.
	bound := 6 * math.Sqrt(n*(1-rate)/rate)

	programs := load.Build(t)
	tr := harness.Start(t, fmt.Sprintf(`probe "process" {}
probe "network" {}
sampler "fixed" { rate = %v }`, rate))
	mine := tag()
	did, err := programs.RunExec(t.Context(), "-n", fmt.Sprint(n), "-p", "2", "-a", mine, programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	connections, err := programs.RunTCP(t.Context(), "pairs", "-n", fmt.Sprint(n), "-t", "2")
	if err != nil {
		t.Fatal(err)
	}
	stats := tr.Stats()
	ledger := tr.Stop()
	events := tr.Events()

	execs := harness.Select(events, "process.exec", func(e *harness.Event) bool {
		return e.Process.Executable.Path == programs.Noop && having(mine)(e)
	})
	if len(execs) == 0 {
		t.Fatal("not one exec was kept")
	}
	checkWeights := func(what string, did int64, events []*harness.Event) {
		t.Helper()
		sum := 0.0
		for _, e := range events {
			if math.Abs(e.Weight-1/rate) > 1e-6 {
				t.Fatalf("the weight is %v, want %v: %s", e.Weight, 1/rate, e.Line)
			}
			sum += e.Weight
		}
		t.Logf("%s: %d of %d kept, which stand for %.0f", what, len(events), did, sum)
		if math.Abs(sum-float64(did)) > bound {
			t.Errorf("%d of %s were kept, of a weight of %v: more than %v off the %d that there were", len(events), what, sum, bound, did)
		}
	}
	checkWeights("execs", did.Execs, execs)

	// A process is kept whole or not at all.
	parent := execs[0].Process.ParentPID
	lives := livesOf(events, parent)
	whole := 0
	for _, l := range lives {
		if l.fork == nil || len(l.execs) != 1 || l.exit == nil {
			t.Errorf("process %d was not kept whole: fork %v, %d execs, exit %v", l.pid, l.fork != nil, len(l.execs), l.exit != nil)
		}
		whole++
	}
	if whole != len(execs) {
		t.Errorf("%d processes and %d execs were kept", whole, len(execs))
	}

	// So is each side of a connection.
	isLoad := func(e *harness.Event) bool { return e.Process.Comm == "tcpload" }
	connects, accepts := harness.Select(events, "network.connect", isLoad), harness.Select(events, "network.accept", isLoad)
	checkWeights("connects", connections.Connects, connects)
	checkWeights("accepts", connections.Accepts, accepts)
	closes := map[uint64]int{}
	for _, e := range harness.Select(events, "network.close", isLoad) {
		closes[id(e)]++
	}
	for _, e := range slices.Concat(connects, accepts) {
		if closes[id(e)] != 1 {
			t.Errorf("a connection was kept with %d closes: %s", closes[id(e)], e.Line)
		}
		delete(closes, id(e))
	}
	if len(closes) > 0 {
		t.Errorf("%d connections have only their closes kept", len(closes))
	}

	checkLedger(t, ledger, true, map[string]int64{
		"process.fork": did.Forks, "process.exec": did.Execs, "process.exit": did.Exits,
		"network.connect": connections.Connects, "network.accept": connections.Accepts, "network.close": connections.Closes,
	})
	if c := ledger.Kind("process.exec"); c.SampledOut < did.Execs-int64(len(execs)) {
		t.Errorf("the ledger has sampled out %d execs, of the load's alone were %d", c.SampledOut, did.Execs-int64(len(execs)))
	}
	for _, row := range stats.GetKernel() {
		if want := map[bool]float64{true: 1, false: rate}[row.GetPriority() == "critical"]; math.Abs(row.GetProbability()-want) > 1e-6 {
			t.Errorf("%s of priority %s are kept with %v, want %v", row.GetKind(), row.GetPriority(), row.GetProbability(), want)
		}
	}
}

func TestASamplerThatKeepsNothingStillCountsAndKeepsWhatIsCritical(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" {}
sampler "fixed" { rate = 0 }`)
	did, err := programs.RunExec(t.Context(), "-n", "500", programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	killed := kill(t)
	ledger := tr.Stop()
	e := one(t, "exits of the killed process", harness.Select(tr.Events(), "process.exit", of(killed)))
	if e.Priority != "critical" || e.Weight != 1 {
		t.Errorf("the exit is %s", e.Line)
	}
	checkLedger(t, ledger, true, map[string]int64{"process.fork": did.Forks, "process.exec": did.Execs, "process.exit": did.Exits + 1})
	for _, kind := range []string{"process.fork", "process.exec"} {
		if c := ledger.Kind(kind); c.SampledOut < did.Execs {
			t.Errorf("of %s were sampled out %d, the load alone made %d", kind, c.SampledOut, did.Execs)
		}
	}
}

func TestTheThresholdSamplerKeepsLessUnderLoad(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" {}
sampler "threshold" {
  level {
    below = 100
    rate  = 1
  }
  level {
    below = 1000000
    rate  = 0.25
  }
  above_max_rate = 0.1
  smoothing      = "0s"
}`)
	mine := tag()
	// far more than 100 events a second, until the policy has changed
	const most = 60
	for round := 0; ; round++ {
		if round == most {
			t.Fatal("the policy did not change under load")
		}
		if _, err := programs.RunExec(t.Context(), "-n", "2000", "-p", "2", "-a", mine, programs.Noop); err != nil {
			t.Fatal(err)
		}
		sampled := harness.Select(tr.Events(), "process.exec", func(e *harness.Event) bool { return having(mine)(e) && e.Weight > 1 })
		if len(sampled) > 0 {
			if w := sampled[0].Weight; math.Abs(w-4) > 1e-6 {
				t.Errorf("the weight is %v, want 4", w)
			}
			break
		}
	}
	if first := harness.Select(tr.Events(), "process.exec", having(mine))[0]; first.Weight != 1 {
		t.Errorf("the first event, before any load, has a weight of %v", first.Weight)
	}
	ledger := tr.Stop()
	checkLedger(t, ledger, true, map[string]int64{"process.exec": 2000})
}
