package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

func TestItKeepsTheContract(t *testing.T) {
	host := t.TempDir()
	if err := os.MkdirAll(filepath.Join(host, booted), 0o755); err != nil {
		t.Fatal(err)
	}
	conformance.Discoverer(t, definition(), conformance.Options{
		Refused: map[string]any{"a name that is no unit's": map[string]any{"units": []string{"nginx"}}},
		Harness: sdktest.Options{Node: &protov1.Node{Name: "test", CgroupRoot: "/sys/fs/cgroup", HostRoot: host}},
	})
}

func TestItKeepsTheContractWithoutSystemdAndControlGroups(t *testing.T) {
	conformance.Discoverer(t, definition(), conformance.Options{
		Absent:  true,
		Harness: sdktest.Options{Node: &protov1.Node{Name: "test", HostRoot: t.TempDir()}},
	})
}

func TestAUnitIsToldAsTheDaemonTellsOfItsControlGroup(t *testing.T) {
	p := sdktest.StartWith(t, definition(), sdktest.Options{Node: &protov1.Node{Name: "test", CgroupRoot: "/sys/fs/cgroup"}})
	p.Configure(map[string]any{"keep": time.Hour})
	d := p.Discover()
	if s := d.AwaitSubscribed(); !s.GetCgroups() || s.GetProcesses() {
		t.Errorf("it subscribes to %v", s)
	}
	d.Tell(reset, present(1, web), synced)
	d.AwaitSynced()
	d.Tell(created(2, mail), removed(1, web))
	d.Await("web that has ended and mail that runs", func(v *sdktest.Inventory) bool {
		return v.Containers[web].GetState() == exited && v.Containers[mail].GetState() == running
	})
}
