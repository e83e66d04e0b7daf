package faults

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestTheBudgetHoldsWhateverTheSamplerDoes(t *testing.T) {
	const budget = 10_000
	programs := load.Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sampler := func(s syscall.Signal) func(*testing.T, *harness.Tracer) {
		return func(t *testing.T, tr *harness.Tracer) {
			signal(t, tr.PluginPID("sampler", "adaptive"), s)
		}
	}
	says := func(what string) string { return fmt.Sprintf("sampler \"moody\" { says = %q }", what) }
	for _, test := range []struct {
		name, hcl string
		during    func(*testing.T, *harness.Tracer)
		source    string // of the policy in the end
	}{
		{"is killed", `sampler "adaptive" {}`, sampler(syscall.SIGKILL), "adaptive"},
		{"is stopped", `sampler "adaptive" {}`, sampler(syscall.SIGSTOP), "adaptive"},
		{"answers that a probability is not a number", says("nan"), nil, "moody"},
		{"answers a negative probability", says("negative"), nil, "moody"},
		{"answers a probability above one", says("above"), nil, "moody"},
		{"answers with an empty policy", says("empty"), nil, "moody"},
		{"answers with a million rules", says("million"), nil, "moody"},
		{"answers nothing", says("silent"), nil, "moody"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := harness.Prepare(t, fmt.Sprintf("plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"file\" {}\nbudget { events_per_second = %d }\n%s", budget, test.hcl))
			if test.source == "moody" {
				moody(t, tr, "well", "1", "sampler")
			}
			tr.Launch()
			type result struct {
				did load.OpenCounts
				err error
			}
			done := make(chan result, 1)
			go func() {
				did, err := programs.RunOpen(context.WithoutCancel(t.Context()), "-s", "5", "-t", "2", file)
				done <- result{did, err}
			}()
			time.Sleep(2 * time.Second)
			if test.during != nil {
				test.during(t, tr)
			}
			r := <-done
			if r.err != nil {
				t.Fatal(r.err)
			}
			policy := tr.Stats().GetPolicy()
			ledger := tr.Stop()
			opens := harness.Select(tr.Events(), "file.open", func(e *harness.Event) bool { return e.File.Path == file })
			weight := 0.0
			for _, e := range opens {
				weight += e.Weight
			}
			second, _ := harness.Densest(opens, time.Second)
			tenth, first := harness.Densest(opens, 100*time.Millisecond)
			bias := weight/float64(r.did.Opens) - 1
			t.Logf("%.0f opens/s: kept %.0f/s, most in 1 s %d, in 100 ms %d, in the first %d; weight off by %+.2f %%; policy of %s, %d put, %d refused",
				r.did.PerSecond, float64(len(opens))/r.did.Seconds, second, tenth, first, 100*bias, policy.GetSource(), policy.GetSwaps(), policy.GetRefused())
			if second > 1.1*budget || tenth > 2*budget/10 {
				t.Errorf("kept %d in 1 s and %d in 100 ms, of a budget of %d a second", second, tenth, budget)
			}
			if math.Abs(bias) > 0.03 {
				t.Errorf("the weights are off by %+.2f %%", 100*bias)
			}
			if c := ledger.Kind("file.open"); c.Lost != 0 || c.Seen < r.did.Opens {
				t.Errorf("the ledger of opens is %+v, the load made %d", c, r.did.Opens)
			}
			if policy.GetSource() != test.source {
				t.Errorf("in force is a policy of %s", policy.GetSource())
			}
		})
	}
}
