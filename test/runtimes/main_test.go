// Package runtimes runs one suite with the built daemon on every container runtime for
// which there is a discoverer, and holds what the daemon tells against what the runtime
// itself says and against the load's own counts.
//
// Why it exists: each discoverer has tests of its own, but only the same questions, asked
// of all, show what one of them tells less, later, or otherwise. What a runtime can't tell
// stands in its row of the table, field by field, with the reason; where it does tell, the
// entry is an error.
package runtimes

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// asked are the rows that are run: by itself the one that takes no server of which there
// is no package, by make runtimes and make test all.
var asked = flag.String("rows", "docker", "comma-separated names of the rows to run, or all")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the tests of the runtimes need root: they start container runtimes")
		os.Exit(1)
	}
	ctx := context.Background()
	if err := env.Install(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if *asked != "docker" {
		if err := env.BuildServers(ctx, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// row is one runtime.
type row struct {
	name    string
	start   func(context.Context) (env.Runtime, error)
	runtime string            // as events name it
	image   bool              // the runtime knows of images
	differs map[string]string // fields that it can't tell, or tells otherwise, and why
	silent  map[string]string // words of a container's life that it can't tell, and why

	namespace string // of the pods that its containers are in; "": it has no pods
}

func TestOneSuiteOnEveryRuntime(t *testing.T) {
	wanted := strings.Split(*asked, ",")
	ran := 0
	for _, r := range rows() {
		if *asked != "all" && !slices.Contains(wanted, r.name) {
			continue
		}
		ran++
		t.Run(r.name, func(t *testing.T) {
			rt, err := r.start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
				defer cancel()
				if err := rt.Close(ctx); err != nil {
					t.Errorf("take the runtime off the machine: %v", err)
				}
			})
			for _, question := range []struct {
				name string
				ask  func(*testing.T, row, env.Runtime)
			}{
				{"the first exec of each short container is attributed", shortContainers},
				{"every field is told as the runtime tells it", fields},
				{"an older container is known, what exec starts in it is its own, and it goes when it is removed", olderExecRemoval},
				{"a filter of a namespace means the containers of its pods", namespaceFilter},
				{"the life of a container is told in order, each thing once", life},
				{"nothing is lost while the runtime and the discoverer are killed", killed},
			} {
				t.Run(question.name, func(t *testing.T) { question.ask(t, r, rt) })
			}
		})
	}
	if ran == 0 || *asked != "all" && ran != len(wanted) {
		t.Errorf("of the rows %q only %d are there", *asked, ran)
	}
}

// start runs the daemon with the runtime's discoverer and waits until that has reached
// the runtime.
func start(t *testing.T, rt env.Runtime) *harness.Tracer {
	t.Helper()
	_, hcl := rt.Discoverer()
	tr := harness.Start(t, "probe \"process\" {}\n"+hcl)
	serving(tr, rt, 0)
	return tr
}

// discovererPID is the process of the runtime's discoverer.
func discovererPID(tr *harness.Tracer, rt env.Runtime) int {
	name, _ := rt.Discoverer()
	return tr.PluginPID("discoverer", name)
}

var tags atomic.Int64

// tag is a word that no other process on the machine has as an argument, and of which the
// names of containers may be made.
func tag() string {
	return fmt.Sprintf("rt-%d-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9, tags.Add(1))
}

// isOf checks that an event is told to be of a container.
func (r row) isOf(t *testing.T, e *harness.Event, id, name, image string) {
	t.Helper()
	c := e.Container
	wrong := c == nil || e.Pending || c.ID != id || c.Name != name || c.Stale || c.Runtime == nil || c.Runtime.Name != r.runtime
	if !wrong && r.image {
		repository, tag, _ := strings.Cut(image, ":")
		wrong = c.Image == nil || c.Image.Name != repository || !slices.Equal(c.Image.Tags, []string{tag})
	}
	if wrong {
		t.Errorf("the event is not of container %s (%s) of %s: %s", id, name, image, e.Line)
	}
}

// inside matches the execs in a container of a program with an argument.
func inside(path, arg string) func(*harness.Event) bool {
	return func(e *harness.Event) bool {
		return e.Process.Executable != nil && e.Process.Executable.Path == path && e.Arg(arg)
	}
}

// remove removes a container when the test ends.
func remove(t *testing.T, rt env.Runtime, id string) {
	t.Helper()
	t.Cleanup(func() {
		if err := rt.Remove(context.WithoutCancel(t.Context()), id); err != nil {
			t.Errorf("remove container %s: %v", id, err)
		}
	})
}

// checkLedger checks that a ledger has seen and kept at least what is known to have
// happened, and that nothing was lost.
func checkLedger(t *testing.T, l *harness.Ledger, did map[string]int64) {
	t.Helper()
	for kind, n := range did {
		if c := l.Kind(kind); c.Kept < n || c.SampledOut > 0 {
			t.Errorf("the ledger of %s is %+v, the load alone made %d", kind, c, n)
		}
	}
	if lost := l.Sum().Lost; lost > 0 {
		t.Errorf("%d events were lost", lost)
	}
	for name, x := range l.Exporters {
		if x.QueueDropped > 0 || x.Failed > 0 {
			t.Errorf("exporter %s: %+v", name, x)
		}
	}
}

// eventually waits until there is no error.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(harness.Patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
