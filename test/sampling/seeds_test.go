package sampling

import (
	"flag"
	"math"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// seeds is read by the tests only.
var seeds = flag.Int("seeds", 3, "how many seeds the bias is measured over, of which 20 and more tell")

// Where the weights are right, what they are off by is chance, and the mean of many
// runs is near 0: three standard errors, once there are enough runs to know it.
func TestTheWeightsAreRightOverManySeeds(t *testing.T) {
	const enough = 20
	own := adaptive(t, 0)
	for _, name := range []string{"S2", "S2b"} {
		t.Run(name, func(t *testing.T) {
			s := scenario(t, name)
			var biases []float64
			var runs []*rehearsal.Result
			for n := range *seeds {
				r := own.rehearse(t, s, seed+uint64(n), simulation.NewScorer(s), nil)
				meet(t, name, &r.Score, targets())
				biases, runs = append(biases, r.Bias), append(runs, r)
			}
			all, wrong := rehearsal.Pool(runs), rehearsal.StandardError(biases)
			t.Logf("%s, %d seeds: mean bias %+.6f, standard error %.6f, at most %.3f of the budget in a second and %.3f in 100 ms, error %.4f",
				name, *seeds, all.Bias, wrong, all.MaxSecond, all.MaxTenth, all.Error)
			if *seeds >= enough && math.Abs(all.Bias) > 3*wrong {
				t.Errorf("the mean bias of %d seeds is %+.6f, more than three standard errors of %.6f", *seeds, all.Bias, wrong)
			}
		})
	}
}
