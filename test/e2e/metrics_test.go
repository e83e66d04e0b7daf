package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

func TestThePageOfMetricsListsEachThatADaemonServes(t *testing.T) {
	address := freeAddress(t)
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, fmt.Sprintf("mesh \"generic\" {}\nfilter \"nobody\" { comm = [\"nobody-at-all\"] }\nshare \"nobody\" {\n  portion = 0.1\n  container = [\"nobody\"]\n}\nresources { interval = \"1s\" }\nexporter \"prometheus\" { listen = %q }\n", address)))
	// A plugin that has an error to tell of.
	mesh := func(as func(*protov1.PluginView) bool) *protov1.PluginView {
		return tr.WaitPlugin("mesh", "generic", as)
	}
	pid := int(mesh(func(p *protov1.PluginView) bool { return p.GetPid() != 0 }).GetPid())
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	mesh(func(p *protov1.PluginView) bool { return p.GetLastError() != "" && p.GetState() == "running" })
	// And a container that has every limit, and is near to one.
	dir, device := disk(t)
	id := d.Run(t, append(append([]string{"--detach", "--volume", dir + ":/disk"}, limited(device, 2)...),
		env.BusyboxImage, "sh", "-c", "dd if=/dev/zero of=/disk/x bs=64k count=1 oflag=direct 2>/dev/null; sleep 1000 & wait")...)
	remove(t, d, id)
	for deadline := time.Now().Add(harness.Patience); len(scrape(t, address)["ebpf_tracer_container_near_limit_ratio"]) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a container with all its tasks is not near a limit")
		}
	}
	found := list(scrapeFamilies(t, address))
	tr.Stop()

	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "metrics.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- begin -->\n", "<!-- end -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	listed, tail, also := strings.Cut(rest, end)
	if !ok || !also {
		t.Fatalf("%s has no list between %q and %q", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+begin+found+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for line := range strings.Lines(found) {
		if !strings.Contains(listed, line) {
			t.Errorf("the daemon serves, and the page does not list:\n%s", line)
		}
	}
	for line := range strings.Lines(listed) {
		if !strings.Contains(found, line) {
			t.Errorf("the page lists, and the daemon does not serve:\n%s", line)
		}
	}
	if t.Failed() {
		t.Log("go test ./test/e2e -run TestThePageOfMetrics -update writes the list anew")
	}
}

// scrapeFamilies reads the metrics as Prometheus does.
func scrapeFamilies(t *testing.T, address string) map[string]*dto.MetricFamily {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("the metrics answer %s", answer.Status)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		t.Fatalf("read the metrics: %v", err)
	}
	return families
}

// list is a table of all families.
func list(families map[string]*dto.MetricFamily) string {
	var b strings.Builder
	b.WriteString("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(families)) {
		f := families[name]
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels["`"+l.GetName()+"`"] = true
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()),
			strings.Join(slices.Sorted(maps.Keys(labels)), ", "), f.GetHelp())
	}
	return b.String()
}
