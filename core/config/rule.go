package config

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// CheckRule finds what can't be meant of a filter that stands in no file: all that is
// found in a block of one, its name included. Its action may also be the priority that
// what matches gets; "" is drop.
func CheckRule(f Filter) (ds diag.Diagnostics) {
	if !filterName.MatchString(f.Name) {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("name")}, "Malformed name", "%.80q can't name a filter: a name has letters, digits, \".\", \"_\" and \"-\", begins with a letter or a digit, and has at most 64.", f.Name))
	}
	if f.Action == "" {
		f.Action = "drop"
	}
	text, err := json.Marshal(f)
	given := map[string]json.RawMessage{}
	if err == nil {
		err = json.Unmarshal(text, &given)
	}
	if err != nil {
		return append(ds, diag.Errorf(nil, "Malformed filter", "%v.", err))
	}
	for _, a := range filterSchema().Attributes {
		if a.Name == "action" {
			a.Enum = slices.Concat(a.Enum, priorityNames())
		}
		value := given[a.Name]
		if string(value) == "null" { // a list of nothing
			continue
		}
		path := diag.Path{diag.Attr(a.Name)}
		if a.Shape != schema.List {
			if err := a.CheckValue(value); err != nil {
				ds = append(ds, diag.Errorf(path, "Value not allowed", "%s is not allowed: %v.", shortened(value), err))
			}
			continue
		}
		ds = append(ds, checkEach(a, value, path)...)
	}
	if ds.HasErrors() {
		return ds
	}
	return checkFilter(f)
}

// checkEach finds the values of a list that its schema refuses, so that each is named.
func checkEach(a schema.Attribute, list json.RawMessage, path diag.Path) (ds diag.Diagnostics) {
	const shown = 8 // beyond which one knows
	var values []json.RawMessage
	if err := json.Unmarshal(list, &values); err != nil {
		return diag.Diagnostics{diag.Errorf(path, "Value not allowed", "That is no list: %v.", err)}
	}
	a.Shape = schema.Single
	for i, v := range values {
		if err := a.CheckValue(v); err != nil {
			ds = append(ds, diag.Errorf(append(slices.Clone(path), diag.Index(i)), "Value not allowed", "%s is not allowed: %v.", shortened(v), err))
		}
		if len(ds) == shown {
			break
		}
	}
	return ds
}

// shortened is a value for a sentence.
func shortened(v json.RawMessage) string {
	const most = 80
	if len(v) > most {
		return fmt.Sprintf("%.*s...", most, v)
	}
	return string(v)
}
