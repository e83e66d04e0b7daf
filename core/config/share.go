package config

import (
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Share is a part of the budget for the control groups that have, of every list that is
// not empty, one of the values.
type Share struct {
	Name      string            `json:"-"`
	Portion   float64           `json:"portion"`   // of the budget, above 0
	Container []string          `json:"container"` // patterns of names, or ids
	Namespace []string          `json:"namespace"` // patterns of namespaces of pods
	Image     []string          `json:"image"`     // patterns
	Label     map[string]string `json:"label"`     // patterns, all of which a container must match
	Cgroup    []string          `json:"cgroup"`    // patterns of paths from the hierarchy's root
}

const (
	maxShares    = 32    // kernel.MaxShares
	leastPortion = 0.001 // of a share
)

func shareSchema() schema.Block {
	list := func(name string) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.String, Shape: schema.List, Default: []string{}}
	}
	return schema.Block{Attributes: []schema.Attribute{
		{Name: "portion", Type: schema.Number, Required: true, Min: schema.Bound(leastPortion), Max: schema.Bound(1)},
		list("container"), list("namespace"), list("image"),
		{Name: "label", Type: schema.String, Shape: schema.Map, Default: map[string]string{}},
		list("cgroup"),
	}}
}

// checkShare finds what can't be meant.
func checkShare(s Share) diag.Diagnostics {
	selector := Selector{Container: s.Container, Namespace: s.Namespace, Image: s.Image, Label: s.Label, Cgroup: s.Cgroup}
	ds := selector.check()
	if selector.values() == 0 {
		ds = append(ds, diag.Errorf(nil, "Share of everything", "A share that names nothing would be the whole budget. Name the containers or control groups that it is for."))
	}
	return ds
}

// fits checks that there is room for one more share, and that all are no more than the
// budget.
func fits(before []Share, s Share) diag.Diagnostics {
	if len(before) >= maxShares {
		return diag.Diagnostics{diag.Errorf(nil, "Too many shares", "There can be %d shares of the budget.", maxShares)}
	}
	const all = 1 + 1e-9 // tenths don't add up exactly
	sum := 0.0
	for _, b := range before {
		sum += b.Portion
	}
	if sum > all || sum+s.Portion <= all {
		return nil // the first that is too much has been told
	}
	return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("portion")}, "More than the budget", "With those before it this share makes %.4g of the budget.", sum+s.Portion)}
}
