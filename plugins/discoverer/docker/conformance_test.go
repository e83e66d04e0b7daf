package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

func TestItKeepsTheContract(t *testing.T) {
	s := &scripted{containers: 3}
	s.start(t)
	conformance.Discoverer(t, definition(docker()), conformance.Options{
		Config: map[string]any{"host": "unix://" + s.socket},
		Refused: map[string]any{
			"a resync without a pause": map[string]any{"resync": time.Millisecond},
			"a broken pattern":         map[string]any{"labels_include": []string{"["}},
		},
	})
}

func TestItKeepsTheContractWithoutAnEngine(t *testing.T) {
	conformance.Discoverer(t, definition(docker()), conformance.Options{
		Config: map[string]any{"host": "unix://" + filepath.Join(t.TempDir(), "none.sock")},
		Absent: true,
	})
}

func TestAnEngineThatComesLateIsFound(t *testing.T) {
	s := &scripted{containers: 2, socket: filepath.Join(t.TempDir(), "late.sock")}
	p := sdktest.Start(t, definition(docker()))
	p.Configure(map[string]any{"host": "unix://" + s.socket})
	d := p.Discover()
	p.AwaitDegraded()
	s.start(t)
	d.AwaitSynced()
	d.Await("both containers", func(v *sdktest.Inventory) bool { return len(v.Containers) == 2 })
	if h := p.Health(); h.GetDegraded() {
		t.Errorf("still degraded: %s", h.GetReason())
	}
}
