package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// table writes aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, header ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.line(header)
	return t
}

// row takes one cell a column; an empty one is shown as "-".
func (t *table) row(cells ...string) {
	for i, c := range cells {
		if cells[i] = clean(c); c == "" {
			cells[i] = "-"
		}
	}
	t.line(cells)
}

func (t *table) line(cells []string) {
	// The writer keeps its first error for flush.
	_, _ = io.WriteString(t.w, strings.Join(cells, "\t")+"\n")
}

func (t *table) flush() error { return t.w.Flush() }

// clean makes a text of the host fit for a terminal: what could move the cursor or
// change the order of letters is written out.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		i += n
	}
	return b.String()
}

// size writes bytes with a unit.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%dB", n)
	}
	v, units := float64(n), "KMGTPE"
	for v /= unit; v >= unit && len(units) > 1; v /= unit {
		units = units[1:]
	}
	return fmt.Sprintf("%.1f%ciB", v, units[0])
}

// seconds writes a duration with as many digits as matter.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= time.Hour:
		return d.Round(time.Minute).String()
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.String()
}

// since is how long ago a time was, "" for none.
func since(unixNano int64, now time.Time) string {
	if unixNano == 0 {
		return ""
	}
	return max(now.Sub(time.Unix(0, unixNano)), 0).Round(time.Second).String()
}

// number writes a number, "" for none.
func number[T uint32 | uint64](n T) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

func count[T uint32 | uint64 | int](n T) string { return strconv.FormatUint(uint64(n), 10) }
