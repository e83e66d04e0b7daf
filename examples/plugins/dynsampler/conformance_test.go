package main

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
)

func TestItKeepsTheContract(t *testing.T) {
	for strategy, goal := range map[string]string{"ema_throughput": "goal_throughput", "avg_sample_rate": "goal_sample_rate", "windowed_throughput": "goal_throughput"} {
		t.Run(strategy, func(t *testing.T) {
			conformance.Sampler(t, definition(), conformance.Options{
				Config: map[string]any{"strategy": strategy, goal: 100},
				Refused: map[string]any{
					"a strategy without its goal": map[string]any{"strategy": strategy},
					"a lookback of no window":     map[string]any{"strategy": "total_throughput", "goal_throughput": 1, "lookback": 2_000_000_000},
				},
			})
		})
	}
}
