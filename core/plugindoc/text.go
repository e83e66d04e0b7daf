package plugindoc

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// width is the column at which text is wrapped.
const width = 88

// Text writes a plugin for a terminal.
func Text(w io.Writer, p Plugin) error {
	t := &text{}
	t.printf("%s", p.Title())
	for _, doc := range p.paragraphs() {
		t.printf("")
		t.paragraph("", doc)
	}
	t.printf("")
	facts := [][2]string{
		{"version", cmp.Or(oneLine(p.Version), "not told")},
		{"protocol", fmt.Sprint(p.Manifest.Protocol)},
		{"command", strings.Join(p.Manifest.Command, " ")},
	}
	for _, f := range [][2]string{{"program", p.Program}, {"manifest", p.File}, {"digest", p.Digest}} {
		if f[1] != "" {
			facts = append(facts, f)
		}
	}
	needs := p.needs()
	if len(needs) == 0 {
		facts = append(facts, [2]string{"needs", "nothing"})
	}
	for _, n := range needs {
		facts = append(facts, [2]string{"needs " + n[0], n[1]})
	}
	if auto := p.auto(); auto != "" {
		facts = append(facts, [2]string{`discoverer "auto"`, auto})
	}
	for _, f := range facts {
		t.printf("  %-18s %s", f[0], f[1])
	}
	if len(p.Schema.Attributes)+len(p.Schema.Blocks) == 0 {
		t.printf("\nIt takes no arguments.")
	}
	if err := t.body(&p.Schema, ""); err != nil {
		return err
	}
	t.printf("\nTo begin with:\n")
	var example strings.Builder
	if err := HCL(&example, p); err != nil {
		return err
	}
	for line := range strings.Lines(example.String()) {
		t.printf("  %s", strings.TrimRight(line, "\n"))
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

type text struct{ b strings.Builder }

func (t *text) printf(format string, args ...any) {
	fmt.Fprintf(&t.b, format+"\n", args...)
}

// body writes the arguments and blocks of a body. of is the blocks around it.
func (t *text) body(b *schema.Block, of string) error {
	if len(b.Attributes) > 0 {
		t.printf("\n%s:\n", heading("Arguments", of))
	}
	for _, a := range b.Attributes {
		def, err := standard(a)
		if err != nil {
			return err
		}
		switch {
		case a.Required:
			def = ", required"
		case a.Default == nil:
			def = ""
		default:
			def = ", default " + def
		}
		t.printf("  %s: %s%s", a.Name, config.TypeName(a), def)
		t.paragraph("      ", sentences(a, func(s string) string { return oneLine(s) }))
	}
	for i := range b.Blocks {
		n := &b.Blocks[i]
		path := of + n.Name
		t.printf("\nBlock %s, %s:", path, count(*n))
		if doc := oneLine(n.Block.Doc); doc != "" {
			t.printf("")
			t.paragraph("  ", doc)
		}
		if err := t.body(&n.Block, path+"."); err != nil {
			return err
		}
	}
	return nil
}

func heading(what, of string) string {
	if of == "" {
		return what
	}
	return what + " of " + strings.TrimSuffix(of, ".")
}

// sentences are an argument's doc and rules.
func sentences(a schema.Attribute, code func(string) string) string {
	all := rules(a, code)
	if doc := oneLine(a.Doc); doc != "" {
		all = append([]string{doc}, all...)
	}
	return strings.Join(all, " ")
}

// paragraph writes words, wrapped.
func (t *text) paragraph(indent, words string) {
	line, column := indent, 0
	for _, word := range strings.Fields(oneLine(words)) {
		n := utf8.RuneCountInString(word)
		if column > 0 && len(indent)+column+1+n > width {
			t.printf("%s", line)
			line, column = indent, 0
		}
		if column > 0 {
			line, column = line+" ", column+1
		}
		line, column = line+word, column+n
	}
	if column > 0 {
		t.printf("%s", line)
	}
}
