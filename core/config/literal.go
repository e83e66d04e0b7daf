package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// TypeName is what an argument holds, in the words of the documents: "list of text".
func TypeName(a schema.Attribute) string {
	name := map[schema.Type]string{
		schema.String: "text", schema.Number: "number", schema.Integer: "whole number", schema.Bool: "bool",
		schema.Duration: "duration", schema.Size: "size",
	}[a.Type]
	return map[schema.Shape]string{schema.List: "list of ", schema.Map: "map of "}[a.Shape] + name
}

// Bounds is what an argument's minimum and maximum allow, as "from 1 to 32" and in
// the units of the file; "" if there are none.
func Bounds(a schema.Attribute) string { return bounds(&a) }

// Literal writes a value of an argument, a default for example, as it would stand
// in a file. Like a default, value is what encoding/json makes a configuration of.
func Literal(a schema.Attribute, value any) (string, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", a.Name, err)
	}
	if err := a.CheckValue(raw); err != nil {
		return "", fmt.Errorf("write %s: it is %.80s, but %w", a.Name, raw, err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", fmt.Errorf("write %s: %w", a.Name, err)
	}
	return literal(v, &a)
}

// literal writes what json.Decoder read and CheckValue found to be right.
func literal(v any, a *schema.Attribute) (string, error) {
	switch v := v.(type) {
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			var err error
			if parts[i], err = literal(e, a); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(parts, ", ") + "]", nil
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			value, err := literal(v[k], a)
			if err != nil {
				return "", err
			}
			key := k
			if !hclsyntax.ValidIdentifier(k) {
				key = quoted(k)
			}
			parts = append(parts, key+" = "+value)
		}
		if len(parts) == 0 {
			return "{}", nil
		}
		return "{ " + strings.Join(parts, ", ") + " }", nil
	case string:
		return quoted(v), nil
	case json.Number:
		if a.Type != schema.Duration && a.Type != schema.Size {
			return v.String(), nil
		}
		n, err := v.Int64()
		if err != nil {
			return "", fmt.Errorf("write %s: %w", a.Name, err)
		}
		if a.Type == schema.Duration {
			return quoted(formatDuration(n)), nil
		}
		return quoted(formatSize(n)), nil
	}
	return fmt.Sprint(v), nil
}

// quoted is a text as HCL has it. (hclwrite, which could write it, brings a
// library for tests into the daemon.)
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case (r == '$' || r == '%') && strings.HasPrefix(s[i+1:], "{"):
			b.WriteRune(r) // twice: no expression begins here
			b.WriteRune(r)
		case !unicode.IsPrint(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
