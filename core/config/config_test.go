package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

const fullHCL = `
node {
  name      = env("NODE_NAME", hostname())
  host_root = "/mnt//host/"
}
plugins {
  dirs    = ["/opt/plugins", "more"]
  sandbox = "required"
}
probe "process" { args = false }
probe "file" {}
kernel {
  ring_size = "1MiB"
  rings     = 2
}
attribution {
  hold            = "0s"
  hold_per_cgroup = 1
  hold_total      = 2
}
load {
  interval          = "1m"
  cpu_threshold     = 0.9
  memory_threshold  = "2GiB"
  network_threshold = 0.7
  disk_threshold    = 0
  shed              = ["file", "network"]
}
budget {
  events_per_second = 5000
  reserve           = 0.25
}
resources {
  interval       = "30s"
  max_containers = 3
  max_exported   = 4
  warn_at        = 0.75
  network        = false
}
exporter "json" {
  path      = "/var/log/${hostname()}.json"
  max_size  = "1.5GiB"
  max_files = 1
  kinds     = ["process.exec", "file.open"]
}
exporter "prometheus" { listen = ":0" }
api { socket = "/tmp/s" }
log {
  level  = "debug"
  format = "json"
}
discoverer "auto" {
  only   = ["docker", "mine"]
  except = []
  grace  = "5m"
  plugin { processes = 16 }
}
discoverer "docker" {
  plugin {
    memory        = "1GB"
    start_timeout = "1s"
  }
  host = "unix:///run/docker.sock"
  env  = env("WITH_ENV")
}
sampler "threshold" {
  level {
    below = 10
    rate  = 1
  }
  level {
    below = 20
    rate  = 0.9
  }
  above_max_rate = 0.5
}
mesh "vault" {
  address = "a"
  token   = null
  tags    = { a = "on", "b c" = "off" }
  login {}
}
`

const fullJSON = `{
  "node": {"name": "${env(\"NODE_NAME\", hostname())}", "host_root": "/mnt//host/"},
  "plugins": {"dirs": ["/opt/plugins", "more"], "sandbox": "required"},
  "probe": {"process": {"args": false}, "file": {}},
  "kernel": {"ring_size": "1MiB", "rings": 2},
  "attribution": {"hold": "0s", "hold_per_cgroup": 1, "hold_total": 2},
  "load": {"interval": "1m", "cpu_threshold": 0.9, "memory_threshold": "2GiB", "network_threshold": 0.7, "disk_threshold": 0, "shed": ["file", "network"]},
  "budget": {"events_per_second": 5000, "reserve": 0.25},
  "resources": {"interval": "30s", "max_containers": 3, "max_exported": 4, "warn_at": 0.75, "network": false},
  "exporter": {
    "json": {"path": "/var/log/${hostname()}.json", "max_size": "1.5GiB", "max_files": 1, "kinds": ["process.exec", "file.open"]},
    "prometheus": {"listen": ":0"}
  },
  "api": {"socket": "/tmp/s"},
  "log": {"level": "debug", "format": "json"},
  "discoverer": {"auto": {"only": ["docker", "mine"], "except": [], "grace": "5m", "plugin": {"processes": 16}}, "docker": {
    "plugin": {"memory": "1GB", "start_timeout": "1s"},
    "host": "unix:///run/docker.sock",
    "env": "${env(\"WITH_ENV\")}"
  }},
  "sampler": {"threshold": {"level": [{"below": 10, "rate": 1}, {"below": 20, "rate": 0.9}], "above_max_rate": 0.5}},
  "mesh": {"vault": {"address": "a", "token": null, "tags": {"a": "on", "b c": "off"}, "login": {}}}
}`

