package sampling

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal/process"
	"github.com/ebpf-tracer/ebpf-tracer/core/simulation"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ours is the plugin adaptive in a process of its own, confined as under the daemon,
// with the governor and the programs' own decision.
type ours struct{ plugin *process.Plugin }

var _ Candidate = ours{}

// adaptive builds the plugin. patience is how long its answers may take.
func adaptive(t *testing.T, patience time.Duration) ours {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the decision is a BPF program, which only root may load")
	}
	const from = "../../plugins/sampler/adaptive"
	dir := filepath.Join(t.TempDir(), "sampler")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "grpcnotrace", "-o", filepath.Join(dir, "adaptive"), ".")
	build.Dir = from
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	manifest, err := os.ReadFile(filepath.Join(from, "adaptive.plugin.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "adaptive.plugin.hcl")
	if err := os.WriteFile(file, manifest, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := process.Open(t.Context(), process.Options{File: file, Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return ours{p}
}

func (ours) Name() string { return "ours" }

func (o ours) Run(t *testing.T, s simulation.Scenario, seed uint64, sc *simulation.Scorer) {
	r := o.rehearse(t, s, seed, sc, nil)
	if r.Unanswered > 0 || r.Refused > 0 {
		t.Errorf("%d reports were not answered and %d policies refused", r.Unanswered, r.Refused)
	}
	t.Logf("%d policies, up to %d rows of their own, the longest answer took %v", r.Policies, r.Promoted, r.Planning)
}

// trouble takes a sampler's place in a rehearsal: it asks the process, or does not.
type trouble func(s *process.Sampler, report *protov1.Report) (*protov1.Answer, error)

// rehearse runs a process of its own through a scenario. between is nil for none.
func (o ours) rehearse(t *testing.T, s simulation.Scenario, seed uint64, sc *simulation.Scorer, between trouble) *rehearsal.Result {
	t.Helper()
	p, err := o.plugin.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ask := p.Ask
	if between != nil {
		ask = func(r *protov1.Report) (*protov1.Answer, error) { return between(p, r) }
	}
	r := rehearsed(t, rehearsal.Options{
		Scenario: s, Seed: seed, Scorer: sc, Sampler: ask, Name: o.plugin.Name(), Interval: p.Interval(),
	})
	if p.Away() != "" {
		t.Logf("from %v on it was away: %s", r.AwayFrom, p.Away())
	}
	return r
}

func rehearsed(t *testing.T, o rehearsal.Options) *rehearsal.Result {
	t.Helper()
	r, err := rehearsal.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
