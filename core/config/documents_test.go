package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// cells of a row of a table.
func cells(line string) []string {
	row := strings.Split(strings.Trim(line, "|"), " | ")
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	return row
}

func TestEveryArgumentOfTheCoreIsDocumentedWithItsTypeDefaultAndRange(t *testing.T) {
	sections := map[string]string{}
	for _, part := range strings.Split(document(t), "\n### ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		text, _, _ = strings.Cut(text, "\n## ")
		sections[strings.Trim(title, "`")] = text
	}
	want := config.CoreSchemas()
	for title, s := range want {
		text, ok := sections[title]
		if !ok {
			t.Errorf("%s has no section", title)
			continue
		}
		rows := 0
		rows += documented(t, title, text, "| Argument |", s.Attributes)
		for _, b := range s.Blocks {
			rows += documented(t, title, text, "| Argument of `"+b.Name+"` |", b.Block.Attributes)
		}
		if got := strings.Count(text, "\n| `"); got != rows {
			t.Errorf("%s: %d rows for %d arguments", title, got, rows)
		}
	}
}

func documented(t *testing.T, title, text, header string, attributes []schema.Attribute) int {
	t.Helper()
	if len(attributes) == 0 {
		return 0
	}
	_, table, ok := strings.Cut(text, header)
	if !ok {
		t.Errorf("%s has no table %q", title, header)
		return 0
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string][]string{}
	for _, line := range strings.Split(table, "\n") {
		if strings.HasPrefix(line, "| `") {
			row := cells(line)
			rows[strings.Trim(row[0], "`")] = row
		}
	}
	for _, a := range attributes {
		row := rows[a.Name]
		if len(row) != 4 {
			t.Errorf("%s: %s has no row", title, a.Name)
			continue
		}
		if row[1] != config.TypeName(a) {
			t.Errorf("%s: %s is a %s, not a %s", title, a.Name, config.TypeName(a), row[1])
		}
		if title != "node" && row[2] != defaultText(t, a) {
			t.Errorf("%s: the default of %s is %s, not %s", title, a.Name, defaultText(t, a), row[2])
		}
		if b := config.Bounds(a); a.Name != "rings" && !strings.Contains(row[3], b) {
			t.Errorf("%s: %s is %s; the row says %s", title, a.Name, b, row[3])
		}
		for _, e := range a.Enum {
			if !strings.Contains(row[3], "`"+e+"`") {
				t.Errorf("%s: %s can be %s; the row says %s", title, a.Name, e, row[3])
			}
		}
	}
	return len(attributes)
}

func defaultText(t *testing.T, a schema.Attribute) string {
	t.Helper()
	if a.Required {
		return "required"
	}
	switch d := a.Default.(type) {
	case nil:
		return "none"
	case string:
		return "`" + d + "`"
	case time.Duration:
		return "`" + config.InUnit(float64(d), a.Type) + "`"
	case int64:
		return "`" + config.InUnit(float64(d), a.Type) + "`"
	}
	raw, err := json.Marshal(a.Default)
	if err != nil {
		t.Fatal(err)
	}
	return "`" + string(raw) + "`"
}

