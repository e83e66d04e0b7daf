package conformance

import (
	"context"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sdktest"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Options of a suite.
type Options struct {
	// Config is a configuration that the plugin takes, as sdktest.Plugin.Configure
	// wants it: defaults are filled in.
	Config any
	// Refused are configurations that follow the schema but that Validate must
	// refuse, by what is wrong with them.
	Refused map[string]any
	// Absent says that the discoverer's runtime is not there in this test: it must
	// say so, keep trying and end in good time. Otherwise it is there, and the
	// discoverer must tell a snapshot.
	Absent bool
	// Workloads are descriptions that a detector is told besides the suite's own.
	Workloads []*protov1.InventoryChange
	// Harness is how the plugin is served.
	Harness sdktest.Options
}

// suite is one run.
type suite struct {
	kind plugin.Kind
	opts Options
}

func (s *suite) start(t *testing.T) *sdktest.Plugin {
	t.Helper()
	return sdktest.StartWith(t, s.kind, s.opts.Harness)
}

func (s *suite) configured(t *testing.T) *sdktest.Plugin {
	t.Helper()
	p := s.start(t)
	p.Configure(s.opts.Config)
	return p
}

// common is what all kinds are tested for.
func (s *suite) common(t *testing.T) {
	t.Run("it describes itself, and its configuration is valid", func(t *testing.T) {
		p := s.start(t)
		for range 2 {
			if ds := p.Validate(s.opts.Config); ds.HasErrors() {
				t.Fatalf("the configuration of this test is refused: %v", ds.Err())
			}
		}
		p.Configure(s.opts.Config)
	})
	t.Run("it is healthy before it is configured, and ends when asked to", func(t *testing.T) {
		p := s.start(t)
		p.Health()
		p.Stop()
	})
	for _, name := range slices.Sorted(maps.Keys(s.opts.Refused)) {
		t.Run("it refuses "+name, func(t *testing.T) {
			p := s.start(t)
			if ds := p.Validate(s.opts.Refused[name]); !ds.HasErrors() {
				t.Error("Validate has nothing against it")
			}
			if ds, err := p.TryConfigure(s.opts.Refused[name]); err == nil && !ds.HasErrors() {
				t.Fatal("it can be configured with it")
			}
			p.Configure(s.opts.Config) // a right one may follow
		})
	}
	t.Run("it refuses what is no configuration", func(t *testing.T) {
		p := s.start(t)
		for name, raw := range contract.Garbage() {
			r, err := s.validate(t, p, raw)
			if err == nil && !wire.DiagnosticsFromProto(r.GetDiagnostics()).HasErrors() {
				t.Errorf("Validate has nothing against %s", name)
			}
		}
		p.Configure(s.opts.Config)
	})
	t.Run("it lives on after values of a wrong type", func(t *testing.T) {
		p := s.start(t)
		base, wrong := contract.Config(p.Schema(), nil)
		if len(wrong) > 0 {
			base = []byte("{}") // something is required: the others are wrong enough
		}
		for name, raw := range contract.WrongTypes(p.Schema(), base) {
			if _, err := s.validate(t, p, raw); status.Code(err) == codes.Unavailable {
				t.Fatalf("it did not outlive %s: %v", name, err)
			}
		}
		p.Configure(s.opts.Config)
	})
	t.Run("it is configured once", func(t *testing.T) {
		p := s.configured(t)
		if ds, err := p.TryConfigure(s.opts.Config); err == nil && !ds.HasErrors() {
			t.Error("a second configuration is taken: the daemon starts another process for that")
		}
	})
}

func (s *suite) validate(t *testing.T, p *sdktest.Plugin, raw []byte) (*protov1.ValidateResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sdktest.Patience)
	defer cancel()
	return protov1.NewPluginClient(p.Conn()).Validate(ctx, &protov1.ValidateRequest{Config: raw})
}
