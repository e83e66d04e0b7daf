// Package diag holds what a plugin says about a configuration it was given.
//
// A diagnostic names the value at fault by its path in the configuration; the
// daemon turns the path into file, line and column, which the plugin never
// knows.
package diag

import (
	"fmt"
	"strings"
)

// Severity tells whether a diagnostic refuses the configuration.
type Severity int

const (
	// Error refuses the configuration. It is the zero value, so that a finding
	// without a severity is not overlooked.
	Error Severity = iota
	// Warning is shown and changes nothing.
	Warning
)

// A Path leads from the root of a configuration to one value. Its steps are of
// type Attr, Index and Key.
type Path []Step

// Step is one step of a Path: Attr, Index or Key.
type Step interface{ step() }

// Attr steps into an attribute or a nested block.
type Attr string

// Index steps into an element of a list, or into one of repeated blocks.
type Index int

// Key steps into an element of a map.
type Key string

func (Attr) step()  {}
func (Index) step() {}
func (Key) step()   {}

// String writes the path as an expression: level[2].rate, labels["a b"].
func (p Path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch s := s.(type) {
		case Attr:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(string(s))
		case Index:
			fmt.Fprintf(&b, "[%d]", int(s))
		case Key:
			fmt.Fprintf(&b, "[%q]", string(s))
		}
	}
	return b.String()
}

// Diagnostic is one finding about a configuration.
type Diagnostic struct {
	Severity Severity
	Summary  string // a few words: "rates must fall"
	Detail   string // a sentence: what is wrong, what would be right
	Path     Path
}

// Error makes a Diagnostic an error, so that it can be returned as one.
func (d Diagnostic) Error() string {
	if len(d.Path) == 0 {
		return d.Summary + ": " + d.Detail
	}
	return d.Path.String() + ": " + d.Summary + ": " + d.Detail
}

// Diagnostics are all findings about one configuration.
type Diagnostics []Diagnostic

// HasErrors tells whether one of them refuses the configuration.
func (ds Diagnostics) HasErrors() bool {
	for _, d := range ds {
		if d.Severity == Error {
			return true
		}
	}
	return false
}

// Err returns the diagnostics as one error, or nil when none refuses the
// configuration.
func (ds Diagnostics) Err() error {
	if !ds.HasErrors() {
		return nil
	}
	return &Refusal{ds}
}

// Refusal is an error made of diagnostics, at least one of which is an error.
type Refusal struct{ Diagnostics Diagnostics }

// Error writes the errors, one a line.
func (r *Refusal) Error() string {
	var b strings.Builder
	for _, d := range r.Diagnostics {
		if d.Severity != Error {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(d.Error())
	}
	return b.String()
}

// Errorf is an error at path.
func Errorf(path Path, summary, format string, args ...any) Diagnostic {
	return Diagnostic{Severity: Error, Summary: summary, Detail: fmt.Sprintf(format, args...), Path: path}
}