func TestEverySettingReachesTheTypedConfigurationInBothSyntaxes(t *testing.T) {
	want := config.Config{
		Node:        config.Node{Name: "host-1", HostRoot: "/mnt/host"},
		Plugins:     config.Plugins{Dirs: []string{"/opt/plugins", "more"}, Sandbox: config.Required},
		Probes:      config.Probes{Process: &config.ProcessProbe{}, File: &config.FileProbe{}},
		Kernel:      config.Kernel{RingSize: 1 << 20, Rings: 2},
		Attribution: config.Attribution{HoldPerCgroup: 1, HoldTotal: 2},
		Load:        config.Load{Interval: time.Minute, CPUThreshold: 0.9, MemoryThreshold: 2 << 30, NetworkThreshold: 0.7, Shed: []string{"file", "network"}},
		Budget:      config.Budget{EventsPerSecond: 5000, Reserve: 0.25},
		Resources:   &config.Resources{Interval: 30 * time.Second, MaxContainers: 3, MaxExported: 4, WarnAt: 0.75},
		Exporters: config.Exporters{
			JSON:       &config.JSONExporter{Path: "/var/log/host-1.json", MaxSize: 3 << 29, MaxFiles: 1, Kinds: []string{"process.exec", "file.open"}},
			Prometheus: &config.PrometheusExporter{Listen: ":0"},
		},
		Auto: &config.Auto{
			Only: []string{"docker", "mine"}, Except: []string{}, Grace: 5 * time.Minute,
			Host: config.PluginHost{Memory: 128 << 20, Processes: 16, StartTimeout: 5 * time.Second},
		},
		API: config.API{Socket: "/tmp/s"},
		Log: config.Log{Level: "debug", Format: "json"},
	}
	wantJSON := map[string]string{
		`discoverer "docker"`: `{"env":true,"host":"unix:///run/docker.sock","inspect_workers":4,"label_size":4096,"labels_exclude":[],"labels_include":["*"],"labels_size":32768,"resync":30000000000,"timeout":5000000000}`,
		`sampler "threshold"`: `{"above_max_rate":0.5,"above_min_rate":0.01,"hysteresis":0.1,"level":[{"below":10,"rate":1},{"below":20,"rate":0.9}],"smoothing":1000000000}`,
		`mesh "vault"`:        `{"address":"a","login":[{"tries":3}],"mirror":[],"tags":{"a":"on","b c":"off"}}`,
	}
	for name, src := range map[string]string{"config.hcl": fullHCL, "config.hcl.json": fullJSON} {
		t.Run(name, func(t *testing.T) {
			f, diags := parser(map[string]string{"WITH_ENV": "true"}).Parse(name, []byte(src))
			plugins, more := f.DecodePlugins(lookup)
			if diags = config.Join(diags, more); len(diags) > 0 {
				t.Fatal(asText(t, diags))
			}
			if !reflect.DeepEqual(f.Config, want) {
				t.Errorf("got  %+v\nwant %+v", f.Config, want)
			}
			if len(plugins) != len(wantJSON) {
				t.Fatalf("got %d plugins", len(plugins))
			}
			for _, p := range plugins {
				if string(p.JSON) != wantJSON[p.Ref.String()] {
					t.Errorf("%s: got  %s\nwant %s", p.Ref, p.JSON, wantJSON[p.Ref.String()])
				}
			}
			docker := plugins[0].Ref
			if want := (config.PluginHost{Memory: 1e9, Processes: 256, StartTimeout: time.Second}); docker.Host != want || docker.Implicit {
				t.Errorf("got %+v", docker)
			}
		})
	}
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	want := config.Config{
		Node:        config.Node{Name: "host-1"},
		Plugins:     config.Plugins{Dirs: []string{}, Sandbox: config.BestEffort},
		Probes:      config.Probes{Process: &config.ProcessProbe{Args: true}, Network: &config.NetworkProbe{}},
		Kernel:      config.Kernel{RingSize: 8 << 20},
		Attribution: config.Attribution{Hold: 500 * time.Millisecond, HoldPerCgroup: 64, HoldTotal: 4096},
		Load:        config.Load{Interval: 500 * time.Millisecond, CPUThreshold: 0.8, MemoryThreshold: 1 << 30, NetworkThreshold: 0.8, DiskThreshold: 0.8, Shed: []string{}},
		Budget:      config.Budget{EventsPerSecond: 100_000, Reserve: 0.5},
		API:         config.API{Socket: "/run/ebpf-tracer/api.sock"},
		Log:         config.Log{Level: "info", Format: "text"},
	}
	for _, c := range []struct{ name, src string }{
		{"config.hcl", ""}, {"config.hcl", "# nothing\n"}, {"config.hcl.json", "{}"}, {"config.hcl.json", "[]"},
	} {
		f, diags := parser(nil).Parse(c.name, []byte(c.src))
		if len(diags) > 0 {
			t.Fatal(asText(t, diags))
		}
		if !reflect.DeepEqual(f.Config, want) {
			t.Errorf("%s %q: got  %+v\nwant %+v", c.name, c.src, f.Config, want)
		}
		refs := f.Plugins()
		if len(refs) != 1 || refs[0].String() != `sampler "threshold"` || !refs[0].Implicit || refs[0].Host.StartTimeout != 5*time.Second {
			t.Errorf("%s %q: got plugins %+v", c.name, c.src, refs)
		}
	}
}

