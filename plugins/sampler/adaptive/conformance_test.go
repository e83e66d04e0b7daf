package main

import (
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
)

func TestAdaptiveKeepsTheContract(t *testing.T) {
	conformance.Sampler(t, adaptive(), conformance.Options{
		Config: map[string]any{"bands": true},
	})
}

func TestPredictiveKeepsTheContract(t *testing.T) {
	for name, config := range map[string]map[string]any{
		"as it comes":             {},
		"with a season and bands": {"season": 10 * time.Second, "bands": true, "budget": 500},
	} {
		t.Run(name, func(t *testing.T) {
			conformance.Sampler(t, predicting(), conformance.Options{
				Config: config,
				Refused: map[string]any{
					"a season shorter than four plans": map[string]any{"season": 900 * time.Millisecond},
				},
			})
		})
	}
}
