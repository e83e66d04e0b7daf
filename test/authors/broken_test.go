package authors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// result is what is read of a check in a report.
type result struct {
	Check, Status, Do string
	Found             []string
}

// put puts a plugin to the test and gives the exit status, the checks that did not
// pass, and all that was printed.
func put(t *testing.T, args ...string) (status int, odd []result, printed string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Build(t).Tracer, append([]string{"plugin", "test", "-o", "json"}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var report struct{ Results []result }
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("%v in %s", err, out.String())
		}
	}
	for _, r := range report.Results {
		if r.Status != "PASS" {
			odd = append(odd, r)
		}
	}
	return status, odd, out.String() + errOut.String()
}

// install lays a program out as a discoverer in a directory of its own.
func install(t *testing.T, program, name string, args ...string) (binary string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "discoverer")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, name)
	if err := os.Link(program, binary); err != nil {
		t.Fatal(err)
	}
	command := fmt.Sprintf("%q", "./"+name)
	for _, a := range args {
		command += fmt.Sprintf(", %q", a)
	}
	manifest := fmt.Sprintf("plugin \"discoverer\" %q {\n  protocol = 1\n  command = [%s]\n}\n", name, command)
	if err := os.WriteFile(binary+".plugin.hcl", []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	return binary
}

// goBuild builds a Go program in dir.
func goBuild(t *testing.T, dir, out, pkg string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
}

func TestTheTestOfPluginsFindsWhatIsWrong(t *testing.T) {
	harness.Build(t)
	program := filepath.Join(t.TempDir(), "broken")
	goBuild(t, ".", program, "./testdata/broken")
	const (
		starts    = "it starts and shakes hands in time"
		describes = "it describes itself as its manifest does, every argument documented"
		valid     = "it finds its configuration valid"
		garbage   = "it refuses what is no configuration, and lives on"
		types     = "it lives on after values of a wrong type"
		early     = "no stream opens before it is configured"
		configure = "it is configured, and answers Health meanwhile"
		once      = "it is configured only once"
		keeps     = "its stream keeps the contract, and Health answers meanwhile"
		again     = "a stream opened again begins anew, with a reset or the answer of a start"
		later     = "it lives on with what is unlikely, or of a later edition of the protocol"
		exits     = "it exits by itself when asked to, and leaves nothing behind"
		orphan    = "it exits by itself when its daemon is gone"
	)
	for _, c := range []struct {
		wrong  string
		status int
		checks []string // that do not pass; "..." at the end: and others, which follow from it
		says   string
	}{
		{"sound", 0, nil, ""},
		{"prints before the handshake", 0, []string{"nothing but the handshake is on its standard output"}, `printed \"hello\"`},
		{"prints at work", 0, []string{"nothing came on its standard output later"}, `printed \"working\"`},
		{"shakes no hands", 1, []string{starts, "..."}, "it was not ready after 5s"},
		{"has another name", 1, []string{describes}, `it says that it is discoverer \"other\", its manifest says discoverer \"broken\"`},
		{"does not document", 1, []string{describes}, "argument socket has no doc"},
		{"has a wrong default", 1, []string{describes, "..."}, "it wants text"},
		{"refuses its defaults", 1, []string{valid, configure}, "no_such, which is not in the schema"},
		{"takes anything", 1, []string{garbage}, "Validate has nothing against a list"},
		{"ends on garbage", 1, []string{garbage, types}, "half an object ends the process"},
		{"is configured again", 1, []string{once}, "it took a second configuration"},
		{"streams unconfigured", 1, []string{early}, "the stream stays open"},
		{"is not healthy at work", 1, []string{keeps, "..."}, "the daemon would take it for frozen"},
		{"does not reset", 1, []string{keeps, "..."}, `the stream begins with container \"a\"`},
		{"resets once", 1, []string{again, "..."}, `the stream begins with container \"a\"`},
		{"ends its stream", 1, []string{"..."}, "the plugin ended the stream by itself"},
		{"ends on later editions", 1, []string{later}, "a fact that is not known"},
		{"stays when asked to go", 1, []string{exits}, "it still runs 5s after it was asked to"},
		{"does not read its standard input", 1, []string{orphan}, "it still runs 5s after it was its standard input was at its end"},
	} {
		t.Run(c.wrong, func(t *testing.T) {
			t.Parallel()
			status, odd, printed := put(t, install(t, program, "broken", c.wrong))
			if status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			if !strings.Contains(printed, c.says) {
				t.Errorf("it does not say %q", c.says)
			}
			exactly := true
			for i, want := range c.checks {
				if want == "..." {
					exactly = false
				} else if i >= len(odd) || odd[i].Check != want {
					t.Errorf("check %d that did not pass is not %q", i, want)
				}
			}
			if exactly && len(odd) != len(c.checks) {
				t.Errorf("%d checks did not pass, want %d", len(odd), len(c.checks))
			}
			for _, r := range odd {
				if r.Status == "FAIL" && r.Do == "" && r.Check != describes {
					t.Errorf("%q says nothing to do", r.Check)
				}
			}
			if t.Failed() {
				t.Logf("it printed:\n%s", printed)
			}
		})
	}
}
