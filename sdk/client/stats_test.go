package client

import (
	"fmt"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestTheMapOfTheStatsHasTheSevenKeysOfTheDesign(t *testing.T) {
	s := &Stats{&protov1.Stats{Node: "n", Discovered: &protov1.Discovered{
		Containers: 1, Namespaces: 2, Pods: 3, Services: 4,
		KubernetesEnabled: true, NamespaceIsolation: true, ServiceMeshSupport: true,
	}}}
	want := "map[containers_discovered:1 kubernetes_enabled:true namespace_isolation:true namespaces_discovered:2 " +
		"pods_discovered:3 service_mesh_support:true services_discovered:4]"
	if got := fmt.Sprint(s.Map()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n, ok := s.Map()["pods_discovered"].(uint64); !ok || n != 3 {
		t.Error("a number is no uint64")
	}
	if s.GetNode() != "n" {
		t.Error("the rest of the stats is gone")
	}
	if got := (&Stats{&protov1.Stats{}}).Map()["kubernetes_enabled"]; got != false {
		t.Errorf("of a daemon that tells nothing: %v", got)
	}
}
