package thirdparty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// installed is the directory with all the plugins, as KIND/NAME.plugin.hcl and what it
// names.
var installed string

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root: the daemon loads programs into the kernel")
		os.Exit(1)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if err := env.Install(context.Background()); err != nil {
		return 0, err
	}
	if installed, err = os.MkdirTemp("", "ebpf-tracer-thirdparty-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(installed)) }()
	// Plugins may run as another user, who has to get at them.
	if err := os.Chmod(installed, 0o755); err != nil {
		return 0, err
	}
	for _, e := range examples {
		if err := e.install(installed); err != nil {
			return 0, fmt.Errorf("install the example %s: %w", e.dir, err)
		}
	}
	return m.Run(), nil
}

// example is one directory of examples/plugins.
type example struct {
	dir, kind, name string
	files           []string // beside the manifest; nil: a Go module, which is built
}

var examples = []example{
	{dir: "systemd", kind: "discoverer", name: "systemd"},
	{dir: "dynsampler", kind: "sampler", name: "dynsampler"},
	{dir: "python", kind: "discoverer", name: "inventory-file", files: []string{
		"inventory_file.py", "ebpftracer.py", "ebpftracer_inventory.py",
		"discover_pb2.py", "mesh_pb2.py", "plugin_pb2.py", "sampling_pb2.py",
	}},
}

// source is the directory of an example in this checkout.
func (e example) source() (string, error) {
	root, err := harness.Root()
	return filepath.Join(root, "examples", "plugins", e.dir), err
}

// install does what the example's README says.
func (e example) install(into string) error {
	from, err := e.source()
	if err != nil {
		return err
	}
	into = filepath.Join(into, e.kind)
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	if e.files == nil {
		build := exec.Command("go", "build", "-o", filepath.Join(into, e.name), ".")
		build.Dir = from
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	for _, name := range append([]string{e.name + ".plugin.hcl"}, e.files...) {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(into, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// withPlugins is a configuration that finds the examples' plugins.
func withPlugins(hcl string) string {
	return fmt.Sprintf("plugins { dirs = [%q] }\nprobe \"process\" {}\n%s", installed, hcl)
}

var tags atomic.Int64

// tag begins an argument that no other process on the machine has.
func tag() string {
	return fmt.Sprintf("third-%d-%d-%d:", os.Getpid(), time.Now().UnixNano(), tags.Add(1))
}

// tagged are the execs of a program with a tag.
func tagged(events []harness.Event, program, tag string) []*harness.Event {
	return harness.Select(events, "process.exec", func(e *harness.Event) bool {
		return e.Process.Executable.Path == program && slices.ContainsFunc(e.Process.Args, func(a string) bool {
			return strings.HasPrefix(a, tag)
		})
	})
}
