package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
)

// What is shown of a plugin's findings about one block. What it says beyond is
// counted, or cut.
const (
	maxFindings = 100
	maxSummary  = 200 // bytes, also of a path
	maxDetail   = 4 << 10
)

// node remembers where a value stands, in the shape of the configuration.
type node struct {
	rng     hcl.Range
	members map[string]*node // arguments and nested blocks of a body, keys of a map
	items   []*node          // elements of a list, or repeated blocks
	blocks  bool             // items are blocks: they have no place together
}

// find follows a path as far as the file goes: an argument that was left out
// has no place of its own, its block has. exact tells whether the whole path
// was followed.
func (n *node) find(path diag.Path) (rng hcl.Range, exact bool) {
	within := n.rng
	for _, step := range path {
		if !n.blocks {
			within = n.rng
		}
		var next *node
		switch s := step.(type) {
		case diag.Attr:
			if len(n.members) == 0 && len(n.items) > 0 {
				n = n.items[0] // a block that stands alone may go without its index
				within = n.rng
			}
			next = n.members[string(s)]
		case diag.Key:
			next = n.members[string(s)]
		case diag.Index:
			if int(s) >= 0 && int(s) < len(n.items) {
				next = n.items[s]
			}
		}
		if next == nil {
			return within, false
		}
		n = next
	}
	return n.rng, true
}

// Diagnostics places what the plugin found wrong with its configuration at the
// values it names: an argument's value, an element of a list or a map, or the
// header of a block. A path that the file does not have, such as that of an
// argument left out, is written out, at the header of the innermost block that
// the file has. Sensitive values that the plugin repeats are starred out, and so
// are those from the environment.
func (c PluginConfig) Diagnostics(found diag.Diagnostics) Diagnostics {
	hide := starrer(c.secrets)
	var out hcl.Diagnostics
	for _, f := range found[:min(len(found), maxFindings)] {
		out = append(out, placed(f, c.at, hide))
	}
	if more := found[len(out):]; len(more) > 0 {
		d := errorAt(c.at.rng, "Too many findings", "%s has %d more to say.", c.Ref, len(more))
		if !more.HasErrors() {
			d.Severity = hcl.DiagWarning
		}
		out = append(out, d)
	}
	return c.src.diagnostics(out)
}

// Explain is what Diagnostics gives as one line: each finding with its place.
func (c PluginConfig) Explain(found diag.Diagnostics) string {
	var all []string
	for _, d := range c.Diagnostics(found) {
		all = append(all, printable(strings.ReplaceAll(d.Error(), "\n", " ")))
	}
	return strings.Join(all, "; ")
}

// placed turns a finding's path into a range. hide is applied to all that is
// shown.
func placed(f diag.Diagnostic, at *node, hide func(string) string) *hcl.Diagnostic {
	rng, exact := at.find(f.Path)
	detail := cut(hide(cmp.Or(f.Detail, "The plugin does not say more.")), maxDetail)
	if !exact {
		detail = fmt.Sprintf("At %s: %s", cut(hide(f.Path.String()), maxSummary), detail)
	}
	d := errorAt(rng, cut(hide(cmp.Or(f.Summary, "Refused by the plugin")), maxSummary), "%s", detail)
	if f.Severity == diag.Warning {
		d.Severity = hcl.DiagWarning
	}
	return d
}

// starrer puts stars in the place of secrets, the longest first, for one may be
// part of another.
func starrer(secrets []string) func(string) string {
	var all []string
	for _, s := range secrets {
		quoted := strconv.Quote(s)
		all = append(all, s, quoted[1:len(quoted)-1])
	}
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	var pairs []string
	for _, s := range slices.Compact(all) {
		pairs = append(pairs, s, "***")
	}
	return strings.NewReplacer(pairs...).Replace
}

// cut shortens a text to at most n bytes and an ellipsis, between two runes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
