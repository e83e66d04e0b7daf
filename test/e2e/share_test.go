package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// TestAShareOfTheBudgetIsThereForATenantBesideANoisyOne runs the same two loads without a
// share, with one, and with one that a reload brings.
func TestAShareOfTheBudgetIsThereForATenantBesideANoisyOne(t *testing.T) {
	const budget, rate, seconds = 2000, 500, 6
	programs := load.Build(t)
	root := cgroupRoot(t)
	name := "share-" + tag()
	share := fmt.Sprintf("\nshare \"tenant\" {\n  portion = 0.4\n  cgroup  = [\"/%s/quiet-*\"]\n}\n", name)
	config := fmt.Sprintf("probe \"file\" {}\nbudget { events_per_second = %d }\nsampler \"adaptive\" {}\n", budget)
	makeCgroup(t, filepath.Join(root, name))
	file := func(kind string) string {
		path := filepath.Join(t.TempDir(), kind)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for i, test := range []struct {
		name   string
		before string
		after  string // by a reload
		least  float64
		most   float64 // of the tenant's, kept
	}{
		{"none", config, "", 0, 0.6},
		{"a share", config + share, "", 0.9, 1},
		{"by a reload", config, config + share, 0.9, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			quiet, noisy := file("quiet"), file("noisy")
			tr := harness.Start(t, test.before)
			if test.after != "" {
				tr.SetConfig(test.after)
				tr.Ask("reload")
			}
			type did struct {
				load.OpenCounts
				err error
			}
			opens := func(group, path string, args ...string) chan did {
				dir, err := os.Open(makeCgroup(t, filepath.Join(root, name, fmt.Sprintf("%s-%d", group, i))))
				if err != nil {
					t.Fatal(err)
				}
				c := beginIn(t, int(dir.Fd()), programs.Open, append(args, path)...)
				done := make(chan did, 1)
				go func() {
					defer dir.Close()
					var d did
					out, err := c.Output()
					if d.err = err; err == nil {
						d.err = json.Unmarshal(out, &d.OpenCounts)
					}
					done <- d
				}()
				return done
			}
			length := fmt.Sprint(seconds)
			of := map[string]chan did{
				noisy: opens("noisy", noisy, "-s", length),
				quiet: opens("quiet", quiet, "-s", length, "-r", fmt.Sprint(rate)),
			}
			part := map[string]float64{}
			made := map[string]int64{}
			for path, done := range of {
				d := <-done
				if d.err != nil {
					t.Fatal(d.err)
				}
				made[path] = d.Opens
			}
			stats := tr.Ask("get", "stats")
			ledger := tr.Stop()
			all := harness.Select(tr.Events(), "file.open", nil)
			for path, n := range made {
				kept := harness.Select(tr.Events(), "file.open", func(e *harness.Event) bool { return e.File.Path == path })
				part[path] = float64(len(kept)) / float64(n)
			}
			second, _ := harness.Densest(all, time.Second)
			t.Logf("of the tenant's %d opens %.1f %% are kept, of the noisy one's %d %.2f %%; at most %d in a second",
				made[quiet], 100*part[quiet], made[noisy], 100*part[noisy], second)
			if part[quiet] < test.least || part[quiet] > test.most {
				t.Errorf("of the tenant's opens %.1f %% are kept, which should be %v to %v", 100*part[quiet], test.least, test.most)
			}
			if second > 1.1*budget {
				t.Errorf("%d are kept in a second, of a budget of %d", second, budget)
			}
			if shown := strings.Contains(stats, "share tenant: 40 % of it for 1 control groups"); shown != (test.least > 0) {
				t.Errorf("get stats shows the share: %v", shown)
			}
			if lost := ledger.Kind("file.open").Lost; lost > 0 {
				t.Errorf("%d were lost", lost)
			}
		})
	}
}
