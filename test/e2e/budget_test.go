package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// TestWhatIsConfiguredHoldsForTheFirstEvent starts the daemon in the middle of a load.
func TestWhatIsConfiguredHoldsForTheFirstEvent(t *testing.T) {
	programs := load.Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	of := func(config string) []*harness.Event {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = programs.RunOpen(ctx, "-s", "60", file) // is killed
		}()
		defer func() { cancel(); <-ended }()
		tr := harness.Start(t, "probe \"file\" {}\n"+config)
		time.Sleep(2 * time.Second)
		checkLedger(t, tr.Stop(), true, nil)
		return harness.Select(tr.Events(), "file.open", func(e *harness.Event) bool { return e.File.Path == file })
	}
	t.Run("a filter", func(t *testing.T) {
		if opens := of("filter \"load\" { comm = [\"openload\"] }"); len(opens) > 0 {
			t.Errorf("%d events were kept that a filter should have left out", len(opens))
		}
	})
	t.Run("a budget", func(t *testing.T) {
		const budget = 5000
		opens := of(fmt.Sprintf("budget { events_per_second = %d }", budget))
		second, _ := harness.Densest(opens, time.Second)
		tenth, first := harness.Densest(opens, 100*time.Millisecond)
		t.Logf("at most %d in a second and %d in 100 ms, of which %d in the first", second, tenth, first)
		if len(opens) == 0 || second > 1.1*budget || tenth > 2*budget/10 {
			t.Errorf("kept are %d, at most %d in a second and %d in 100 ms, of a budget of %d", len(opens), second, tenth, budget)
		}
	})
}

// TestTheDaemonStaysWithinItsCPU has the daemon do with a third of what it uses without a
// bound.
func TestTheDaemonStaysWithinItsCPU(t *testing.T) {
	const settle, watch = 10 * time.Second, 8 * time.Second
	programs := load.Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	use := func(bound float64) float64 {
		tr := harness.Start(t, fmt.Sprintf("probe \"file\" {}\nbudget {\n  events_per_second = 60000\n  cpu = %.4f\n}\n", bound))
		done := make(chan error, 1)
		go func() {
			_, err := programs.RunOpen(t.Context(), "-s", fmt.Sprint(int((settle+watch).Seconds()+1)), file)
			done <- err
		}()
		time.Sleep(settle)
		before, began := processCPU(t, tr.PID()), time.Now()
		time.Sleep(watch)
		used := (processCPU(t, tr.PID()) - before).Seconds() / time.Since(began).Seconds()
		stats := tr.Ask("get", "stats")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(stats, "daemon uses "); told != (bound > 0) {
			t.Errorf("with a bound of %v get stats tells of it: %v\n%s", bound, told, stats)
		}
		checkLedger(t, tr.Stop(), true, nil)
		return used
	}
	free := use(0)
	limit := max(free/3, 0.01)
	bound := use(limit)
	t.Logf("the daemon used %.3f CPUs without a bound, %.3f with one of %.3f", free, bound, limit)
	if bound > 1.5*limit {
		t.Errorf("it uses %.3f CPUs, and may use %.3f", bound, limit)
	}
}

// processCPU is what a process has used so far, of all its threads.
func processCPU(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
