package conformance

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

// Detector runs the suite of mesh detectors.
func Detector[C any](t *testing.T, d plugin.Detector[C], o Options) {
	s := &suite{kind: d, opts: o}
	s.common(t)
	t.Run("it tells a snapshot of an empty list", func(t *testing.T) {
		m := s.configured(t).Mesh()
		m.TellAll()
		m.AwaitSynced()
	})
	t.Run("it tells a snapshot of what it is told", func(t *testing.T) {
		p := s.configured(t)
		m := p.Mesh()
		m.TellAll(o.Workloads...)
		m.AwaitSynced()
		if h := p.Health(); h.GetDegraded() {
			t.Logf("it is degraded: %s", h.GetReason())
		}
		p.Stop()
	})
	t.Run("it takes a list in parts, kind by kind", func(t *testing.T) {
		m := s.configured(t).Mesh()
		containers, pods := protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER, protov1.WorkloadKind_WORKLOAD_KIND_POD
		m.Tell(sdktest.Reset())
		for _, w := range o.Workloads {
			m.Tell(w)
		}
		m.Tell(sdktest.Synced(containers))
		m.Tell(sdktest.Synced(pods, protov1.WorkloadKind_WORKLOAD_KIND_SERVICE))
		m.AwaitSynced()
	})
	t.Run("what a second list does not tell again has no facts any more", func(t *testing.T) {
		m := s.configured(t).Mesh()
		m.TellAll(o.Workloads...)
		m.AwaitSynced()
		m.TellAll()
		m.Await("an end of all facts after an empty list", func(f *sdktest.Facts) bool { return len(f.Containers)+len(f.Pods) == 0 })
	})
	t.Run("it lives on with workloads that are unlikely or of a later edition", func(t *testing.T) {
		p := s.configured(t)
		m := p.Mesh()
		m.TellAll(contract.HostileWorkloads()...)
		m.AwaitSynced()
		m.Tell(sdktest.Container(&protov1.Container{Id: "after", Name: "after"}), sdktest.RemoveContainer("after"), sdktest.RemoveContainer("after"), sdktest.RemovePod("never"))
		p.Health()
		if err := m.Err(); err != nil {
			t.Errorf("the stream ended: %v", err)
		}
	})
	t.Run("it tells everything anew when the stream is opened again", func(t *testing.T) {
		p := s.configured(t)
		for range 3 {
			m := p.Mesh()
			m.TellAll(o.Workloads...)
			m.AwaitSynced()
			m.Close()
		}
		p.Mesh().Close()
		m := p.Mesh()
		m.TellAll()
		m.AwaitSynced()
	})
}
