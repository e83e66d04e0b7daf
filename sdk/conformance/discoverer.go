package conformance

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
)

// Discoverer runs the suite of discoverers.
func Discoverer[C any](t *testing.T, d plugin.Discoverer[C], o Options) {
	s := &suite{kind: d, opts: o}
	s.common(t)
	t.Run("it detects its runtime, the same each time", func(t *testing.T) {
		p := s.configured(t)
		for range 3 {
			present, detail := p.Detect()
			if present == o.Absent {
				t.Errorf("Detect says present = %v (%s)", present, detail)
			}
			if detail == "" {
				t.Error("Detect does not say where it found the runtime, or what it looked for")
			}
		}
	})
	if o.Absent {
		s.absent(t)
		return
	}
	t.Run("it tells a snapshot, and is then healthy", func(t *testing.T) {
		p := s.configured(t)
		s.discover(p)
		if h := p.Health(); h.GetDegraded() {
			t.Errorf("it says that it is degraded after its snapshot: %s", h.GetReason())
		}
		p.Stop()
	})
	t.Run("it tells a new snapshot when the stream is opened again", func(t *testing.T) {
		p := s.configured(t)
		for range 3 {
			s.discover(p).Close()
		}
	})
	t.Run("a stream that ends at once does it no harm", func(t *testing.T) {
		p := s.configured(t)
		for range 3 {
			p.Discover().Close()
		}
		s.discover(p)
	})
	t.Run("it lives on with host facts that are unlikely or of a later edition", func(t *testing.T) {
		p := s.configured(t)
		d := s.discover(p)
		asked := false
		d.Await("an inventory", func(v *sdktest.Inventory) bool { asked = v.Subscribed != nil; return true })
		if !asked {
			return // the daemon would not tell it any
		}
		for range 3 {
			d.Tell(contract.HostileFacts()...)
		}
		p.Health()
		if err := d.Err(); err != nil {
			t.Errorf("the stream ended: %v", err)
		}
	})
}

// discover opens the stream and waits for a snapshot. Like the daemon it answers a
// subscription to host facts with a list, of which a snapshot may be made; here it is
// empty.
func (s *suite) discover(p *sdktest.Plugin) *sdktest.Discovery {
	d := p.Discover()
	subscribed := false
	d.Await("a snapshot (a reset, what there is, synced), or a subscription", func(v *sdktest.Inventory) bool {
		subscribed = v.Subscribed != nil
		return subscribed || v.Snapshots > 0
	})
	if subscribed {
		d.Tell(sdktest.HostReset(), sdktest.HostSynced())
	}
	d.AwaitSynced()
	return d
}

// absent tests a discoverer whose runtime is not there.
func (s *suite) absent(t *testing.T) {
	t.Run("it says that its runtime is away, and goes on trying", func(t *testing.T) {
		p := s.configured(t)
		d := p.Discover()
		if reason := p.AwaitDegraded(); reason == "" {
			t.Error("it is degraded without a reason: say what is away and what to do")
		}
		if err := d.Err(); err != nil {
			t.Errorf("the stream ended: %v", err)
		}
		p.Stop()
	})
	t.Run("a stream that ends while the runtime is away does it no harm", func(t *testing.T) {
		p := s.configured(t)
		for range 3 {
			p.Discover().Close()
		}
		p.Discover()
		p.AwaitDegraded()
	})
}
