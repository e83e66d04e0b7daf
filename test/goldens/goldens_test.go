// Package goldens holds what the built program says, to the byte: of configurations,
// as plugins that really run judge them, in HCL and in JSON; and of the plugins
// themselves, which is what docs/plugins is made of.
//
// With -update what was found is written as what is wanted; docs/plugins is written by
// `make docs`.
package goldens

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

var update = flag.Bool("update", false, "write what was found as what is wanted")

// broken are the names under which the test's plugin has a schema that can't be used.
func broken() []string { return []string{"default", "endless", "reserved"} }

// install puts the program, the plugins that ship and the test's own, under all its
// names, into one directory.
func install(t *testing.T) (tracer string) {
	t.Helper()
	b := harness.Build(t)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(dir, "plugins")
	if err := os.CopyFS(plugins, os.DirFS(b.Plugins)); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(b.Tracer)
	if err != nil {
		t.Fatal(err)
	}
	tracer = filepath.Join(dir, "ebpf-tracer")
	if err := os.WriteFile(tracer, program, 0o755); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(plugins, "mesh", "everything")
	cmd := exec.Command("go", "build", "-o", out, "./test/goldens/testdata/everything")
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test's plugin: %v\n%s", err, text)
	}
	for _, name := range append(broken(), "everything") {
		manifest := fmt.Sprintf("plugin \"mesh\" %q {\n  protocol = 1\n  command  = [\"./everything\", %q]\n}\n", name, name)
		if err := os.WriteFile(filepath.Join(plugins, "mesh", name+".plugin.hcl"), []byte(manifest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tracer
}

// command runs the program in dir.
func command(tracer, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), tracer, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + os.TempDir(), "TOKEN=hunter", "STATE_DIRECTORY=" + harness.StateDir()}
	return cmd
}

// Each file of testdata/validate holds a configuration in both syntaxes, as config.hcl
// and config.hcl.json, and what `validate` says of each, as NAME.want.
func TestWhatValidateSaysOfAConfiguration(t *testing.T) {
	files, err := filepath.Glob("testdata/validate/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	tracer := install(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			var out []txtar.File
			for _, f := range archive.Files {
				want[f.Name] = string(f.Data)
			}
			for _, f := range archive.Files {
				if strings.HasSuffix(f.Name, ".want") {
					continue
				}
				got := validate(t, tracer, f)
				if strings.Contains(got, "Sesame") || strings.Contains(got, "hunter") || strings.Contains(got, "\x1b") {
					t.Errorf("%s: a secret is shown, or more than text:\n%s", f.Name, got)
				}
				if name := f.Name + ".want"; !*update && got != want[name] {
					t.Errorf("%s: got\n%s\nwant\n%s", f.Name, got, want[name])
				}
				out = append(out, f, txtar.File{Name: f.Name + ".want", Data: []byte(got)})
			}
			if *update {
				archive.Files = out
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// validate is all that the program says of one file, and its exit status.
func validate(t *testing.T, tracer string, f txtar.File) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := command(tracer, dir, "validate", f.Name)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return fmt.Sprintf("%sexit status %d\n", text, cmd.ProcessState.ExitCode())
}

// Each script asks the program about plugins.
func TestWhatDescribeSaysOfPlugins(t *testing.T) {
	tracer := install(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/describe",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TMPDIR", os.TempDir())
			env.Setenv("STATE_DIRECTORY", harness.StateDir())
			env.Setenv("PATH", filepath.Dir(tracer)+":"+os.Getenv("PATH"))
			env.Setenv("BIN", filepath.Dir(tracer))
			return nil
		},
	})
}

func TestPluginsAreDescribedWithoutRootAndNothingIsKept(t *testing.T) {
	tracer := install(t)
	// where another user can read it
	dir, err := os.MkdirTemp("", "ebpf-tracer-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.CopyFS(filepath.Join(dir, "in"), os.DirFS(filepath.Dir(tracer)))); err != nil {
		t.Fatal(err)
	}
	cmd := command(filepath.Join(dir, "in", "ebpf-tracer"), dir, "plugin", "describe", "everything", "-o", "hcl")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	text, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(text), "mesh \"everything\" {\n  name    = \"nn\"\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestTheDocumentsOfPluginsAreWhatTheySayOfThemselves(t *testing.T) {
	b := harness.Build(t)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	made := t.TempDir()
	if text, err := exec.Command(filepath.Join(root, "scripts", "docs.sh"), b.Tracer, b.Plugins, made).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	kept := filepath.Join(root, "docs", "plugins")
	for name := range union(t, made, kept) {
		want, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Errorf("docs/plugins/%s is of no plugin: run make docs", name)
			continue
		}
		if got, err := os.ReadFile(filepath.Join(kept, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/plugins/%s is not what the plugins say: run make docs (%v)\ngot\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

func union(t *testing.T, dirs ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s holds nothing: %v", dir, err)
		}
		for _, f := range files {
			names[f.Name()] = true
		}
	}
	return names
}
