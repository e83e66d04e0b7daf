package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/zclconf/go-cty/cty"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// fault is what is wrong with one value.
type fault struct{ summary, detail string }

// wants says what an attribute's value has to look like.
func wants(a *schema.Attribute) string {
	one := map[schema.Type]string{
		schema.String:   `text in quotes`,
		schema.Number:   `a number`,
		schema.Integer:  `a whole number`,
		schema.Bool:     `true or false`,
		schema.Duration: `a duration such as "500ms", "5s" or "1h30m"`,
		schema.Size:     `a size such as "64MiB" or "1GB", or a number of bytes`,
	}[a.Type]
	switch a.Shape {
	case schema.List:
		return "a list, each element " + one
	case schema.Map:
		return "a map { name = value }, each value " + one
	}
	return one
}

// kindOf names what a value is, for "this is ...".
func kindOf(v cty.Value) string {
	t := v.Type()
	switch {
	case v.IsNull():
		return "null"
	case t == cty.String:
		return "text"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "a bool"
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "a list"
	case t.IsObjectType() || t.IsMapType():
		return "a map"
	}
	return t.FriendlyName()
}

// told gives the end of a complaint: what the value is, or that it is hidden.
func told(hidden bool) func(string) string {
	return func(s string) string {
		if hidden {
			return "; the value is not shown"
		}
		return "; this is " + s
	}
}

// scalar converts one value to what the configuration holds for the attribute's
// type: string, float64, int64 (also durations and sizes) or bool, and checks all
// but texts, which are checkText's. name is how the value is called in a complaint.
// fromEnv allows text where a number or a bool is wanted; hidden keeps the value out
// of the complaint.
func scalar(v cty.Value, a *schema.Attribute, name string, fromEnv, hidden bool) (any, *fault) {
	if v.IsNull() || !v.IsKnown() {
		return nil, &fault{"Wrong type", fmt.Sprintf("%s wants %s; this is null.", name, wants(a))}
	}
	if fromEnv && v.Type() == cty.String {
		v = fromText(v, a.Type)
	}
	this, number := told(hidden), v.Type() == cty.Number
	switch {
	case a.Type == schema.String && v.Type() == cty.String:
		return v.AsString(), nil
	case a.Type == schema.Bool && v.Type() == cty.Bool:
		return v.True(), nil
	case a.Type == schema.Number && number:
		f, _ := v.AsBigFloat().Float64()
		if math.IsInf(f, 0) {
			return nil, &fault{"Value out of range", fmt.Sprintf("%s is larger than a number can be.", name)}
		}
		return f, checkRange(f, a, name, this)
	case a.Type == schema.Integer && number:
		n, ok := whole(v.AsBigFloat())
		if !ok {
			return nil, &fault{"Wrong type", fmt.Sprintf("%s wants a whole number of at most 64 bits%s.", name, this(v.AsBigFloat().Text('g', 20)))}
		}
		return n, checkRange(float64(n), a, name, this)
	case a.Type == schema.Duration && number:
		return nil, &fault{"Missing unit", fmt.Sprintf(`%s wants %s; a number without a unit says too little.`, name, wants(a))}
	case a.Type == schema.Duration && v.Type() == cty.String:
		d, err := time.ParseDuration(v.AsString())
		if err != nil {
			return nil, &fault{"Malformed duration", fmt.Sprintf(`%s wants %s%s. The units are ns, us, ms, s, m and h.`, name, wants(a), this(strconv.Quote(v.AsString())))}
		}
		return int64(d), checkRange(float64(d), a, name, this)
	case a.Type == schema.Size && (number || v.Type() == cty.String):
		n, wrong := bytesOf(v, a, name, this)
		if wrong != nil {
			return nil, wrong
		}
		return n, checkRange(float64(n), a, name, this)
	}
	return nil, &fault{"Wrong type", fmt.Sprintf("%s wants %s; this is %s.", name, wants(a), kindOf(v))}
}

