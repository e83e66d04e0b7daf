package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

func TestItKeepsTheContract(t *testing.T) {
	s := (&scripted{}).start(t)
	s.pod(id64(1), "uid", "pod")
	s.container(id64(2), id64(1), "c", isRunning)
	s.container(id64(3), id64(1), "d", isExited)
	conformance.Discoverer(t, definition(), conformance.Options{
		Config: map[string]any{"endpoint": "unix://" + s.socket},
		Refused: map[string]any{
			"a resync without a pause": map[string]any{"resync": time.Millisecond},
			"a broken pattern":         map[string]any{"labels_include": []string{"["}},
		},
	})
}

func TestItKeepsTheContractWithoutARuntime(t *testing.T) {
	conformance.Discoverer(t, definition(), conformance.Options{
		Config: map[string]any{"endpoint": "unix://" + filepath.Join(t.TempDir(), "none.sock")},
		Absent: true,
	})
}

func TestARuntimeThatComesLateIsFound(t *testing.T) {
	s := &scripted{socket: filepath.Join(t.TempDir(), "late.sock")}
	p := sdktest.Start(t, definition())
	p.Configure(map[string]any{"endpoint": "unix://" + s.socket})
	d := p.Discover()
	p.AwaitDegraded()
	s.start(t)
	s.pod(id64(1), "uid", "pod")
	s.container(id64(2), id64(1), "c", isRunning)
	d.AwaitSynced()
	d.Await("the container and its pod", func(v *sdktest.Inventory) bool {
		return v.ContainerNamed("c") != nil && v.Pods["uid"] != nil
	})
	if h := p.Health(); h.GetDegraded() {
		t.Errorf("still degraded: %s", h.GetReason())
	}
}
