package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What a schema may hold. Far from what anyone writes down, near enough that a
// hostile one costs a daemon nothing.
const (
	MaxDepth     = 16   // of blocks in blocks
	MaxArguments = 1000 // attributes and blocks, of all depths together
	MaxName      = 64   // bytes of a name
	MaxPattern   = 1024 // bytes of a Pattern
	MaxEnum      = 1000 // strings
)

// shownProblems of one schema are told, those beyond are counted.
const shownProblems = 8

// Broken says why a schema can't be used: one sentence for each problem.
type Broken struct{ Problems []string }

func (b *Broken) Error() string { return strings.Join(b.Problems, "; ") }

// Check says what is wrong with a schema: names, types, bounds that no value can
// meet, patterns that are none, defaults that the schema itself would refuse,
// and what is too much of it. The error is a *Broken; nil: the schema can be
// used. The daemon refuses a plugin whose schema is broken, so an author's tests
// do well to check it first.
func Check(b Block) error {
	c := &checker{}
	c.block(&b, "", MaxDepth)
	if c.found == 0 {
		return nil
	}
	if more := c.found - len(c.problems); more > 0 {
		c.problems = append(c.problems, fmt.Sprintf("and %d more", more))
	}
	return &Broken{c.problems}
}

// checker walks a schema.
type checker struct {
	problems  []string
	found     int
	arguments int
}

func (c *checker) errorf(format string, args ...any) {
	c.found++
	if len(c.problems) < shownProblems {
		c.problems = append(c.problems, fmt.Sprintf(format, args...))
	}
}

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// block checks a body. path is what stands before its names.
func (c *checker) block(b *Block, path string, depth int) {
	if depth == 0 {
		c.errorf("blocks nest deeper than %d", MaxDepth)
		return
	}
	seen := map[string]bool{}
	for i := range b.Attributes {
		a := &b.Attributes[i]
		if c.name(path, a.Name, seen) {
			c.attribute(a, path+a.Name)
		}
	}
	for i := range b.Blocks {
		n := &b.Blocks[i]
		if !c.name(path, n.Name, seen) {
			continue
		}
		if n.MinItems < 0 || n.MaxItems < 0 || n.MaxItems != 0 && n.MaxItems < n.MinItems {
			c.errorf("the block %s%s is there at most %d but at least %d times", path, n.Name, n.MaxItems, n.MinItems)
		}
		c.block(&n.Block, path+n.Name+".", depth-1)
	}
}

// name tells whether what it belongs to is to be looked at.
func (c *checker) name(path, name string, seen map[string]bool) bool {
	c.arguments++
	switch {
	case c.arguments == MaxArguments+1:
		c.errorf("it has more than %d arguments and blocks", MaxArguments)
		return false
	case c.arguments > MaxArguments:
		return false
	case len(name) > MaxName:
		c.errorf("the name %s%q... is longer than %d bytes", path, name[:MaxName], MaxName)
		return false
	case !nameForm.MatchString(name):
		c.errorf("the name %s%q does not match %s", path, name, nameForm)
		return false
	case seen[name]:
		c.errorf("the name %s%s stands there twice", path, name)
		return false
	}
	seen[name] = true
	return true
}