// bytesOf reads a size, a number or text.
func bytesOf(v cty.Value, a *schema.Attribute, name string, this func(string) string) (int64, *fault) {
	if v.Type() == cty.Number {
		n, ok := whole(v.AsBigFloat())
		if !ok {
			return 0, &fault{"Malformed size", fmt.Sprintf("%s wants a whole number of bytes of at most 64 bits%s.", name, this(v.AsBigFloat().Text('g', 20)))}
		}
		return n, nil
	}
	n, ok := parseSize(v.AsString())
	if !ok {
		return 0, &fault{"Malformed size", fmt.Sprintf(`%s wants %s%s. The units are B, KiB, MiB, GiB and TiB (powers of 1024), kB, MB, GB and TB (powers of 1000).`, name, wants(a), this(strconv.Quote(v.AsString())))}
	}
	return n, nil
}

// fromText reads a number or a bool out of text, or gives the text back.
func fromText(v cty.Value, t schema.Type) cty.Value {
	text := strings.TrimSpace(v.AsString())
	switch t {
	case schema.Number, schema.Integer, schema.Size:
		if n, err := cty.ParseNumberVal(text); err == nil {
			return n
		}
	case schema.Bool:
		switch text {
		case "true":
			return cty.True
		case "false":
			return cty.False
		}
	}
	return v
}

func whole(f *big.Float) (int64, bool) {
	if !f.IsInt() {
		return 0, false
	}
	i, acc := f.Int64()
	return i, acc == big.Exact
}

// checkText applies Enum and Pattern, which is nil when there is none.
func checkText(s string, a *schema.Attribute, pattern *regexp.Regexp, name string, this func(string) string) *fault {
	if len(a.Enum) > 0 && !slices.Contains(a.Enum, s) {
		detail := fmt.Sprintf("%s must be one of %s%s.", name, quotedList(a.Enum), this(strconv.Quote(s)))
		return &fault{"Value not allowed", detail + didYouMean(s, a.Enum)}
	}
	if pattern != nil && !pattern.MatchString(s) {
		return &fault{"Malformed value", fmt.Sprintf("%s must match the regular expression %s as a whole%s.", name, a.Pattern, this(strconv.Quote(s)))}
	}
	return nil
}

// checkRange applies Min and Max, which are in the configuration's unit.
func checkRange(f float64, a *schema.Attribute, name string, this func(string) string) *fault {
	if (a.Min == nil || f >= *a.Min) && (a.Max == nil || f <= *a.Max) {
		return nil
	}
	return &fault{"Value out of range", fmt.Sprintf("%s must be %s%s.", name, bounds(a), this(inUnit(f, a.Type)))}
}

// bounds says what Min and Max allow.
func bounds(a *schema.Attribute) string {
	switch {
	case a.Min != nil && a.Max != nil:
		return fmt.Sprintf("from %s to %s", inUnit(*a.Min, a.Type), inUnit(*a.Max, a.Type))
	case a.Min != nil:
		return "at least " + inUnit(*a.Min, a.Type)
	case a.Max != nil:
		return "at most " + inUnit(*a.Max, a.Type)
	}
	return ""
}

// inUnit writes a number as it would stand in the file.
func inUnit(f float64, t schema.Type) string {
	switch t {
	case schema.Duration:
		return formatDuration(int64(f))
	case schema.Size:
		return formatSize(int64(f))
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// formatDuration writes nanoseconds without idle zeros: "1m", not "1m0s".
func formatDuration(n int64) string {
	s := time.Duration(n).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(|B|[kKMGT]B|[KMGT]iB)$`)

// parseSize reads "64MiB", "1.5GB" or "4096" as a whole number of bytes.
func parseSize(s string) (int64, bool) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil || len(m[1]) > 40 {
		return 0, false
	}
	n, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return 0, false
	}
	base := int64(1000)
	unit := m[2]
	if strings.HasSuffix(unit, "iB") {
		base = 1024
	}
	for range strings.Index("BKMGT", strings.ToUpper((unit + "B")[:1])) {
		n.Mul(n, new(big.Rat).SetInt64(base))
	}
	if !n.IsInt() || !n.Num().IsInt64() {
		return 0, false
	}
	return n.Num().Int64(), true
}

// formatSize writes bytes in the largest unit that leaves a whole number.
func formatSize(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// quotedList writes names as "a", "b" and "c".
func quotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = strconv.Quote(n)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " and " + quoted[last]
}

// didYouMean is a sentence that names the nearest of names, or "" when none is
// near.
func didYouMean(given string, names []string) string {
	best, distance := "", (len(given)+2)/3+1
	for _, n := range names {
		if d := levenshtein.Distance(strings.ToLower(given), strings.ToLower(n), nil); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}
