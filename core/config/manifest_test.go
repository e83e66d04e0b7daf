package config

import (
	"strings"
	"testing"
)

const manifest = `# what runs
plugin "discoverer" "docker" {
  protocol = 1
  command  = ["./docker", "word"]
  files    = ["./words.txt"]
  needs {
    sockets = ["/var/run/docker.sock"]
    env     = ["DOCKER_HOST"]
    network = true
    root    = true
  }
}
`

func TestAManifestIsReadWhole(t *testing.T) {
	m, err := ParseManifest("docker.plugin.hcl", []byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != Discoverer || m.Name != "docker" || m.Protocol != 1 || strings.Join(m.Command, " ") != "./docker word" {
		t.Errorf("read %+v", m)
	}
	if m.Auto != (ManifestAuto{Enabled: true}) {
		t.Errorf("auto is %+v", m.Auto)
	}
	if len(m.Files) != 1 || m.Files[0] != "./words.txt" {
		t.Errorf("files are %q", m.Files)
	}
	n := m.Needs
	if len(n.Sockets) != 1 || len(n.Env) != 1 || n.Env[0] != "DOCKER_HOST" || !n.Network || !n.Root || len(n.Paths) != 0 || len(n.Capabilities) != 0 {
		t.Errorf("needs are %+v", n)
	}
}

func TestAManifestSaysHowADiscovererTakesPartInAuto(t *testing.T) {
	for text, want := range map[string]ManifestAuto{
		"":                             {Enabled: true},
		"auto {}":                      {Enabled: true},
		"auto { enabled = false }":     {},
		"auto { fallback = true }":     {Enabled: true, Fallback: true},
		"auto { fallback = \"true\" }": {},
	} {
		m, err := ParseManifest("m.hcl", []byte(strings.Replace(manifest, "protocol = 1", "protocol = 1\n  "+text, 1)))
		if wrong := strings.Contains(text, `"`); (err != nil) != wrong || err == nil && m.Auto != want {
			t.Errorf("%q: %+v %v", text, m.Auto, err)
		}
	}
	m, err := ParseManifest("m.hcl", []byte(strings.Replace(manifest, `"discoverer"`, `"mesh"`, 1)))
	if err != nil || m.Auto != (ManifestAuto{}) {
		t.Errorf("of a detector: %+v %v", m.Auto, err)
	}
}

func TestAMistakeInAManifestIsToldAtItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"syntax":                 {"protocol = 1", "protocol =", "m.hcl:3"},
		"an unknown argument":    {"protocol = 1", "protocol = 1\n  sha = \"x\"", "m.hcl:4"},
		"a missing argument":     {"  protocol = 1\n", "", "m.hcl:2"},
		"a wrong type":           {"protocol = 1", `protocol = "one"`, "m.hcl:3"},
		"an unknown need":        {"network = true", "kernel = true", "m.hcl:9"},
		"no labels":              {`plugin "discoverer" "docker"`, "plugin", "m.hcl:2"},
		"another block":          {`plugin "discoverer" "docker"`, `plug "discoverer" "docker"`, "m.hcl:2"},
		"two needs":              {"  needs {", "  needs {}\n  needs {", "m.hcl:7"},
		"no command":             {`["./docker", "word"]`, "[]", "command is empty"},
		"two plugins":            {"# what runs", "plugin \"mesh\" \"m\" {\n  protocol = 1\n  command = [\"m\"]\n}\n", "this one has 2"},
		"auto of a sampler":      {`plugin "discoverer" "docker" {`, "plugin \"sampler\" \"docker\" {\n  auto {}", "auto { ... } is for discoverers"},
		"never and at last":      {"protocol = 1", "protocol = 1\n  auto {\n    enabled = false\n    fallback = true\n  }", "say one of the two"},
		"auto as an argument":    {"protocol = 1", "protocol = 1\n  auto = false", "m.hcl:4"},
		"a variable of the host": {`"DOCKER_HOST"`, `env("HOME", "x")`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(manifest, c.old) {
				t.Fatal("the table changes nothing")
			}
			m, err := ParseManifest("m.hcl", []byte(strings.Replace(manifest, c.old, c.new, 1)))
			if c.want == "" {
				// Functions are the configuration's; here they see no host.
				if err == nil && m.Needs.Env[0] != "x" {
					t.Errorf("read %+v", m)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte("plugin \"a\" \"b\" { command = [1] }"))
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := ParseManifest("m.hcl", src)
		if err == nil && (len(m.Command) == 0 || m.Protocol < 1) {
			t.Errorf("read %+v", m)
		}
	})
}
