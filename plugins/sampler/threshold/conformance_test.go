package main

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
)

func TestThresholdKeepsTheContract(t *testing.T) {
	conformance.Sampler(t, threshold(), conformance.Options{
		Refused: map[string]any{
			"a rate that rises with the load": map[string]any{"above_max_rate": 0.6},
			"levels that do not ascend":       map[string]any{"level": []Level{{Below: 10, Rate: 1}, {Below: 5, Rate: 0.5}}},
		},
	})
}

func TestFixedKeepsTheContract(t *testing.T) {
	conformance.Sampler(t, fixed(), conformance.Options{Config: FixedConfig{Rate: 0.5}})
}
