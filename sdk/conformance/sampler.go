package conformance

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Sampler runs the suite of samplers.
func Sampler[C any](t *testing.T, d plugin.Sampler[C], o Options) {
	s := &suite{kind: d, opts: o}
	s.common(t)
	t.Run("it starts with a policy", func(t *testing.T) {
		p := s.configured(t)
		if p.Sample().Policy() == nil {
			t.Error("Start gave no policy: until it does, the daemon keeps every event")
		}
		if p.Interval() < 0 {
			t.Errorf("it asks for reports every %v", p.Interval())
		}
		p.Stop()
	})
	t.Run("it answers each report with what can be taken", func(t *testing.T) {
		st := s.configured(t).Sample()
		for load := range 20 {
			n := uint64(1) << load
			st.Report(&protov1.Report{IntervalNano: 500_000_000, Classes: []*protov1.ClassLoad{
				{Class: &protov1.Class{Kind: "process.exec", Priority: "info"}, Seen: n, Kept: n, Probability: 1},
				{Class: &protov1.Class{Kind: "network.connect_failed", Priority: "error"}, Seen: n / 2, Kept: n / 2, Probability: 1},
			}})
		}
		for range 20 {
			st.Report(&protov1.Report{IntervalNano: 500_000_000})
		}
	})
	t.Run("it answers reports that are unlikely or of a later edition", func(t *testing.T) {
		p := s.configured(t)
		st := p.Sample()
		for range 3 {
			for _, r := range contract.HostileReports() {
				st.Report(r)
			}
		}
		p.Health()
	})
	t.Run("it starts over when the stream is opened again", func(t *testing.T) {
		p := s.configured(t)
		for range 3 {
			st := p.Sample()
			st.Report(&protov1.Report{IntervalNano: 500_000_000})
			if st.Policy() == nil {
				t.Error("there was no policy in this stream: Start gives one each time")
			}
			st.Close()
		}
	})
}
