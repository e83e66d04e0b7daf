package main

import (
	"path"
	"regexp"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration.
type Config struct {
	MinConfidence float64   `json:"min_confidence"`
	Builtin       bool      `json:"builtin"`
	Sidecars      []Sidecar `json:"sidecar"`
}

// Sidecar is a rule: how one proxy of one mesh looks.
type Sidecar struct {
	Mesh   string            `json:"mesh"`
	Proxy  string            `json:"proxy"`
	Images []string          `json:"images"`
	Names  []string          `json:"names"`
	Ports  []uint32          `json:"ports"`
	Labels map[string]string `json:"labels"`

	// What only the built-in rules use:

	sharedImages []string          // that others run as well: weak evidence
	sharedNames  []string          // likewise
	ownLabels    bool              // Labels mark the proxy itself, not a workload that may have one
	gateway      map[string]string // any of these labels marks a gateway, which serves no pod
	service      []string          // labels and annotations that name the service
	node         bool              // serves a whole node: always a gateway
}

const word = `[a-z0-9]([a-z0-9._-]*[a-z0-9])?`

func configSchema() schema.Block {
	patterns := func(name, doc string) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.String, Shape: schema.List, Default: []string{}, Doc: doc}
	}
	return schema.Block{
		Doc: "Recognises the sidecar of a service mesh by its image, name, ports and labels, and tells the mesh of the sidecar, " +
			"of its pod and, where there is no pod, of the containers in its network namespace. " +
			"Knows Istio, Linkerd, Consul, Kuma, Open Service Mesh, NGINX Service Mesh, AWS App Mesh, Traefik Mesh and Dapr.",
		Attributes: []schema.Attribute{
			{Name: "min_confidence", Type: schema.Number, Default: 0.5, Min: schema.Bound(0.1), Max: schema.Bound(1),
				Doc: "How sure a recognition must be, from 0 to 1. The evidence of a rule adds up: an image gives 0.8, a name 0.6, " +
					"its own labels 0.5, all of the ports 0.5 and some of them less. Each takes its share of what is missing to 1."},
			{Name: "builtin", Type: schema.Bool, Default: true, Doc: "Whether the built-in rules hold beside those given."},
		},
		Blocks: []schema.NestedBlock{{
			Name: "sidecar", MaxItems: 64,
			Block: schema.Block{
				Doc: "A further sidecar. At least one of images, names, ports and labels is needed. It comes before the built-in rules.",
				Attributes: []schema.Attribute{
					{Name: "mesh", Type: schema.String, Required: true, Pattern: word, Doc: "The mesh, as it will be written on events."},
					{Name: "proxy", Type: schema.String, Required: true, Pattern: word, Doc: "The proxy, as it will be written on events."},
					patterns("images", "Patterns of the image's name, without tag and digest. * stands for any characters but a slash. "+
						"A pattern matches the end of a name, from a slash on: istio/proxyv2 matches registry.example/istio/proxyv2."),
					patterns("names", "Patterns of the container's name; in Kubernetes its name in the pod."),
					{Name: "ports", Type: schema.Integer, Shape: schema.List, Default: []int64{}, Min: schema.Bound(1), Max: schema.Bound(65535),
						Doc: "Ports that the container exposes."},
					{Name: "labels", Type: schema.String, Shape: schema.Map, Default: map[string]string{},
						Doc: "Labels of the container, or labels or annotations of its pod, by key: patterns of the value. All of them must be there."},
				},
			},
		}},
	}
}

func validate(c Config) diag.Diagnostics {
	var ds diag.Diagnostics
	whole := regexp.MustCompile(`^` + word + `$`)
	for i, s := range c.Sidecars {
		at := func(steps ...diag.Step) diag.Path {
			return append(diag.Path{diag.Attr("sidecar"), diag.Index(i)}, steps...)
		}
		if !whole.MatchString(s.Mesh) {
			ds = append(ds, diag.Errorf(at(diag.Attr("mesh")), "not a name", "%q has other characters than a-z, 0-9, dot, dash and underscore.", s.Mesh))
		}
		if !whole.MatchString(s.Proxy) {
			ds = append(ds, diag.Errorf(at(diag.Attr("proxy")), "not a name", "%q has other characters than a-z, 0-9, dot, dash and underscore.", s.Proxy))
		}
		if len(s.Images)+len(s.Names)+len(s.Ports)+len(s.Labels) == 0 {
			ds = append(ds, diag.Errorf(at(), "nothing to recognise it by", "This sidecar has none of images, names, ports and labels; give at least one."))
		}
		check := func(pattern string, steps ...diag.Step) {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				ds = append(ds, diag.Errorf(at(steps...), "not a pattern", "%q cannot be read as a pattern; a bracket that is meant as such is written \\[.", pattern))
			}
		}
		for j, p := range s.Images {
			check(p, diag.Attr("images"), diag.Index(j))
		}
		for j, p := range s.Names {
			check(p, diag.Attr("names"), diag.Index(j))
		}
		for k, p := range s.Labels {
			check(p, diag.Attr("labels"), diag.Key(k))
		}
		for j, p := range s.Ports {
			if p < 1 || p > 65535 {
				ds = append(ds, diag.Errorf(at(diag.Attr("ports"), diag.Index(j)), "not a port", "%d is not between 1 and 65535.", p))
			}
		}
		if c.best(s) < c.MinConfidence {
			ds = append(ds, diag.Diagnostic{Severity: diag.Warning, Path: at(), Summary: "never recognised",
				Detail: "All that this sidecar is known by does not reach min_confidence."})
		}
	}
	return ds
}

// best is the confidence when all of a rule's evidence is found.
func (c Config) best(s Sidecar) float64 {
	var e evidence
	if len(s.Images) > 0 {
		e.add(imageWeight)
	}
	if len(s.Names) > 0 {
		e.add(nameWeight)
	}
	if len(s.Labels) > 0 {
		e.add(labelsWeight)
	}
	if len(s.Ports) > 0 {
		e.add(portsWeight)
	}
	return e.confidence()
}

// rules in the order in which they are asked.
func (c Config) rules() []Sidecar {
	rules := slices.Clone(c.Sidecars)
	for i := range rules {
		rules[i].ownLabels = true
	}
	if c.Builtin {
		rules = append(rules, builtin()...)
	}
	return rules
}
