package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newSamplerSimulate() *cobra.Command {
	var s simulating
	var output choice
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "simulate NAME|FILE",
		Short: "Run a sampler against loads that never happen",
		Long: `Run a sampler against loads that never happen, in virtual time: its real process,
confined and asked as under the daemon, and the decision of the real probes, of which
one program is loaded and attached to nothing. A load is the same for the same seed;
'ebpf-tracer record' records one of your own.
It needs root and Linux 5.19; a daemon that runs is not disturbed.

The sampler is named as in a configuration, or by its program or manifest. It is
configured by an empty block, or as --config says. One that dies, hangs for 10 s or
breaks the contract is not asked any more, and the load goes on without it, as on a
host until the daemon has started another. What its policies cost is told:

  MAX-1S, MAX-100MS  the most that was kept within that time, over the budget
  ABOVE              time with more than 1.25 of the budget, in the 5 s after a step
  UTILISATION        kept over what the budget had room for
  CRITICAL, COVERED  critical events kept; groups with an event that was kept
  BIAS               of the total that the weights give
  ERROR              of the totals a second of each class and attribute
  INTERVALS, HIT     intervals of 95 % confidence, and how many hold the truth
  POLICIES, REFUSED  put in force, and refused by the core
  PLAN               the longest that an answer took, of real time

With --seeds counts are added up; bounds and times are those of the worst seed, and
the rest is the seeds' mean. JSON has each seed by itself.`,
		Example: `  ebpf-tracer sampler simulate adaptive
  ebpf-tracer sampler simulate adaptive -c config.hcl --scenario S2,S2b --seeds 20
  ebpf-tracer sampler simulate acme/plugins/sampler/acme --budget 2000 --lag 100ms
  ebpf-tracer sampler simulate threshold --json | jq '.[] | {scenario, max_second}'`,
		Args: words("NAME or FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.check(); err != nil {
				return err
			}
			return action(func(cmd *cobra.Command, args []string) error {
				all, err := s.all(cmd, args[0])
				if err != nil {
					return err
				}
				if asJSON || output.is == "json" {
					return writeJSON(cmd.OutOrStdout(), mapped(all, simulation.json))
				}
				return showSimulations(cmd.OutOrStdout(), all)
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&s.config, "config", "c", "", "configuration `file` whose block for the sampler is used; none: an empty block")
	completeFiles(cmd, "config")
	f.StringSliceVar(&s.scenarios, "scenario", []string{everything}, "`loads`: "+scenarioNames()+", all, or files that 'record' has written")
	f.Uint64Var(&s.seed, "seed", 1, "the first `seed` of the loads")
	f.IntVar(&s.seeds, "seeds", 1, "how many seeds")
	f.Float64Var(&s.budget, "budget", 0, "events/s to keep; 0: what the load is meant for")
	f.DurationVar(&s.interval, "interval", 0, "time between reports; 0: what the sampler or the configuration asks for")
	f.DurationVar(&s.lag, "lag", 10*time.Millisecond, "time that an answer is on its way")
	outputFlag(cmd, &output, "table", "json")
	f.BoolVar(&asJSON, "json", false, "the same as --output json")
	cmd.MarkFlagsMutuallyExclusive("output", "json")
	return cmd
}

// check the flags.
func (s *simulating) check() error {
	switch {
	case s.seeds < 1:
		return fmt.Errorf("--seeds %d: there is at least one", s.seeds)
	case !(s.budget >= 0):
		return fmt.Errorf("--budget %v: it is positive, or 0 for what the load is meant for", s.budget)
	case s.interval < 0 || s.interval > 0 && s.interval < 10*time.Millisecond:
		return fmt.Errorf("--interval %v: it is 10ms or more", s.interval)
	case s.lag <= 0:
		return fmt.Errorf("--lag %v: an answer takes some time", s.lag)
	}
	for _, word := range s.scenarios {
		if err := checkScenario(word); err != nil {
			return err
		}
	}
	return nil
}