func TestAnExporterGivenEmptyHasItsDefaults(t *testing.T) {
	f, _ := mustParse(t, "exporter \"json\" {}\nexporter \"prometheus\" {}\n")
	if got, want := *f.Config.Exporters.JSON, (config.JSONExporter{Path: "-", MaxSize: 100 << 20, MaxFiles: 5, Kinds: []string{}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := f.Config.Exporters.Prometheus.Listen; got != "127.0.0.1:9464" {
		t.Errorf("got %q", got)
	}
}

func TestTheNodeIsNamedByTheEnvironmentThenByTheHost(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		src  string
		want string
	}{
		{nil, "", "host-1"},
		{map[string]string{"NODE_NAME": "n1"}, "", "n1"},
		{map[string]string{"NODE_NAME": ""}, "", "host-1"},
		{map[string]string{"NODE_NAME": "n1"}, "node {}", "n1"},
		{map[string]string{"NODE_NAME": "n1"}, `node { name = "mine" }`, "mine"},
		{map[string]string{"NODE_NAME": "n1"}, `node { name = "${env("NODE_NAME")}-b" }`, "n1-b"},
	} {
		f, diags := parser(c.env).Parse("config.hcl", []byte(c.src))
		if diags.HasErrors() || f.Config.Node.Name != c.want {
			t.Errorf("%v %q: got %q %v", c.env, c.src, f.Config.Node.Name, diags)
		}
	}
	nameless := parser(nil)
	nameless.Hostname = func() (string, error) { return "", errors.New("no name") }
	if _, diags := nameless.Parse("config.hcl", nil); !diags.HasErrors() || !strings.Contains(asText(t, diags), "NODE_NAME") {
		t.Errorf("a host without a name is accepted: %v", diags)
	}
}

func TestTheDefaultSamplerIsCheckedLikeOneThatIsNamed(t *testing.T) {
	f, _ := parser(nil).Parse("config.hcl", nil)
	missing := errors.New("no such file")
	_, diags := f.DecodePlugins(func(config.PluginRef) (schema.Block, error) { return schema.Block{}, missing })
	if got := asText(t, diags); !strings.Contains(got, `sampler "threshold" (the default of a configuration that names no sampler): no such file`) {
		t.Errorf("got %s", got)
	}
}

func TestAFileThatCannotBeReadIsADiagnostic(t *testing.T) {
	f, diags := config.ReadFile(filepath.Join(t.TempDir(), "none.hcl"))
	if f == nil || !diags.HasErrors() || !strings.Contains(asText(t, diags), "config.hcl") {
		t.Errorf("got %v", diags)
	}
}

func TestAFileTooLargeIsADiagnostic(t *testing.T) {
	for _, name := range []string{"config.hcl", "config.hcl.json"} {
		_, diags := config.Parse(name, []byte(strings.Repeat(" ", 1<<20+1)))
		if len(diags) != 1 || diags[0].Summary != "Configuration too large" {
			t.Errorf("%s: got %v", name, diags)
		}
	}
}

func TestDiagnosticsSayHowManyAndWhere(t *testing.T) {
	_, _, diags := check(t, parser(nil), "config.hcl", []byte("foo {}\nmesh \"vault\" {\n  address = \"a\"\n  old = true\n  login {}\n}\n"))
	if errs, warnings := diags.Count(); errs != 1 || warnings != 1 {
		t.Errorf("got %d errors, %d warnings", errs, warnings)
	}
	if got := diags[0].Error(); !strings.HasPrefix(got, "config.hcl:1:1: Unknown block: ") {
		t.Errorf("got %q", got)
	}
	if got := diags[1].Range.String(); got != "config.hcl:4:3" {
		t.Errorf("got %q", got)
	}
}

func TestShippedConfigurationsAreRight(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.hcl*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range append(files, "../../config.hcl") {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, diags := check(t, parser(nil), file, src); len(diags) > 0 {
			t.Error(asText(t, diags))
		}
	}
}