// settings are all JSON keys and environment variables of the design documents,
// and what the HCL of a supported one must have set.
func settings() map[string]func(config.Config, map[string]string) bool {
	plugin := func(title, want string) func(config.Config, map[string]string) bool {
		return func(_ config.Config, plugins map[string]string) bool {
			got, ok := plugins[title]
			return ok && strings.Contains(got, want)
		}
	}
	docker := plugin(`discoverer "docker"`, "{")
	runtimes := func(_ config.Config, plugins map[string]string) bool {
		return plugins[`discoverer "docker"`]+plugins[`discoverer "containerd"`]+plugins[`discoverer "crio"`] != ""
	}
	level := func(below, rate string) func(config.Config, map[string]string) bool {
		return plugin(`sampler "threshold"`, fmt.Sprintf(`"level":[{"below":%s,"rate":%s}]`, below, rate))
	}
	urgent := func(c config.Config, _ map[string]string) bool {
		return len(c.Priorities) == 1 && c.Priorities[0].Name == "high_priority" && c.Priorities[0].Becomes() == event.Critical
	}
	return map[string]func(config.Config, map[string]string) bool{
		"container_config.enable_container_discovery":    docker,
		"container_config.enable_kubernetes_integration": nil,
		"container_config.enable_namespace_isolation":    nil,
		"container_config.enable_service_mesh_support":   plugin(`mesh "generic"`, "{"),
		"container_config.container_runtimes":            runtimes,
		"container_config.kubeconfig_path":               nil,
		"container_config.namespace_filters":             nil,
		"container_config.discovery_interval":            plugin(`discoverer "docker"`, `"resync":30000000000`),
		"container_config.metadata_collection":           plugin(`discoverer "docker"`, `"env":true`),
		"container_config.resource_monitoring":           func(c config.Config, _ map[string]string) bool { return c.Resources != nil },
		"general.enable_container_integration":           docker,
		"general.enable_container_discovery":             docker,
		"general.enable_kubernetes_integration":          nil,
		"general.container_discovery_interval":           plugin(`discoverer "docker"`, `"resync":30000000000`),
		"general.enable_load_management":                 plugin(`sampler "threshold"`, "{"),
		"general.max_events_per_second":                  func(c config.Config, _ map[string]string) bool { return c.Budget.EventsPerSecond == 100_000 },
		"general.min_sampling_rate":                      plugin(`sampler "threshold"`, `"above_min_rate":0.01`),
		"general.max_sampling_rate":                      level("1000", "1"),
		"load_config.enable_adaptive_filtering":          plugin(`sampler "adaptive"`, "{"),
		"load_config.enable_kernel_filtering": func(c config.Config, _ map[string]string) bool {
			return len(c.Filters) == 1 && c.Filters[0].Comm[0] == "node_exporter"
		},
		"load_config.enable_intelligent_sampling":      plugin(`sampler "threshold"`, "{"),
		"load_config.enable_load_balancing":            func(c config.Config, _ map[string]string) bool { return c.Kernel.Rings == 4 },
		"load_config.max_events_per_second":            func(c config.Config, _ map[string]string) bool { return c.Budget.EventsPerSecond == 100_000 },
		"load_config.min_sampling_rate":                plugin(`sampler "threshold"`, `"above_min_rate":0.01`),
		"load_config.max_sampling_rate":                level("1000", "1"),
		"load_config.load_thresholds.low":              level("1000", "1"),
		"load_config.load_thresholds.medium":           level("10000", "0.8"),
		"load_config.load_thresholds.high":             level("50000", "0.5"),
		"load_config.load_thresholds.critical":         level("100000", "0.2"),
		"load_config.adaptation_interval":              func(c config.Config, _ map[string]string) bool { return c.Load.Interval == 5*time.Second },
		"load_config.cpu_threshold":                    func(c config.Config, _ map[string]string) bool { return c.Load.CPUThreshold == 0.8 },
		"load_config.memory_threshold":                 func(c config.Config, _ map[string]string) bool { return c.Load.MemoryThreshold == 1<<30 },
		"load_config.priority_filters":                 urgent,
		"load_config.priority_filters[].name":          urgent,
		"load_config.priority_filters[].priority":      urgent,
		"load_config.priority_filters[].patterns":      urgent,
		"load_config.priority_filters[].sampling_rate": urgent,
		"load_config.priority_filters[].enabled":       urgent,
		"ENABLE_CONTAINER_INTEGRATION":                 docker,
		"ENABLE_KUBERNETES_INTEGRATION":                nil,
	}
}

func TestEveryJSONSettingHasItsHCL(t *testing.T) {
	_, table, ok := strings.Cut(document(t), "| Setting | Value | HCL | Status |\n|---|---|---|---|\n")
	if !ok {
		t.Fatal("no table")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	supported, all := map[string]bool{}, map[string]bool{}
	want := settings()
	span := regexp.MustCompile("`([^`]*)`")
	for _, line := range strings.Split(table, "\n") {
		row := cells(line)
		if len(row) != 4 {
			t.Errorf("not four cells: %s", line)
			continue
		}
		key := strings.Trim(row[0], "`")
		set, known := want[key]
		if !known {
			t.Errorf("%s is no setting of the documents", key)
			continue
		}
		all[key] = true
		var snippet strings.Builder
		for _, part := range span.FindAllStringSubmatch(row[2], -1) {
			snippet.WriteString(part[1] + "\n")
		}
		f, plugins, diags := check(t, parser(nil), "config.hcl", []byte(snippet.String()))
		switch row[3] {
		case "supported":
			if len(diags) > 0 {
				t.Errorf("%s: %s", key, asText(t, diags))
				continue
			}
			configs := map[string]string{}
			for _, p := range plugins {
				if !p.Ref.Implicit {
					configs[p.Ref.String()] = string(p.JSON)
				}
			}
			if set == nil || !set(f.Config, configs) {
				t.Errorf("%s: the HCL does not set it: %+v %v", key, f.Config, configs)
			}
			supported[key] = true
		case "planned":
			if len(diags) == 0 || !strings.Contains(asText(t, diags), "not supported by this version") {
				t.Errorf("%s is planned, but not refused as such: %s", key, asText(t, diags))
			}
		default:
			t.Errorf("%s: status %q", key, row[3])
		}
	}
	for key, set := range want {
		if !all[key] {
			t.Errorf("%s is not in the table", key)
		}
		if set != nil && !supported[key] {
			t.Errorf("%s is supported, and not said to be", key)
		}
	}
}
