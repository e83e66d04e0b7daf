package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// containerds are the versions of containerd that the tests run with.
func containerds() map[string][]env.Option {
	return map[string][]env.Option{"containerd of the distribution": nil, "containerd of the second major version": {env.WithContainerd2()}}
}

// withContainerd is a configuration that finds the containers of a containerd.
func withContainerd(d *env.Containerd, more string) string {
	return fmt.Sprintf("probe \"process\" {}\ndiscoverer \"containerd\" { address = \"unix://%s\" }\n%s", d.Socket, more)
}

// ctr calls a container, and its cgroup, as the user does: nothing in the path says that
// it is one.
func TestTheFirstExecOfAContainerOfCtrIsNamed(t *testing.T) {
	for name, options := range containerds() {
		t.Run(name, func(t *testing.T) {
			const containers, atOnce = 50, 4
			d := env.StartContainerd(t, options...)
			tr := harness.Start(t, withContainerd(d, ""))
			mine := tag()
			id := func(i int) string { return fmt.Sprintf("web-%s-%d", strings.Trim(mine, ":"), i) }
			var running errgroup.Group
			running.SetLimit(atOnce)
			for i := range containers {
				running.Go(func() error {
					_, err := d.Ctr(t.Context(), d.RunArgs("--rm", env.NoopImage, id(i), "/noop", fmt.Sprintf("%s%d", mine, i))...)
					return err
				})
			}
			if err := running.Wait(); err != nil {
				t.Fatal(err)
			}
			tr.UntilCount(containers, "process.exec", inside(mine))
			ledger := tr.Stop()
			events := tr.Events()
			for i := range containers {
				arg := fmt.Sprintf("%s%d", mine, i)
				found := harness.Select(events, "process.exec", func(e *harness.Event) bool {
					return slices.Equal(e.Process.Args, []string{"/noop", arg})
				})
				e := one(t, "the exec in "+id(i), found)
				c := e.Container
				if c == nil || e.Pending || c.ID != id(i) || c.Name != id(i) || c.Image == nil || c.Image.Name != noopName ||
					!slices.Equal(c.Image.Tags, []string{"test"}) || c.Runtime == nil || c.Runtime.Name != "containerd" {
					t.Errorf("the exec is not of container %s of %s: %s", id(i), env.NoopImage, e.Line)
				}
				for _, x := range harness.Select(events, "process.exit", of(e.Process.PID)) {
					if x.Time.After(e.Time) && (x.Container == nil || x.Container.ID != id(i)) {
						t.Errorf("the exit is not of container %s: %s", id(i), x.Line)
					}
				}
			}
			checkLedger(t, ledger, false, map[string]int64{"process.exec": containers, "process.exit": containers})
		})
	}
}
