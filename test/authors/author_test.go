package authors

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// command runs what an author types and gives what it printed.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestANewPluginWorksBeforeAnythingIsEdited(t *testing.T) {
	b := harness.Build(t)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"discoverer", "mesh", "sampler"} {
		t.Run(kind, func(t *testing.T) {
			began := time.Now()
			src := t.TempDir()
			command(t, src, b.Tracer, "plugin", "new", kind, "acme", "--sdk", filepath.Join(root, "sdk"))
			module := filepath.Join(src, "acme")
			made := time.Since(began)
			command(t, module, "make", "build")
			built := time.Since(began)
			out := command(t, module, "make", "test", "EBPF_TRACER="+b.Tracer)
			tested := time.Since(began)
			if !strings.Contains(out, "checks: ") || !strings.Contains(out, " 0 warnings, 0 failed") {
				t.Errorf("plugin test said:\n%s", out)
			}
			if tidied := command(t, module, "go", "mod", "verify"); !strings.Contains(tidied, "all modules verified") {
				t.Error(tidied)
			}
			named, err := os.ReadFile(filepath.Join(module, "config.hcl"))
			if err != nil {
				t.Fatal(err)
			}
			tr := harness.Start(t, string(named))
			p := tr.WaitPlugin(kind, "acme", func(p *protov1.PluginView) bool { return p.GetState() == "running" })
			switch kind {
			case "discoverer":
				if c := tr.WaitContainer(strings.Repeat("0123456789abcdef", 4)); c.GetContainer().GetName() != "web" {
					t.Errorf("the container is %v", c)
				}
			case "sampler":
				if s := tr.Stats().GetPolicy(); s.GetSource() != "acme" {
					t.Errorf("the policy is of %q", s.GetSource())
				}
			}
			t.Logf("made after %s, built after %s, tested after %s, at work in a daemon (pid %d) after %s",
				made.Round(time.Millisecond), built.Round(time.Millisecond), tested.Round(time.Millisecond), p.GetPid(), time.Since(began).Round(time.Millisecond))
			tr.Stop()
		})
	}
}
