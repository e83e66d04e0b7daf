package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func TestAutoLooksForWhatItsListsLeave(t *testing.T) {
	for _, c := range []struct {
		src          string
		docker, mine bool
	}{
		{`discoverer "auto" {}`, true, true},
		{`discoverer "auto" { only = ["docker"] }`, true, false},
		{`discoverer "auto" { except = ["docker"] }`, false, true},
	} {
		f, _ := mustParse(t, c.src)
		if a := f.Config.Auto; a.Wants("docker") != c.docker || a.Wants("mine") != c.mine || a.Grace != 30*time.Second {
			t.Errorf("%s: %+v", c.src, a)
		}
		if n := len(f.Plugins()); n != 1 {
			t.Errorf("%s: it is taken for a plugin: %v", c.src, f.Plugins())
		}
	}
	if f, _ := mustParse(t, ""); f.Config.Auto != nil {
		t.Error("it is on without being named")
	}
}

func TestAutoSettingsAreTheSameOrNot(t *testing.T) {
	parse := func(src string) *config.Auto { f, _ := mustParse(t, src); return f.Config.Auto }
	one := parse(`discoverer "auto" { except = ["a"] }`)
	for src, same := range map[string]bool{
		`discoverer "auto" { except = ["a"] }`: true, "": false, `discoverer "auto" {}`: false, `discoverer "auto" { only = ["a"] }`: false,
		"discoverer \"auto\" {\n  except = [\"a\"]\n  grace = \"1s\"\n}":                false,
		"discoverer \"auto\" {\n  except = [\"a\"]\n  plugin { memory = \"64MiB\" }\n}": false,
	} {
		if other := parse(src); one.Equal(other) != same || other.Equal(one) != same {
			t.Errorf("%q: want %v", src, same)
		}
	}
	if none := parse(""); !none.Equal(nil) {
		t.Error("nothing is not nothing")
	}
}

func TestANameThatNoDiscovererHasIsAWarning(t *testing.T) {
	for name, src := range map[string]string{
		"config.hcl":      "discoverer \"auto\" {\n  except = [\"docker\", \"containrd\"]\n}\n",
		"config.hcl.json": "{\"discoverer\": {\"auto\":\n  {\"except\": [\"docker\", \"containrd\"]}}}\n",
	} {
		f, diags := parser(nil).Parse(name, []byte(src))
		if len(diags) > 0 {
			t.Fatal(asText(t, diags))
		}
		found := f.CheckAuto([]string{"containerd", "docker"})
		if len(found) != 1 || found.HasErrors() {
			t.Fatal(asText(t, found))
		}
		if got := asText(t, found); !strings.Contains(got, name+":2:") || !strings.Contains(got, `Did you mean "containerd"?`) {
			t.Errorf("got %s", got)
		}
	}
	f, _ := mustParse(t, "")
	if found := f.CheckAuto(nil); len(found) > 0 {
		t.Errorf("without the block: %v", found)
	}
}

func TestAutoRunsADiscovererByItsDefaultsOrSaysWhyNot(t *testing.T) {
	f, _ := mustParse(t, "\n\ndiscoverer \"auto\" {\n  plugin { memory = \"64MiB\" }\n}\n")
	c, err := f.AutoPlugin("docker", schemas()[`discoverer "docker"`])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(c.JSON), `"resync":30000000000`) || strings.Contains(string(c.JSON), "host") {
		t.Errorf("the configuration is %s", c.JSON)
	}
	if c.Ref.String() != `discoverer "docker"` || !c.Ref.Auto || c.Ref.Host.Memory != 64<<20 || len(c.Grants()) != 0 {
		t.Errorf("got %+v", c)
	}
	if says := c.Explain(diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("host")}, "no", "Not that.")}); !strings.Contains(says, "config.hcl:3:") || !strings.Contains(says, "At host: Not that.") {
		t.Errorf("what the plugin finds is at %s", says)
	}
	var needs *config.NeedsArgumentsError
	_, err = f.AutoPlugin("vault", schemas()[`mesh "vault"`])
	if !errors.As(err, &needs) || err.Error() != `it needs arguments ("address", block "login"): write a block discoverer "vault" { ... } for it` {
		t.Errorf("of one with required arguments: %v", err)
	}
	if _, err = f.AutoPlugin("broken", schemas()[`mesh "broken"`]); err == nil || errors.As(err, &needs) {
		t.Errorf("of a broken schema: %v", err)
	}
	if _, err = f.AutoPlugin("empty", schema.Block{}); err != nil {
		t.Errorf("of an empty schema: %v", err)
	}
}
