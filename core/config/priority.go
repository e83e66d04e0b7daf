package config

import (
	"path"
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Priority gives events another priority than the one that they come with.
type Priority struct {
	Name  string  `json:"-"`
	Level string  `json:"level"` // "": by Rate
	Rate  float64 `json:"rate"`  // the share that is wanted under pressure; 0: by Level
	// Match are patterns of kinds, such as "network.*", and names of priorities that
	// events come with. With LabelOnly they are texts to be found in an event.
	Match     []string `json:"match"`
	LabelOnly bool     `json:"label_only"`
	Selector
}

func prioritySchema() schema.Block {
	return schema.Block{Attributes: append([]schema.Attribute{
		{Name: "level", Type: schema.String, Enum: priorityNames()},
		{Name: "rate", Type: schema.Number, Default: 0, Min: schema.Bound(0), Max: schema.Bound(1)},
		{Name: "match", Type: schema.String, Shape: schema.List, Default: []string{}},
		{Name: "label_only", Type: schema.Bool, Default: false},
	}, selectorAttributes()...)}
}

func priorityNames() []string {
	names := make([]string, event.Priorities)
	for p := range event.Priorities {
		names[p] = p.String()
	}
	return names
}

// Becomes is the priority that is given.
func (p Priority) Becomes() event.Priority {
	if level, ok := event.ParsePriority(p.Level); ok {
		return level
	}
	switch { // the least share that each is kept with under pressure
	case p.Rate >= 1:
		return event.Critical
	case p.Rate >= 0.9:
		return event.Error
	case p.Rate >= 0.5:
		return event.Warning
	case p.Rate >= 0.1:
		return event.Info
	}
	return event.Debug
}

// Matches are the kinds and the priorities that Match names. Each alone is enough.
func (p Priority) Matches() (kinds []string, priorities []event.Priority) {
	for _, m := range p.Match {
		k, l := matches(m)
		kinds, priorities = append(kinds, k...), append(priorities, l...)
	}
	return kinds, priorities
}

func matches(pattern string) (kinds []string, priorities []event.Priority) {
	if p, ok := event.ParsePriority(pattern); ok {
		return nil, []event.Priority{p}
	}
	for _, k := range kernelKinds() {
		if ok, err := path.Match(pattern, k); ok && err == nil {
			kinds = append(kinds, k)
		}
	}
	return kinds, nil
}

func checkPriority(p Priority) diag.Diagnostics {
	ds := p.check()
	if (p.Level == "") == (p.Rate == 0) {
		ds = append(ds, diag.Errorf(nil, "Level or rate", "A priority block has either a level or a rate, from which the level follows."))
	}
	if p.values()+len(p.Match) == 0 {
		ds = append(ds, diag.Errorf(nil, "Priority of everything", "A priority block that asks for nothing would match every event. Name what it is to match."))
	}
	if p.LabelOnly {
		if p.values() > 0 || len(p.Match) == 0 {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("label_only")}, "Texts wanted", `With label_only a block has texts to be found, in "match", and nothing else.`))
		}
		return ds
	}
	for i, m := range p.Match {
		kinds, priorities := matches(m)
		if len(kinds)+len(priorities) > 0 && len(p.Kinds) > 0 {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("match"), diag.Index(i)}, "Kinds named twice", `Name kinds either in "kinds" or in "match".`))
		}
		if len(kinds)+len(priorities) == 0 {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("match"), diag.Index(i)}, "Nothing to match",
				"%q is no pattern of a kind (%s) and no priority (%s), and the kernel can't look for a text. Name processes with comm, containers with container, image or label; or, to change what is shown and never what is kept, set label_only = true.",
				m, strings.Join(kernelKinds(), ", "), strings.Join(slices.Clone(priorityNames()), ", ")))
		}
	}
	return ds
}
