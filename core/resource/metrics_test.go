package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func all(string) bool { return true }

func metrics(t testing.TB, m *Monitor) string {
	t.Helper()
	var b bytes.Buffer
	if err := m.WriteMetrics(&b, all); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return families
}

// whole is a host with one container that has every figure.
func whole(t *testing.T) (*host, *Monitor) {
	h := newHost(t)
	m := h.monitor(nil)
	f := unpack(t, "v2-6.12")
	group := h.container(1, 1, 1)
	for _, part := range f.archive.Files {
		if name, ok := strings.CutPrefix(part.Name, "docker/"+fixtureID+"/"); ok {
			h.write("/docker/"+id(1)+"/"+name, string(part.Data))
		}
	}
	h.write("/docker/"+id(1)+"/pids.current", "20\n")
	h.traffic.sent(group, 77)
	h.pass(m)
	h.pass(m)
	return h, m
}

func TestMetricsOfContainersKeepTheConventions(t *testing.T) {
	_, m := whole(t)
	text := metrics(t, m)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	found := parse(t, text)
	for _, f := range families {
		if found[f.name] == nil {
			t.Errorf("%s has no series", f.name)
		}
	}
}

func TestMetricsTellTheFiguresInTheirUnits(t *testing.T) {
	_, m := whole(t)
	text := metrics(t, m)
	labels := `id="/docker/` + id(1) + `",image="app:1",name="c1"`
	for _, line := range []string{
		"container_cpu_usage_seconds_total{" + labels + `,cpu="total"} 1.553386`,
		"container_cpu_user_seconds_total{" + labels + "} 1.475921",
		"container_cpu_cfs_throttled_periods_total{" + labels + "} 30",
		"container_cpu_cfs_throttled_seconds_total{" + labels + "} 1.4703",
		"container_spec_cpu_quota{" + labels + "} 50000",
		"container_spec_cpu_period{" + labels + "} 100000",
		"container_spec_cpu_shares{" + labels + "} 1653",
		"container_memory_working_set_bytes{" + labels + "} 8.835072e+06",
		"container_spec_memory_limit_bytes{" + labels + "} 6.7108864e+07",
		"container_threads{" + labels + "} 20",
		"container_threads_max{" + labels + "} 20",
		"container_pressure_cpu_waiting_seconds_total{" + labels + "} 1.368484",
		"container_start_time_seconds{" + labels + "} 5",
		"ebpf_tracer_container_io_written_bytes_total{" + labels + "} 6.13781504e+08",
		"ebpf_tracer_container_network_sent_bytes_total{" + labels + "} 77",
		"ebpf_tracer_container_near_limit_ratio{" + labels + `,resource="pids"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestWithoutALimitThereIsZeroAndWithoutAQuotaNoThrottling(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 1)
	h.write("/docker/"+id(1)+"/memory.current", "5\n")
	h.write("/docker/"+id(1)+"/cpu.stat", "usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n")
	h.write("/docker/"+id(1)+"/cpu.max", "max 100000\n")
	h.pass(m)
	found := parse(t, metrics(t, m))
	for name, want := range map[string]float64{"container_spec_memory_limit_bytes": 0, "container_threads_max": 0, "container_memory_usage_bytes": 5} {
		f := found[name]
		if f == nil || f.Metric[0].GetGauge().GetValue() != want {
			t.Errorf("%s is %v", name, f)
		}
	}
	for _, name := range []string{"container_cpu_cfs_periods_total", "container_spec_cpu_quota", "container_memory_max_usage_bytes", "ebpf_tracer_container_io_reads_total"} {
		if found[name] != nil {
			t.Errorf("there is %s", name)
		}
	}
}

func TestHostileNamesAreWrittenSafelyAndStayApart(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	hostile := "a\"b\\c\nd\xff}\n# EOF\ncontainer_threads{} 1" + strings.Repeat("é", 500)
	long := "/" + strings.Repeat("x", 200) + "/" + strings.Repeat("y", 250)
	for i, tail := range []string{"1", "2", "\xff", "\xfe"} {
		path := long + tail
		h.group(path, 1, i+1)
		h.describe(i, func(c *protov1.Container) {
			c.CgroupPath, c.Name, c.KubernetesName = path, hostile, hostile
			c.Image = &protov1.Image{Name: hostile, Digest: "sha256:1"}
		})
	}
	// Two that claim one group.
	for i := range 2 {
		h.describe(10+i, func(c *protov1.Container) { c.CgroupPath = "/shared" })
	}
	h.group("/shared", 1, 9)
	h.pass(m)
	h.pass(m)
	text := metrics(t, m)
	threads := parse(t, text)["container_threads"]
	ids, values := map[string]bool{}, map[float64]bool{}
	for _, series := range threads.GetMetric() {
		values[series.GetGauge().GetValue()] = true
		for _, l := range series.GetLabel() {
			if len(l.GetValue()) > mostPath+32 {
				t.Errorf("label %s has %d bytes", l.GetName(), len(l.GetValue()))
			}
			if l.GetName() == "id" {
				ids[l.GetValue()] = true
			}
		}
	}
	if len(threads.GetMetric()) != 5 || len(ids) != 5 || len(values) != 5 {
		t.Errorf("%d series with %d ids and values %v\n%s", len(threads.GetMetric()), len(ids), values, text)
	}
	if !strings.Contains(text, "ebpf_tracer_containers_not_exported 1\n") {
		t.Error("the one that is left out is not counted")
	}
}

func TestOnlyWhatIsWantedIsWrittenAndAnErrorOfTheReaderIsTold(t *testing.T) {
	_, m := whole(t)
	var b bytes.Buffer
	if err := m.WriteMetrics(&b, func(name string) bool { return name == "container_threads" }); err != nil {
		t.Fatal(err)
	}
	if found := parse(t, b.String()); len(found) != 1 || found["container_threads"] == nil {
		t.Errorf("written is\n%s", b.String())
	}
	if err := m.WriteMetrics(broken{}, all); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestPodsAreNamed(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 1)
	h.describe(1, func(c *protov1.Container) {
		c.PodUid, c.KubernetesName, c.Image = "u", "web", &protov1.Image{Id: "sha256:9"}
	})
	h.apply(&protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: "u", Name: "web-0", Namespace: "shop"}}})
	h.pass(m)
	want := fmt.Sprintf(`container_threads{container="web",id="/docker/%s",image="sha256:9",name="c1",namespace="shop",pod="web-0"} 1`, id(1))
	if text := metrics(t, m); !strings.Contains(text, want+"\n") {
		t.Errorf("missing %s in\n%s", want, text)
	}
}
