package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func TestItKeepsTheContract(t *testing.T) {
	d := env.StartContainerd(t)
	d.Run(t, "--detach", env.BusyboxImage, "one", "sleep", "1000")
	ctr(t, d, "container", "create", env.BusyboxImage, "two")
	conformance.Discoverer(t, definition(), conformance.Options{
		Config: map[string]any{"address": "unix://" + d.Socket},
		Refused: map[string]any{
			"a resync without a pause":                  map[string]any{"resync": time.Millisecond},
			"a broken pattern":                          map[string]any{"labels_include": []string{"["}},
			"a namespace that is wanted and not wanted": map[string]any{"namespaces": []string{"a", "b"}, "namespaces_exclude": []string{"b"}},
		},
	})
}

func TestItKeepsTheContractWithoutContainerd(t *testing.T) {
	conformance.Discoverer(t, definition(), conformance.Options{
		Config: map[string]any{"address": "unix://" + filepath.Join(t.TempDir(), "none.sock")},
		Absent: true,
	})
}

func TestAContainerdThatComesLateIsFound(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "late.sock")
	p := sdktest.Start(t, definition())
	p.Configure(map[string]any{"address": "unix://" + socket})
	d := p.Discover()
	p.AwaitDegraded()
	real := env.StartContainerd(t, env.WithSocket(socket))
	d.AwaitSynced()
	ctr(t, real, "container", "create", env.BusyboxImage, "late")
	d.Await("its container", func(v *sdktest.Inventory) bool { return v.ContainerNamed("late") != nil })
	if h := p.Health(); h.GetDegraded() {
		t.Errorf("still degraded: %s", h.GetReason())
	}
}
