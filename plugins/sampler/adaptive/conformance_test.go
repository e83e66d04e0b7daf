package main

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
)

func TestAdaptiveKeepsTheContract(t *testing.T) {
	conformance.Sampler(t, adaptive(), conformance.Options{
		Refused: map[string]any{
			"a budget below nothing": map[string]any{"budget": -1},
			"a rate above all":       map[string]any{"min_rate": 1.5},
		},
	})
}
