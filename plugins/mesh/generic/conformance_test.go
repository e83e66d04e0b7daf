package main

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/conformance"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

func TestItKeepsTheContract(t *testing.T) {
	conformance.Detector(t, definition(), conformance.Options{
		Refused: map[string]any{
			"a sidecar with nothing to recognise it by": map[string]any{"sidecar": []any{map[string]any{"mesh": "acme", "proxy": "p"}}},
		},
		Workloads: []*protov1.InventoryChange{
			sdktest.Container(box("app", "web", "nginx", inPod("p1"))),
			sdktest.Container(box("side", "istio-proxy", "istio/proxyv2", inPod("p1"))),
			sdktest.Pod(&protov1.Pod{Uid: "p1", Name: "web-1", Namespace: "shop"}),
		},
	})
}

func TestADaemonHearsOfTheSidecarAndItsPod(t *testing.T) {
	p := sdktest.Start(t, definition())
	p.Configure(nil)
	m := p.Mesh()
	m.TellAll(sdktest.Container(box("side", "istio-proxy", "istio/proxyv2", inPod("p1"))))
	m.AwaitSynced()
	m.Await("facts of the sidecar and its pod", func(f *sdktest.Facts) bool {
		return f.Containers["side"].GetRole() == protov1.MeshFact_ROLE_SIDECAR && f.Pods["p1"].GetMesh() == "istio"
	})
	m.Tell(sdktest.RemoveContainer("side"))
	m.Await("an end of them", func(f *sdktest.Facts) bool { return len(f.Containers)+len(f.Pods) == 0 })
}
