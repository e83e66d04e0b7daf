package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// name is what a plugin may be called.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// IsName tells whether a plugin may be called so: 1 to 63 small letters, digits and
// hyphens, with no hyphen at either end.
func IsName(s string) bool { return name.MatchString(s) }

// Description judges what a plugin says of itself and returns its schema.
func Description(d *protov1.DescribeResponse) (schema.Block, []string) {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if wire.KindName(d.GetKind()) == "" {
		add("its kind is %s: it is a discoverer, a mesh detector or a sampler", d.GetKind())
	}
	if !IsName(d.GetName()) {
		add("its name is %.80q: names have 1 to 63 of a-z, 0-9 and -", d.GetName())
	}
	if d.GetVersion() == "" {
		add("it has no version: operators ask for it first")
	}
	if strings.TrimSpace(d.GetDoc()) == "" {
		add("it has no doc: say in one paragraph what it does")
	}
	b, err := wire.SchemaFromProto(d.GetSchema())
	var broken *schema.Broken
	switch {
	case errors.As(err, &broken):
		for _, problem := range broken.Problems {
			add("its schema can't be used: %s", problem)
		}
	case err != nil:
		add("its schema can't be used: %v", err)
	default:
		documented(b, "", add)
	}
	return b, wrong
}

// documented checks that every argument and block says what it is for.
func documented(b schema.Block, at string, add func(string, ...any)) {
	for _, a := range b.Attributes {
		if strings.TrimSpace(a.Doc) == "" {
			add("argument %s has no doc: say what it does, and its unit", at+a.Name)
		}
	}
	for _, n := range b.Blocks {
		if strings.TrimSpace(n.Block.Doc) == "" {
			add("block %s has no doc", at+n.Name)
		}
		documented(n.Block, at+n.Name+".", add)
	}
}

// Config fills the defaults of a schema into what an operator wrote, as the daemon
// does: values is a JSON object in the units of the configuration (nanoseconds,
// bytes), with nested blocks as arrays; empty stands for {}. It returns what a
// plugin is sent, and what the daemon would have refused before.
func Config(b schema.Block, values []byte) ([]byte, []string) {
	if len(bytes.TrimSpace(values)) == 0 {
		values = []byte("{}")
	}
	var wrong []string
	filled := fill(b, values, "", func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) })
	raw, err := json.Marshal(filled)
	if err != nil { // only a default of its schema could do that
		return nil, append(wrong, err.Error())
	}
	return raw, wrong
}

func fill(b schema.Block, values []byte, at string, add func(string, ...any)) map[string]json.RawMessage {
	var got map[string]json.RawMessage
	if err := json.Unmarshal(values, &got); err != nil || got == nil {
		add("%s is no JSON object: %.80s", orWhole(at), values)
		return nil
	}
	known := map[string]bool{}
	for _, a := range b.Attributes {
		known[a.Name] = true
		v, there := got[a.Name]
		if !there || string(v) == "null" {
			delete(got, a.Name)
			if raw, ok := a.Default.(json.RawMessage); ok {
				got[a.Name] = raw
			} else if a.Required {
				add("argument %s is required", at+a.Name)
			}
			continue
		}
		if err := a.CheckValue(v); err != nil {
			add("argument %s is %.80s, but %v", at+a.Name, v, err)
		}
	}
	for _, n := range b.Blocks {
		known[n.Name] = true
		got[n.Name] = blocks(n, got[n.Name], at+n.Name, add)
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if !known[k] {
			add("there is no argument %s in the schema", at+k)
		}
	}
	return got
}

func blocks(n schema.NestedBlock, raw json.RawMessage, at string, add func(string, ...any)) json.RawMessage {
	var items []json.RawMessage
	if len(raw) > 0 && string(raw) != "null" {
		if err := json.Unmarshal(raw, &items); err != nil {
			add("%s is a block, which is an array of objects: %v", at, err)
			return raw
		}
	}
	if len(items) < n.MinItems || n.MaxItems > 0 && len(items) > n.MaxItems {
		add("there are %d blocks %s: at least %d are wanted, and at most %d (0: any number)", len(items), at, n.MinItems, n.MaxItems)
	}
	out := make([]map[string]json.RawMessage, len(items))
	for i, item := range items {
		out[i] = fill(n.Block, item, fmt.Sprintf("%s[%d].", at, i), add)
	}
	filled, err := json.Marshal(out)
	if err != nil {
		add("%s: %v", at, err)
	}
	return filled
}

func orWhole(at string) string {
	if at == "" {
		return "the configuration"
	}
	return strings.TrimSuffix(at, ".")
}

// Diagnostics judges what a plugin says of a configuration: every finding has words,
// and every path leads to something in its schema.
func Diagnostics(b schema.Block, ds diag.Diagnostics) []string {
	var wrong []string
	for _, d := range ds {
		if strings.TrimSpace(d.Summary) == "" {
			wrong = append(wrong, fmt.Sprintf("a finding at %q has no summary", d.Path))
		}
		if !leads(b, d.Path) {
			wrong = append(wrong, fmt.Sprintf("the finding %q is at %s, which is not in the schema", d.Summary, d.Path))
		}
	}
	return wrong
}

// leads tells whether a path leads to something in a schema.
func leads(b schema.Block, p diag.Path) bool {
	if len(p) == 0 {
		return true
	}
	first, ok := p[0].(diag.Attr)
	if !ok {
		return false
	}
	for _, a := range b.Attributes {
		if a.Name != string(first) {
			continue
		}
		rest := p[1:]
		if len(rest) > 0 && a.Shape != schema.Single {
			_, index := rest[0].(diag.Index)
			if index != (a.Shape == schema.List) {
				return false
			}
			rest = rest[1:]
		}
		return len(rest) == 0
	}
	for _, n := range b.Blocks {
		if n.Name != string(first) {
			continue
		}
		if len(p) == 1 {
			return true
		}
		_, ok := p[1].(diag.Index)
		return ok && leads(n.Block, p[2:])
	}
	return false
}
