package plugindoc

import (
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// HCL writes a block to begin a configuration with: what is required has a value
// that the schema allows, what is not stands in a comment with its default, or
// such a value where it has none.
func HCL(w io.Writer, p Plugin) error {
	e := example{}
	e.printf("%s {", p.Title())
	if err := e.body(&p.Schema, "  ", false); err != nil {
		return err
	}
	e.printf("}")
	if len(e.lines) == 2 { // there is nothing to set
		e.lines = []string{p.Title() + " {}"}
	}
	_, err := io.WriteString(w, strings.Join(e.lines, "\n")+"\n")
	return err
}

// example is the block, line by line.
type example struct{ lines []string }

func (e *example) printf(format string, args ...any) {
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

// body writes arguments, the required ones first, and then blocks, each line after
// before. out: all of it is in a comment, which before begins.
func (e *example) body(b *schema.Block, before string, out bool) error {
	mark := func(off bool) string {
		if off && !out {
			return before + "# "
		}
		return before
	}
	sorted := slices.Clone(b.Attributes)
	slices.SortStableFunc(sorted, func(x, y schema.Attribute) int { return rank(x) - rank(y) })
	width := 0
	for _, a := range sorted {
		width = max(width, len(a.Name))
	}
	for _, a := range sorted {
		if a.Deprecated != "" && !a.Required {
			continue
		}
		text, err := sample(a)
		if err != nil {
			return err
		}
		e.printf("%s%-*s = %s", mark(!a.Required), width, a.Name, text)
	}
	for i := range b.Blocks {
		n := &b.Blocks[i]
		line := mark(n.MinItems == 0)
		for range max(1, min(n.MinItems, 3)) {
			e.printf("%s%s {", line, n.Name)
			began := len(e.lines)
			if err := e.body(&n.Block, line+"  ", out || n.MinItems == 0); err != nil {
				return err
			}
			if len(e.lines) == began {
				e.lines[began-1] += "}"
				continue
			}
			e.printf("%s}", line)
		}
	}
	return nil
}

func rank(a schema.Attribute) int {
	if a.Required {
		return 0
	}
	return 1
}

// sample is a value of an argument as HCL: its default, or any that it takes.
func sample(a schema.Attribute) (string, error) {
	if a.Default != nil && !a.Sensitive {
		return config.Literal(a, a.Default)
	}
	value := anyValue(a)
	text, err := config.Literal(a, value)
	if err != nil {
		// Of a pattern that is too clever for this, the operator knows better.
		a.Pattern = ""
		text, err = config.Literal(a, value)
	}
	return text, err
}

// anyValue is a value that an argument takes.
func anyValue(a schema.Attribute) any {
	one := anyScalar(a)
	switch a.Shape {
	case schema.List:
		return []any{one}
	case schema.Map:
		return map[string]any{"name": one}
	}
	return one
}

func anyScalar(a schema.Attribute) any {
	switch a.Type {
	case schema.String:
		return anyText(a)
	case schema.Bool:
		return true
	}
	start := map[schema.Type]float64{
		schema.Number: 1, schema.Integer: 1, schema.Duration: float64(time.Second), schema.Size: 1 << 20,
	}[a.Type]
	if a.Min != nil {
		start = max(start, *a.Min)
	}
	if a.Max != nil {
		start = min(start, *a.Max)
	}
	if a.Type == schema.Number {
		return start
	}
	return int64(start)
}

func anyText(a schema.Attribute) string {
	if len(a.Enum) > 0 {
		return a.Enum[0]
	}
	usual := []string{"..."}
	switch a.Opens {
	case schema.Socket:
		usual = []string{"unix:///run/name.sock", "/run/name.sock"}
	case schema.Path:
		usual = []string{"/path/to/file"}
	case schema.Network:
		usual = []string{"localhost:80", "http://localhost/", "localhost", "127.0.0.1"}
	}
	if a.Pattern == "" {
		return usual[0]
	}
	whole, err := regexp.Compile(`^(?:` + a.Pattern + `)$`)
	if err != nil {
		return usual[0] // schema.Check has compiled it
	}
	parsed, err := syntax.Parse(a.Pattern, syntax.Perl)
	if err == nil {
		usual = append(usual, shortest(parsed))
	}
	if i := slices.IndexFunc(usual, whole.MatchString); i >= 0 {
		return usual[i]
	}
	return usual[0]
}

// shortest is a short text that a pattern matches, or nearly so: what it asserts
// of places is not looked at.
func shortest(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for _, like := range "na0_" {
			for i := 0; i+1 < len(re.Rune); i += 2 {
				if re.Rune[i] <= like && like <= re.Rune[i+1] {
					return string(like)
				}
			}
		}
		if len(re.Rune) > 0 {
			return string(re.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "n"
	case syntax.OpCapture, syntax.OpPlus:
		return shortest(re.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(shortest(re.Sub[0]), re.Min)
	case syntax.OpAlternate:
		return shortest(re.Sub[0])
	case syntax.OpConcat:
		var b strings.Builder
		for _, sub := range re.Sub {
			b.WriteString(shortest(sub))
		}
		return b.String()
	}
	return ""
}