// attribute checks one argument; name is its path.
func (c *checker) attribute(a *Attribute, name string) {
	before := c.found
	if a.Type < String || a.Type > Size {
		c.errorf("the type %d of %s is not known to this version", a.Type, name)
	}
	if a.Shape < Single || a.Shape > Map {
		c.errorf("the shape %d of %s is not known to this version", a.Shape, name)
	}
	if a.Opens < Nothing || a.Opens > Network {
		c.errorf("what %s opens, %d, is not known to this version", name, a.Opens)
	}
	if a.Type != String {
		switch {
		case a.Opens != Nothing:
			c.errorf("%s opens something, but is no text", name)
		case len(a.Enum) > 0:
			c.errorf("%s has an enum, but is no text", name)
		case a.Pattern != "":
			c.errorf("%s has a pattern, but is no text", name)
		}
	}
	if (a.Type == String || a.Type == Bool) && (a.Min != nil || a.Max != nil) {
		c.errorf("%s has a minimum or a maximum, but is no number, duration or size", name)
	}
	for _, bound := range []*float64{a.Min, a.Max} {
		if bound != nil && (math.IsNaN(*bound) || math.IsInf(*bound, 0)) {
			c.errorf("a bound of %s is no finite number", name)
		}
	}
	if a.Min != nil && a.Max != nil && *a.Min > *a.Max {
		c.errorf("the minimum of %s, %g, is above its maximum, %g", name, *a.Min, *a.Max)
	}
	if len(a.Enum) > MaxEnum {
		c.errorf("the enum of %s has more than %d strings", name, MaxEnum)
	}
	if len(a.Pattern) > MaxPattern {
		c.errorf("the pattern of %s is longer than %d bytes", name, MaxPattern)
	} else if _, err := regexp.Compile(a.Pattern); err != nil {
		c.errorf("the pattern of %s is none: %v", name, err)
	}
	if a.Required && a.Default != nil {
		c.errorf("%s is required and has a default: it is one or the other", name)
	}
	if c.found == before && a.Default != nil {
		c.standard(a, name)
	}
}

// standard checks a default.
func (c *checker) standard(a *Attribute, name string) {
	raw, err := json.Marshal(a.Default)
	if err != nil {
		c.errorf("the default of %s can't be written as JSON: %v", name, err)
		return
	}
	if err := a.CheckValue(raw); err != nil {
		shown := fmt.Sprintf("%.80s", raw)
		if a.Sensitive {
			shown = "not shown here"
		}
		c.errorf("the default of %s is %s, but %v", name, shown, err)
	}
}

// CheckValue says what a value lacks of what the attribute wants, as "it wants
// text", or nil. value is JSON in the units of the configuration; the schema must
// have passed Check.
func (a *Attribute) CheckValue(value []byte) error {
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber() // an int64 does not fit into a float64
	var v any
	if err := dec.Decode(&v); err != nil {
		return errors.New("that is no JSON")
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("that is more than one value")
	}
	var each []any
	switch a.Shape {
	case List:
		list, ok := v.([]any)
		if !ok {
			return errors.New("it wants a list")
		}
		each = list
	case Map:
		m, ok := v.(map[string]any)
		if !ok {
			return errors.New("it wants a map")
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			each = append(each, m[k])
		}
	default:
		each = []any{v}
	}
	pattern, err := regexp.Compile(`^(?:` + a.Pattern + `)$`)
	if err != nil {
		return fmt.Errorf("its pattern is none: %w", err)
	}
	for _, v := range each {
		if err := a.checkOne(v, pattern); err != nil {
			return err
		}
	}
	return nil
}

func (a *Attribute) checkOne(v any, pattern *regexp.Regexp) error {
	switch a.Type {
	case String:
		s, ok := v.(string)
		switch {
		case !ok:
			return errors.New("it wants text")
		case len(a.Enum) > 0 && !slices.Contains(a.Enum, s):
			return fmt.Errorf("it wants one of %q", a.Enum)
		case a.Pattern != "" && !pattern.MatchString(s):
			return fmt.Errorf("it wants what matches %s", a.Pattern)
		}
		return nil
	case Bool:
		if _, ok := v.(bool); !ok {
			return errors.New("it wants true or false")
		}
		return nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return errors.New("it wants a number")
	}
	if a.Type != Number {
		if _, err := n.Int64(); err != nil {
			return errors.New("it wants a whole number of 64 bits; durations are in nanoseconds, sizes in bytes")
		}
	}
	f, err := n.Float64()
	switch {
	case err != nil:
		return errors.New("it wants a number")
	case a.Min != nil && f < *a.Min:
		return fmt.Errorf("it wants at least %v", *a.Min)
	case a.Max != nil && f > *a.Max:
		return fmt.Errorf("it wants at most %v", *a.Max)
	}
	return nil
}

// Bound returns a pointer for Min and Max.
func Bound[T int | int64 | float64 | time.Duration](v T) *float64 {
	f := float64(v)
	return &f
}
