package main

import (
	"path"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration.
type Config struct {
	Units []string      `json:"units"`
	Keep  time.Duration `json:"keep"`
}

func configSchema() schema.Block {
	return schema.Block{
		Doc: about,
		Attributes: []schema.Attribute{
			{Name: "units", Type: schema.String, Shape: schema.List, Default: []string{"*.service"},
				Doc: "Names of the units that are workloads, with * and ? as in a shell. Scopes of containers never are: their runtime tells of them."},
			{Name: "keep", Type: schema.Duration, Default: time.Hour, Min: schema.Bound(time.Duration(0)), Max: schema.Bound(7 * 24 * time.Hour),
				Doc: "How long a unit is remembered after it has stopped. Events of a unit that is remembered carry its name from the first on when it starts again."},
		},
	}
}

// validate finds patterns that can match no unit.
func validate(c Config) diag.Diagnostics {
	var ds diag.Diagnostics
	if len(c.Units) == 0 {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("units")}, "no units", "An empty list finds nothing; leave it out for all services."))
	}
	for i, p := range c.Units {
		at := diag.Path{diag.Attr("units"), diag.Index(i)}
		if _, err := path.Match(p, ""); err != nil || strings.Contains(p, "/") {
			ds = append(ds, diag.Errorf(at, "not a pattern", "%q is no name with * and ? in it.", p))
			continue
		}
		if !strings.HasSuffix(p, "*") && !isUnit(p) {
			ds = append(ds, diag.Errorf(at, "matches no unit", "A unit that runs processes is called NAME.service or NAME.scope; write %q.", p+".service"))
		}
	}
	return ds
}

// wants tells whether a unit is a workload.
func (c Config) wants(unit string) bool {
	for _, p := range c.Units {
		if ok, err := path.Match(p, unit); err == nil && ok {
			return true
		}
	}
	return false
}
