package config

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
)

// source is the text of one file and what of it must not be shown.
type source struct {
	name  string
	file  *hcl.File
	json  bool
	masks []hcl.Range
}

// parse reads the text as far as it can be understood.
func (s *source) parse(text []byte) hcl.Diagnostics {
	if !s.json {
		return s.parseNative(text)
	}
	var diags hcl.Diagnostics
	s.file, diags = hcljson.Parse(text, s.name)
	if len(diags) > 1 {
		// Of a root that was not understood it is idle to say what it is.
		diags = slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Root value must be object" })
	}
	return diags
}

// parseNative closes texts that lack their closing quote, and reads on: left
// open, such a text makes a mistake of every line after it. Closing replaces
// the last character of the line, so that all places stay what they are.
func (s *source) parseNative(text []byte) hcl.Diagnostics {
	const most = 20
	var open, diags hcl.Diagnostics
	closed := bytes.Clone(text)
	for range most {
		s.file, diags = hclsyntax.ParseConfig(closed, s.name, hcl.InitialPos)
		s.file.Bytes = text
		first := slices.IndexFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Invalid multi-line string" })
		if first < 0 {
			break
		}
		end := *diags[first].Subject
		end.End = end.Start
		if len(open) > 0 && open[len(open)-1].Subject.Start == end.Start {
			break
		}
		_, size := utf8.DecodeLastRune(closed[:end.Start.Byte])
		if size == 0 {
			break
		}
		for i := end.Start.Byte - size; i < end.Start.Byte; i++ {
			closed[i] = ' '
		}
		closed[end.Start.Byte-size] = '"'
		open = append(open, errorAt(end, "Unclosed text", "A text in quotes ends on the line it began on: a closing quote is missing."))
	}
	if len(open) > 0 {
		diags = slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool {
			return d.Summary == "Invalid multi-line string" || d.Summary == "Unterminated template string"
		})
	}
	return append(open, diags...)
}

// diagnostics takes over what the HCL library, or code here, has found.
func (s *source) diagnostics(in hcl.Diagnostics) Diagnostics {
	var out Diagnostics
	for _, d := range in {
		o := Diagnostic{Severity: Error, Summary: d.Summary, Detail: d.Detail, src: s}
		if d.Severity == hcl.DiagWarning {
			o.Severity = Warning
		}
		if d.Subject != nil {
			o.Range = rangeOf(*d.Subject)
		}
		out = append(out, o)
	}
	return Join(out)
}

// clone is the same source, for who marks what is secret in it by itself.
func (s *source) clone() *source {
	c := *s
	c.masks = slices.Clone(s.masks)
	return &c
}

// mask keeps a part of the file from being shown.
func (s *source) mask(rng hcl.Range) {
	if rng.Filename == s.name {
		s.masks = append(s.masks, rng)
	}
}

// maskAssignments masks the value of every argument of those names, wherever in
// the file it stands: also where it was given twice, or on a line with a syntax
// error, where no expression exists whose range could be asked for.
func (s *source) maskAssignments(names []string) {
	if s.json || len(names) == 0 {
		return
	}
	masked := map[string]bool{}
	for _, n := range names {
		masked[n] = true
	}
	tokens, _ := hclsyntax.LexConfig(s.file.Bytes, s.name, hcl.InitialPos)
	for i := 0; i+2 < len(tokens); i++ {
		if tokens[i].Type != hclsyntax.TokenIdent || !masked[string(tokens[i].Bytes)] || tokens[i+1].Type != hclsyntax.TokenEqual {
			continue
		}
		depth := 0
		for i += 2; i < len(tokens); i++ {
			switch tokens[i].Type {
			case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
				depth++
			case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
				depth--
			}
			if depth < 0 || depth == 0 && tokens[i].Type == hclsyntax.TokenNewline || tokens[i].Type == hclsyntax.TokenEOF {
				break
			}
			s.mask(tokens[i].Range)
		}
	}
}

// maskBody hides what a block holds when it is not known what of it is secret.
func (s *source) maskBody(body hcl.Body) {
	native, ok := body.(*hclsyntax.Body)
	if !ok {
		attributes, _ := body.JustAttributes() // only for where they are
		for _, a := range attributes {
			s.mask(a.Expr.Range())
		}
		return
	}
	for _, a := range native.Attributes {
		s.mask(a.Expr.Range())
	}
	for _, b := range native.Blocks {
		s.maskBody(b.Body)
	}
}

// shown is the file with the masked parts starred out, byte for byte.
func (s *source) shown() *hcl.File {
	if len(s.masks) == 0 {
		return s.file
	}
	text := bytes.Clone(s.file.Bytes)
	for _, m := range s.masks {
		for i := max(m.Start.Byte, 0); i < min(m.End.Byte, len(text)); i++ {
			if text[i] != '\n' && text[i] != '\r' {
				text[i] = '*'
			}
		}
	}
	return &hcl.File{Body: s.file.Body, Bytes: text, Nav: s.file.Nav}
}
