package plugindoc

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Plugin is what is known of one plugin.
type Plugin struct {
	Manifest config.Manifest
	// File is the manifest's path and Program that of what is run; "": it is not
	// told.
	File, Program string
	// Digest is the hex SHA-256 of all files of the plugin; "": it is not told.
	Digest  string
	Version string
	Doc     string
	Schema  schema.Block
}

// Title is how the plugin's block begins: sampler "threshold".
func (p Plugin) Title() string { return fmt.Sprintf("%s %q", p.Manifest.Kind, p.Manifest.Name) }

// ID is kind/name.
func (p Plugin) ID() string { return string(p.Manifest.Kind) + "/" + p.Manifest.Name }

// Summary is the first sentence of the plugin's doc.
func (p Plugin) Summary() string {
	doc := p.paragraphs()
	if len(doc) == 0 {
		return ""
	}
	if i := strings.Index(doc[0], ". "); i >= 0 {
		return doc[0][:i+1]
	}
	return doc[0]
}

// paragraphs are the plugin's doc and its schema's.
func (p Plugin) paragraphs() []string {
	var out []string
	for _, doc := range []string{oneLine(p.Doc), oneLine(p.Schema.Doc)} {
		if doc != "" && !slices.Contains(out, doc) {
			out = append(out, doc)
		}
	}
	return out
}

// needs are what the manifest asks for, as name and words.
func (p Plugin) needs() [][2]string {
	n := p.Manifest.Needs
	var out [][2]string
	for _, list := range []struct {
		name  string
		words []string
	}{{"sockets", n.Sockets}, {"paths", n.Paths}, {"capabilities", n.Capabilities}, {"env", n.Env}} {
		if len(list.words) > 0 {
			out = append(out, [2]string{list.name, strings.Join(list.words, ", ")})
		}
	}
	if n.Network {
		out = append(out, [2]string{"network", "yes"})
	}
	if n.Root {
		out = append(out, [2]string{"root", "yes"})
	}
	return out
}

// auto is how a discoverer takes part in discoverer "auto", unless it does as most do.
func (p Plugin) auto() string {
	switch {
	case p.Manifest.Kind != config.Discoverer:
		return ""
	case !p.Manifest.Auto.Enabled:
		return "it is never started by that"
	case p.Manifest.Auto.Fallback:
		return "it is started by that also where there is no other discoverer"
	}
	return ""
}

// standard is an argument's default as it is shown.
func standard(a schema.Attribute) (string, error) {
	switch {
	case a.Required:
		return "required", nil
	case a.Default == nil:
		return "none", nil
	case a.Sensitive:
		return "not shown", nil
	}
	return config.Literal(a, a.Default)
}

// rules are sentences about an argument's value beyond its type. code marks what
// is to be taken literally.
func rules(a schema.Attribute, code func(string) string) []string {
	var out []string
	say := func(format string, args ...any) {
		s := fmt.Sprintf(format, args...)
		if a.Shape != schema.Single {
			s = "each " + s
		}
		out = append(out, strings.ToUpper(s[:1])+s[1:]+".")
	}
	if len(a.Enum) > 0 {
		words := make([]string, len(a.Enum))
		for i, e := range a.Enum {
			words[i] = code(e)
		}
		say("one of %s", strings.Join(words, ", "))
	}
	if a.Pattern != "" {
		say("matches %s", code(a.Pattern))
	}
	if b := config.Bounds(a); b != "" {
		say("%s", b)
	}
	switch a.Opens {
	case schema.Socket:
		out = append(out, "A socket that is written here is one that the plugin may use.")
	case schema.Path:
		out = append(out, "A path that is written here is one that the plugin may read.")
	case schema.Network:
		out = append(out, "With an address written here the plugin may use the network.")
	}
	if a.Sensitive {
		out = append(out, "Sensitive: it is never shown.")
	}
	if a.Deprecated != "" {
		out = append(out, "Deprecated: "+oneLine(a.Deprecated))
	}
	return out
}

// count says how often a block can be there.
func count(n schema.NestedBlock) string {
	switch {
	case n.MinItems == n.MaxItems && n.MaxItems == 1:
		return "exactly one"
	case n.MinItems == n.MaxItems && n.MaxItems > 0:
		return fmt.Sprintf("exactly %d", n.MinItems)
	case n.MinItems > 0 && n.MaxItems > 0:
		return fmt.Sprintf("%d to %d", n.MinItems, n.MaxItems)
	case n.MinItems > 0:
		return fmt.Sprintf("at least %d", n.MinItems)
	case n.MaxItems > 0:
		return fmt.Sprintf("at most %d", n.MaxItems)
	}
	return "any number"
}

// oneLine is a plugin's text without line breaks, and without what would be more
// than text on a terminal.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, s)), " ")
}
