package e2e

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

var update = flag.Bool("update", false, "write what was found as what is wanted")

// Each script checks and runs a configuration.
func TestAWrongConfigurationIsRefusedAsAWholeBeforeAnythingStarts(t *testing.T) {
	b := harness.Build(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/config",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TMPDIR", os.TempDir()) // sockets of plugins: the script's own is too long a path
			env.Setenv("STATE_DIRECTORY", harness.StateDir())
			env.Setenv("PATH", filepath.Dir(b.Tracer)+":"+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status, "started": started,
		},
	})
}

// status is the script command "status N PROGRAM ARGS...".
func status(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// started is the script command "! started": nothing of what the configurations name may
// be there.
func started(ts *testscript.TestScript, negated bool, args []string) {
	if !negated || len(args) > 0 {
		ts.Fatalf("usage: ! started")
	}
	// what a daemon makes once it has begun
	for _, name := range []string{"run/api.sock", "events.json"} {
		if _, err := os.Stat(ts.MkAbs(name)); err == nil {
			ts.Fatalf("%s was made", name)
		}
	}
}

func TestAConfigurationIsCheckedWithoutRoot(t *testing.T) {
	b := harness.Build(t)
	// where another user can read it
	dir, err := os.MkdirTemp("", "ebpf-tracer-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "plugins"), os.DirFS(b.Plugins)); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(b.Tracer)
	if err != nil {
		t.Fatal(err)
	}
	tracer := filepath.Join(dir, "ebpf-tracer")
	if err := os.WriteFile(tracer, program, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile(filepath.Join(root, "config.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text, want string
		status           int
	}{
		{"the one that is shipped", string(shipped), "is valid", 0},
		{"one with a mistake that only its plugin knows", "discoverer \"docker\" {\n  resync = \"10ms\"\n}\n", "config.hcl:2:12: Error: ", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "config.hcl"), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tracer, "validate", "config.hcl")
			cmd.Dir = dir
			cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + os.TempDir(), "STATE_DIRECTORY=" + harness.StateDir()}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, _ := cmd.CombinedOutput() // its status is checked
			if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(string(out), c.want) {
				t.Errorf("exit status %d, want %d with %q:\n%s", got, c.status, c.want, out)
			}
		})
	}
}
