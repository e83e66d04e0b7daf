package thirdparty

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// What an author runs is run here, as an author would.
func TestEachExampleKeepsTheContract(t *testing.T) {
	jobs := directory(t)
	write(t, filepath.Join(jobs, "jobs.json"), list{[]entry{{Name: "job-1", Cgroup: "/job-1"}}})
	config := filepath.Join(t.TempDir(), "config.hcl")
	write(t, config, `discoverer "systemd" {}
discoverer "inventory-file" { path = "`+jobs+`" }
sampler "dynsampler" { goal_throughput = 100 }
`)
	tracer := harness.Build(t).Tracer
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) {
			manifest := filepath.Join(installed, e.kind, e.name+".plugin.hcl")
			out, err := exec.CommandContext(t.Context(), tracer, "plugin", "test", manifest, "--config", config).CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "shakes hands in time") || strings.Contains(line, " checks: ") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}
