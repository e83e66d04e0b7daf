package main

import (
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
)

var (
	rehearsed = flag.String("rehearse", "S2b", "scenarios to rehearse, with commas between them; all: every one")
	seeds     = flag.Uint64("seeds", 1, "seeds to rehearse each of them with")
)

// seasonal is a load that is ten times as high in the first half second of each five.
func seasonal() simulation.Scenario {
	const (
		duration = 60 * time.Second
		classes  = 200
	)
	return simulation.Scenario{
		Name: "seasonal", Duration: duration, Warmup: 20 * time.Second, Budget: 10_000,
		Events: func(seed uint64) iter.Seq[simulation.Event] {
			return func(yield func(simulation.Event) bool) {
				random := rand.New(rand.NewPCG(seed, 0))
				zipf := rand.NewZipf(random, 1.1, 1, classes-1)
				kinds := []event.Kind{event.FileOpen, event.NetworkConnect, event.ProcessExec}
				for at := 0.0; at < float64(duration); {
					rate := 20_000.0
					if time.Duration(at)%(5*time.Second) < 500*time.Millisecond {
						rate *= 10
					}
					at += random.ExpFloat64() * 1e9 / rate
					class := zipf.Uint64()
					e := simulation.Event{
						At: int64(at), Group: uint32(1 + class/3), Kind: kinds[class%3], Priority: event.Priority(class % 3), CPU: uint8(random.Uint32() & 1),
					}
					if e.At < int64(duration) && !yield(e) {
						return
					}
				}
			}
		},
	}
}

// rehearse runs a sampler in this process against a scenario.
func rehearse(t *testing.T, s sampling.Sampler, scenario simulation.Scenario, seed uint64) *rehearsal.Result {
	t.Helper()
	result, err := rehearsal.Run(t.Context(), rehearsal.Options{
		Scenario: scenario, Seed: seed, Name: "rehearsed",
		Sampler: func(r *protov1.Report) (*protov1.Answer, error) {
			answer := func(p *protov1.Policy, err error) (*protov1.Answer, error) {
				a := &protov1.Answer{ReportSequence: r.GetSequence(), Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}
				if p != nil {
					a.Answer = &protov1.Answer_Policy{Policy: p}
				}
				return a, err
			}
			if r == nil {
				return answer(s.Start(t.Context()))
			}
			return answer(s.Plan(t.Context(), r))
		},
	})
	if err != nil {
		t.Fatalf("rehearse %s: %v", scenario.Name, err)
	}
	return result
}

func TestRehearsal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the decision is a program in the kernel")
	}
	documented := Config{Exponent: 0.5, Interval: defaultInterval}
	banded := documented
	banded.Bands = true
	inSeason := documented
	inSeason.Season = 5 * time.Second
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "scenario\tsampler\tseed\terror\tmax s\tmax 0.1s\tabove\tutilisation\tcritical\tcovered\tbias\thit\tpolicies\tplanning\t")
	for _, scenario := range append(simulation.Scenarios(), seasonal()) {
		if *rehearsed != "all" && !strings.Contains(","+*rehearsed+",", ","+scenario.Name+",") {
			continue
		}
		for _, test := range []struct {
			name string
			make func() sampling.Sampler
		}{
			{"adaptive", func() sampling.Sampler { return newSampler(documented) }},
			{"predictive", func() sampling.Sampler { return newPredictive(documented) }},
			{"predictive, season", func() sampling.Sampler { return newPredictive(inSeason) }},
			{"adaptive, bands", func() sampling.Sampler { return newSampler(banded) }},
			{"predictive, bands", func() sampling.Sampler { return newPredictive(banded) }},
		} {
			if strings.Contains(test.name, "season") != (scenario.Name == "seasonal") && test.name != "adaptive" {
				continue
			}
			t.Run(scenario.Name+"/"+test.name, func(t *testing.T) {
				var runs []*rehearsal.Result
				for seed := range *seeds {
					got := rehearse(t, test.make(), scenario, seed+1)
					runs = append(runs, got)
					check(t, got)
				}
				row(w, scenario.Name, test.name, rehearsal.Pool(runs))
			})
		}
	}
	w.Flush()
	t.Log("\n" + out.String())
}

func row(w *tabwriter.Writer, scenario, name string, r *rehearsal.Result) {
	fmt.Fprintf(w, "%s\t%s\t%d\t%.4f\t%.3f\t%.2f\t%v\t%.3f\t%.4f\t%.4f\t%+.4f\t%.3f\t%d\t%v\t\n", scenario, name, *seeds, r.Error, r.MaxSecond, r.MaxTenth,
		r.Above, r.Utilisation, r.Critical, r.Covered, r.Bias, float64(r.IntervalsHit)/float64(r.Intervals), r.Policies, r.Planning.Round(10*time.Microsecond))
}

// check what is promised of every sampler here.
func check(t *testing.T, got *rehearsal.Result) {
	t.Helper()
	if got.Refused > 0 {
		t.Errorf("%d policies were refused", got.Refused)
	}
	// Errors of a burst of a hundred times the load come with nine tenths kept, in bands.
	if got.MaxSecond > 1.1 {
		t.Errorf("%.3f of the budget was kept in a second", got.MaxSecond)
	}
	if got.Covered < 0.999 {
		t.Errorf("of %.4f of the containers nothing was kept", 1-got.Covered)
	}
	if got.Critical < 1 {
		t.Errorf("%.4f of the critical events were kept", got.Critical)
	}
}
