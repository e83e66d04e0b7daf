package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestABudgetHoldsWhateverComes(t *testing.T) {
	const budget = 10_000
	programs := load.Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, sampler string }{
		{"with a sampler that keeps all", ""},
		{"with the sampler adaptive", `sampler "adaptive" {}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := harness.Start(t, fmt.Sprintf("probe \"file\" {}\nbudget { events_per_second = %d }\n%s", budget, test.sampler))
			did, err := programs.RunOpen(t.Context(), "-s", "10", "-t", "2", file)
			if err != nil {
				t.Fatal(err)
			}
			policy := tr.Stats().GetPolicy()
			ledger := tr.Stop()
			opens := harness.Select(tr.Events(), "file.open", func(e *harness.Event) bool { return e.File.Path == file })
			weight := 0.0
			for _, e := range opens {
				weight += e.Weight
			}
			perSecond := float64(len(opens)) / did.Seconds
			tenth, first := harness.Densest(opens, 100*time.Millisecond)
			second, _ := harness.Densest(opens, time.Second)
			bias := weight/float64(did.Opens) - 1
			t.Logf("%.0f opens/s for %.1f s: kept %.0f/s, most in 1 s %d, in 100 ms %d, in the first 100 ms %d; weight %.0f of %d (%+.2f %%); %d policies",
				did.PerSecond, did.Seconds, perSecond, second, tenth, first, weight, did.Opens, 100*bias, policy.GetSwaps())
			if math.Abs(perSecond/budget-1) > 0.1 || second > 1.1*budget || tenth > 2*budget/10 {
				t.Errorf("the budget is %d a second", budget)
			}
			// Of n events kept with p, 1/p each: a relative standard deviation of
			// 1/sqrt(n p), about 0.3 %, and more while p changes.
			if math.Abs(bias) > 0.03 {
				t.Errorf("the weights are off by %+.2f %%", 100*bias)
			}
			c := ledger.Kind("file.open")
			if c.Lost != 0 {
				t.Errorf("%d were lost", c.Lost)
			}
			checkLedger(t, ledger, true, map[string]int64{"file.open": did.Opens})
		})
	}
}
