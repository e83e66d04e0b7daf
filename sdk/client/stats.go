package client

import (
	"context"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Stats are the ledger and the rest of a daemon's numbers: totals since it started, but
// for those that say otherwise.
type Stats struct{ *protov1.Stats }

// Map is what there is of containers in short, with these keys: the numbers (uint64)
// containers_discovered, namespaces_discovered, pods_discovered and
// services_discovered, and whether (bool) kubernetes_enabled, namespace_isolation and
// service_mesh_support.
func (s *Stats) Map() map[string]any {
	d := s.GetDiscovered()
	return map[string]any{
		"containers_discovered": d.GetContainers(),
		"namespaces_discovered": d.GetNamespaces(),
		"pods_discovered":       d.GetPods(),
		"services_discovered":   d.GetServices(),
		"kubernetes_enabled":    d.GetKubernetesEnabled(),
		"namespace_isolation":   d.GetNamespaceIsolation(),
		"service_mesh_support":  d.GetServiceMeshSupport(),
	}
}

// GetStats gives the daemon's numbers.
func (c *Client) GetStats(ctx context.Context) (*Stats, error) {
	s, err := c.rpc.GetStats(ctx, &protov1.GetStatsRequest{})
	if err != nil {
		return nil, c.explain(err)
	}
	return &Stats{s}, nil
}
