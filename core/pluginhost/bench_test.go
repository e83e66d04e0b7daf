package pluginhost

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// BenchmarkStart is a plugin's start, to a connection, and its end. What confines it is
// this test's program, which has fewer packages to initialize than the daemon.
func BenchmarkStart(b *testing.B) {
	h := newHost(b, Options{})
	e := testSpec(b, config.Discoverer, nil).Entry
	out := &output{log: slog.New(slog.DiscardHandler)}
	var confined, connected time.Duration
	for b.Loop() {
		i, err := h.launch(b.Context(), asked(e), out, time.Minute)
		if err != nil {
			b.Fatal(err)
		}
		c, a := i.took()
		confined, connected = confined+c, connected+a
		i.stop(time.Second, false)
	}
	b.ReportMetric(float64(confined.Microseconds())/float64(b.N), "µs-to-confined")
	b.ReportMetric(float64(connected.Microseconds())/float64(b.N), "µs-to-connection")
}

// BenchmarkReplace is a process put in the place of another: started, configured, asked
// for its health, and taking over.
func BenchmarkReplace(b *testing.B) {
	h := newHost(b, Options{})
	spec := testSpec(b, config.Discoverer, nil)
	d, err := h.RunDiscoverer(b.Context(), spec, (&heard{}).handler())
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Started(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := d.Replace(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnary is one call of Health.
func BenchmarkUnary(b *testing.B) {
	h := newHost(b, Options{})
	s, err := h.Open(b.Context(), testSpec(b, config.Discoverer, nil).Entry)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := s.inst.rpc.Health(b.Context(), &protov1.HealthRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLockStep is a report to a sampler and its answer.
func BenchmarkLockStep(b *testing.B) {
	h := newHost(b, Options{})
	spec := testSpec(b, config.Sampler, nil)
	s, err := h.Open(b.Context(), spec.Entry)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if _, err := s.inst.configure(b.Context(), spec); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	st, err := protov1.NewSamplerClient(s.inst.conn).Sample(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := st.Recv(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := st.Send(&protov1.Report{Sequence: 1}); err != nil {
			b.Fatal(err)
		}
		if _, err := st.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInventory is one change of an inventory, from a plugin that tells as
// many as it can to the callback.
func BenchmarkInventory(b *testing.B) {
	h := newHost(b, Options{})
	n, seen, done := b.N, 0, make(chan struct{})
	b.ResetTimer()
	_, err := h.RunDiscoverer(b.Context(), testSpec(b, config.Discoverer, map[string]any{"stream": n}), DiscovererHandler{
		Changes: func(cs []*protov1.InventoryChange) {
			for _, c := range cs {
				if c.GetLifecycle() != nil {
					seen++
				}
			}
			if seen == n {
				close(done)
			}
		},
		Lost: func(string) {},
	})
	if err != nil {
		b.Fatal(err)
	}
	<-done
}

// BenchmarkRestart is the time from SIGKILL to the next snapshot.
func BenchmarkRestart(b *testing.B) {
	h := newHost(b, Options{Pace: Pace{StableAfter: time.Nanosecond, Restarts: 1 << 30}})
	synced := make(chan struct{}, 1)
	d, err := h.RunDiscoverer(b.Context(), testSpec(b, config.Discoverer, nil), DiscovererHandler{
		Changes: func(cs []*protov1.InventoryChange) {
			for _, c := range cs {
				if c.GetSynced() != nil {
					synced <- struct{}{}
				}
			}
		},
		Lost: func(string) {},
	})
	if err != nil {
		b.Fatal(err)
	}
	<-synced
	for b.Loop() {
		if err := syscall.Kill(d.Status().PID, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		<-synced
	}
}
