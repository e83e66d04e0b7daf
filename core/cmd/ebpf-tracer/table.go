package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
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

// cleanLines cleans a text of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		parts := strings.Split(line, "\t")
		for j := range parts {
			parts[j] = clean(parts[j])
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.Join(lines, "\n")
}

// sheet writes a thing in sections: names with what they are, and tables. What is
// empty is left out. The first error is kept for flush.
type sheet struct {
	out  io.Writer
	rows [][2]string
	any  bool // something was written
	err  error
}

// field takes what one name stands for.
func (s *sheet) field(name, value string) {
	if value != "" {
		s.rows = append(s.rows, [2]string{name, clean(value)})
	}
}

// end writes the fields since the last section as one with a title, "" for none.
func (s *sheet) end(title string) {
	if len(s.rows) == 0 {
		return
	}
	s.begin(title)
	indent := ""
	if title != "" {
		indent = "  "
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, r := range s.rows {
		_, _ = io.WriteString(w, indent+r[0]+"\t"+r[1]+"\n") // flush has the error
	}
	s.rows = nil
	s.keep(w.Flush())
}

func (s *sheet) begin(title string) {
	if s.any {
		s.keep(fmt.Fprintln(s.out))
	}
	s.any = true
	if title != "" {
		s.keep(fmt.Fprintln(s.out, title))
	}
}

// table begins a section that is a table.
func (s *sheet) table(header ...string) *table {
	s.begin("")
	return newTable(s.out, header...)
}

// keep keeps the first error: the last of what a function returned.
func (s *sheet) keep(results ...any) {
	if err, ok := results[len(results)-1].(error); ok && s.err == nil {
		s.err = err
	}
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

// age is how long ago a time was, roughly; "" for none.
func age(unixNano int64, now time.Time) string {
	if unixNano == 0 {
		return ""
	}
	const day = 24 * time.Hour
	switch d := max(now.Sub(time.Unix(0, unixNano)), 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/day)
	}
}

// moment is a time and how long ago it was, "" for none.
func moment(unixNano int64, now time.Time) string {
	if unixNano == 0 {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", time.Unix(0, unixNano).UTC().Format(time.RFC3339), age(unixNano, now))
}

// optional writes a number that may be absent.
func optional[T int32 | uint32](n *T) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(int64(*n), 10)
}

// limit writes a limit: "" where none was told, and "unlimited" for -1.
func limit(n *int64, unit func(uint64) string) string {
	switch {
	case n == nil:
		return ""
	case *n < 0:
		return "unlimited"
	}
	return unit(uint64(*n))
}

// rate writes a bound of so much a second, "" for none.
func rate(what string, n uint64, unit func(uint64) string) string {
	if n == 0 {
		return ""
	}
	return what + " " + unit(n) + "/s"
}

// some joins the parts that are not empty.
func some(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}

// with puts a word before what is not empty.
func with(word, s string) string {
	if s == "" {
		return ""
	}
	return word + s
}

// list joins the first names, and says how many more there are.
func list(names []string, most int) string {
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// joined joins what things are called.
func joined[T any](things []T, name func(T) string) string {
	return strings.Join(mapped(things, name), ", ")
}

// quoted writes arguments so that each can be told from the next.
func quoted(args []string) string {
	return strings.Join(mapped(args, func(a string) string {
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\") {
			return strconv.Quote(a)
		}
		return a
	}), " ")
}

func mapped[T, U any](in []T, f func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

// pairs writes a section of names and values, in the order of the names.
func pairs(s *sheet, title string, of map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		s.field(clean(name), cmp.Or(of[name], `""`))
	}
	s.end(title)
}

// answer is yes or no, "" where it was not told.
func answer(b *bool) string {
	switch {
	case b == nil:
		return ""
	case *b:
		return "yes"
	}
	return "no"
}

// yes is "yes", or "" for no.
func yes(is bool) string {
	if is {
		return "yes"
	}
	return ""
}

// number writes a number, "" for none.
func number[T uint32 | uint64](n T) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

func count[T uint32 | uint64 | int](n T) string { return strconv.FormatUint(uint64(n), 10) }
