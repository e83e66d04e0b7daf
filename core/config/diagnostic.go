package config

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
)

// Severity tells whether a diagnostic refuses the configuration.
type Severity string

const (
	// Error refuses the configuration.
	Error Severity = "error"
	// Warning is shown and changes nothing.
	Warning Severity = "warning"
)

// Pos is a place in a file. Line and Column count from 1, Column in characters
// as they are seen; Byte counts from 0.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// Range is a part of a file, from Start to just before End. Its zero value is
// no place at all.
type Range struct {
	Filename string `json:"filename"`
	Start    Pos    `json:"start"`
	End      Pos    `json:"end"`
}

// String is file:line:col of the start, or "" for no place.
func (r Range) String() string {
	if r == (Range{}) {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", r.Filename, r.Start.Line, r.Start.Column)
}

// Diagnostic is one finding about a configuration.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Summary  string   `json:"summary"` // a few words
	Detail   string   `json:"detail"`  // what is wrong, what would be right
	Range    Range    `json:"range"`   // zero: the finding has no one place

	src *source
}

// Error makes a Diagnostic an error, so that it can be returned as one.
func (d Diagnostic) Error() string {
	s := d.Summary + ": " + d.Detail
	if at := d.Range.String(); at != "" {
		s = at + ": " + s
	}
	return s
}

// Diagnostics are findings about one configuration, in the file's order.
type Diagnostics []Diagnostic

// HasErrors tells whether one of them refuses the configuration.
func (ds Diagnostics) HasErrors() bool {
	n, _ := ds.Count()
	return n > 0
}

// Count tells how many are errors and how many warnings.
func (ds Diagnostics) Count() (errors, warnings int) {
	for _, d := range ds {
		if d.Severity == Error {
			errors++
		} else {
			warnings++
		}
	}
	return errors, warnings
}

// Join puts the findings of several steps into one list in the file's order;
// those without a place come last.
func Join(lists ...Diagnostics) Diagnostics {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b Diagnostic) int {
		switch noA, noB := a.Range == (Range{}), b.Range == (Range{}); {
		case noA && noB:
			return 0
		case noA:
			return 1
		case noB:
			return -1
		}
		if c := strings.Compare(a.Range.Filename, b.Range.Filename); c != 0 {
			return c
		}
		return a.Range.Start.Byte - b.Range.Start.Byte
	})
	return all
}

// TextOptions say how Write lays text out.
type TextOptions struct {
	Color bool // with the escape sequences of a terminal
	Width int  // wrap sentences at this column; 0: never
}

// Write writes each finding with its place and the line of the file it is on.
// Values that schemas call sensitive are starred out. It is called once, with
// the findings of all steps: what is sensitive in a plugin's block is only
// known after File.DecodePlugins.
func (ds Diagnostics) Write(w io.Writer, opt TextOptions) error {
	files := map[string]*hcl.File{}
	for _, d := range ds {
		if d.src != nil && files[d.src.name] == nil {
			files[d.src.name] = d.src.shown()
		}
	}
	tw := hcl.NewDiagnosticTextWriter(w, files, uint(max(opt.Width, 0)), opt.Color)
	for _, d := range ds {
		out := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: printable(d.Summary), Detail: printable(d.Detail)}
		if d.Severity == Warning {
			out.Severity = hcl.DiagWarning
		}
		if at := d.Range.String(); at != "" {
			rng := d.Range.hcl()
			out.Subject = &rng
			if _, err := fmt.Fprintf(w, "%s: ", at); err != nil {
				return fmt.Errorf("write diagnostics: %w", err)
			}
		}
		if err := tw.WriteDiagnostic(out); err != nil {
			return fmt.Errorf("write diagnostics: %w", err)
		}
	}
	return nil
}

// printable keeps a plugin from writing to the operator's terminal more than
// text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func (r Range) hcl() hcl.Range {
	return hcl.Range{
		Filename: r.Filename,
		Start:    hcl.Pos{Line: r.Start.Line, Column: r.Start.Column, Byte: r.Start.Byte},
		End:      hcl.Pos{Line: r.End.Line, Column: r.End.Column, Byte: r.End.Byte},
	}
}

func rangeOf(r hcl.Range) Range {
	return Range{
		Filename: r.Filename,
		Start:    Pos{Line: r.Start.Line, Column: r.Start.Column, Byte: r.Start.Byte},
		End:      Pos{Line: r.End.Line, Column: r.End.Column, Byte: r.End.Byte},
	}
}

// errorAt is an error at a range.
func errorAt(rng hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  summary,
		Detail:   fmt.Sprintf(format, args...),
		Subject:  &rng,
	}
}
