package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// measuring is a daemon as far as measuring goes, with the default hierarchy at root.
func measuring(t *testing.T, root string, r *config.Resources) (*daemon, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	d := &daemon{config: config.Config{Resources: r}, inventory: inventory.New(inventory.Options{}), root: root, usage: unmeasured{}}
	d.log = newLogger(&log, config.Log{Level: "info"})
	d.openResources()
	t.Cleanup(func() {
		if err := d.resources.close(); err != nil {
			t.Error(err)
		}
	})
	return d, &log
}

func TestWithoutAccountingTheRestIsMeasuredAndTheReasonIsTold(t *testing.T) {
	root := t.TempDir() // no control group: nothing can be attached there
	group := filepath.Join(root, "x")
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(root, "cgroup.controllers"): "pids\n", filepath.Join(group, "io.pressure"): "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wanted := &config.Resources{Interval: time.Second, MaxContainers: 1, MaxExported: 1, Network: true}
	d, log := measuring(t, root, wanted)
	p := d.resources.probe()
	if p.GetName() != "resources" || p.GetState() != "unavailable" || p.GetReason() == "" {
		t.Errorf("it is told as %v", p)
	}
	if !strings.Contains(log.String(), "traffic of containers is not accounted") {
		t.Errorf("the log has %s", log)
	}
	if d.containerMetrics() == nil {
		t.Error("there are no metrics")
	}
	if err := d.inventory.Apply("x", []*protov1.InventoryChange{{Change: &protov1.InventoryChange_Container{
		Container: &protov1.Container{Id: "x", CgroupPath: "/x", State: protov1.Container_STATE_RUNNING}}}}); err != nil {
		t.Fatal(err)
	}
	u, ok := d.usage.Of(&protov1.ContainerRef{Id: "x"})
	if !ok || u.SentBytes != nil {
		t.Errorf("%v, %v", u, ok)
	}

	// Nobody wants the accounting, or anything.
	without := *wanted
	without.Network = false
	for _, r := range []*config.Resources{&without, nil} {
		d, log := measuring(t, root, r)
		if p := d.resources.probe(); p != nil || log.Len() > 0 || (d.containerMetrics() == nil) != (r == nil) {
			t.Errorf("with %+v there is %v, and the log has %s", r, p, log)
		}
		if _, ok := d.usage.Of(&protov1.ContainerRef{Id: "x"}); ok {
			t.Error("nobody has a usage")
		}
	}

	// Nothing can be measured.
	d, log = measuring(t, t.TempDir(), wanted)
	if !strings.Contains(log.String(), "can't be measured") || d.resources.monitor != nil || d.containerMetrics() != nil {
		t.Errorf("the log has %s", log)
	}
	if _, ok := d.usage.Of(&protov1.ContainerRef{Id: "x"}); ok {
		t.Error("where nothing is measured somebody has a usage")
	}
}

func TestThePlanShowsWhereContainersAreAccounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("attaching needs root")
	}
	p, err := planResources(config.Config{Resources: &config.Resources{Network: true}})
	if err != nil {
		t.Fatal(err)
	}
	where := map[string]string{}
	for _, place := range p.Places {
		where[place.What] = place.Where
	}
	for _, what := range []string{"cpu", "memory", "pids"} {
		if !strings.HasPrefix(where[what], "cgroup") {
			t.Errorf("%s is at %q", what, where[what])
		}
	}
	if p.Network.State != "attached" || len(p.Network.Programs) != 2 || len(p.Network.Unseen) == 0 {
		t.Errorf("the accounting is %+v", p.Network)
	}
	if p, err = planResources(config.Config{Resources: &config.Resources{}}); err != nil || p.Network.State != "off" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = planResources(config.Config{}); err != nil || p != nil {
		t.Errorf("without the block: %+v, %v", p, err)
	}
}
