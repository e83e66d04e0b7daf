package schema

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// whole is a schema with everything in it that can be.
func whole() Block {
	return Block{
		Doc: "All of it.",
		Attributes: []Attribute{
			{Name: "text", Type: String, Default: "a1", Pattern: "[a-z][0-9]", Enum: []string{"a1", "b2"}},
			{Name: "number", Type: Number, Default: 0.5, Min: Bound(0.5), Max: Bound(1)},
			{Name: "integer", Type: Integer, Default: int64(math.MaxInt64)},
			{Name: "bool", Type: Bool, Default: false},
			{Name: "duration", Type: Duration, Default: time.Second, Min: Bound(time.Second)},
			{Name: "size", Type: Size, Default: int64(64 << 20), Max: Bound(64 << 20)},
			{Name: "list", Type: Duration, Shape: List, Default: []time.Duration{time.Second}, Min: Bound(1)},
			{Name: "map", Type: String, Shape: Map, Default: map[string]string{"k": "v"}, Enum: []string{"v"}},
			{Name: "socket", Type: String, Shape: List, Default: []string{}, Opens: Socket},
			{Name: "required", Type: String, Required: true, Sensitive: true, Deprecated: "text"},
		},
		Blocks: []NestedBlock{{Name: "block", MinItems: 1, MaxItems: 1, Block: Block{Attributes: []Attribute{{Name: "text", Type: String}}}}},
	}
}

func TestASchemaWithEverythingIsRight(t *testing.T) {
	if err := Check(whole()); err != nil {
		t.Error(err)
	}
	if err := Check(Block{}); err != nil {
		t.Error(err)
	}
}

func TestASchemaThatCantBeMetIsRefused(t *testing.T) {
	deep := Block{}
	for range MaxDepth {
		deep = Block{Blocks: []NestedBlock{{Name: "b", Block: deep}}}
	}
	var many []Attribute
	for i := range MaxArguments + 5 {
		many = append(many, Attribute{Name: fmt.Sprintf("a%d", i), Type: Bool})
	}
	attribute := func(a Attribute) Block {
		a.Name = "a"
		return Block{Blocks: []NestedBlock{{Name: "in", Block: Block{Attributes: []Attribute{a}}}}}
	}
	for _, c := range []struct {
		name string
		in   Block
		want string
	}{
		{"no type", attribute(Attribute{}), "the type 0 of in.a is not known to this version"},
		{"a type of a later version", attribute(Attribute{Type: Size + 1}), "the type 7 of in.a is not known to this version"},
		{"a shape of a later version", attribute(Attribute{Type: Bool, Shape: Map + 1}), "the shape 3 of in.a is not known to this version"},
		{"opens of a later version", attribute(Attribute{Type: String, Opens: Network + 1}), "what in.a opens, 4, is not known to this version"},
		{"a number that opens", attribute(Attribute{Type: Number, Opens: Path}), "in.a opens something, but is no text"},
		{"a number with an enum", attribute(Attribute{Type: Number, Enum: []string{"1"}}), "in.a has an enum, but is no text"},
		{"a number with a pattern", attribute(Attribute{Type: Number, Pattern: "1"}), "in.a has a pattern, but is no text"},
		{"text with a minimum", attribute(Attribute{Type: String, Min: Bound(1)}), "in.a has a minimum or a maximum, but is no number, duration or size"},
		{"a bound without end", attribute(Attribute{Type: Number, Max: Bound(math.Inf(1))}), "a bound of in.a is no finite number"},
		{"a bound that is none", attribute(Attribute{Type: Number, Min: Bound(math.NaN())}), "a bound of in.a is no finite number"},
		{"bounds that cross", attribute(Attribute{Type: Number, Min: Bound(2), Max: Bound(1.5)}), "the minimum of in.a, 2, is above its maximum, 1.5"},
		{"too long an enum", attribute(Attribute{Type: String, Enum: make([]string, MaxEnum+1)}), "the enum of in.a has more than 1000 strings"},
		{"too long a pattern", attribute(Attribute{Type: String, Pattern: strings.Repeat("a", MaxPattern+1)}), "the pattern of in.a is longer than 1024 bytes"},
		{"no pattern", attribute(Attribute{Type: String, Pattern: "("}), "the pattern of in.a is none: error parsing regexp: missing closing ): `(`"},
		{"required, with a default", attribute(Attribute{Type: String, Required: true, Default: ""}), "in.a is required and has a default: it is one or the other"},
		{"a default that can't be written", attribute(Attribute{Type: String, Default: make(chan int)}), "the default of in.a can't be written as JSON: json: unsupported type: chan int"},
		{"a default of another type", attribute(Attribute{Type: String, Default: 1}), "the default of in.a is 1, but it wants text"},
		{"a default beyond its enum", attribute(Attribute{Type: String, Enum: []string{"b"}, Default: "c"}), "the default of in.a is \"c\", but it wants one of [\"b\"]"},
		{"a default beside its pattern", attribute(Attribute{Type: String, Pattern: "b|c", Default: "bc"}), "the default of in.a is \"bc\", but it wants what matches b|c"},
		{"text as a bool", attribute(Attribute{Type: Bool, Default: "true"}), "the default of in.a is \"true\", but it wants true or false"},
		{"text as a duration", attribute(Attribute{Type: Duration, Default: "5s"}), "the default of in.a is \"5s\", but it wants a number"},
		{"a fraction of a byte", attribute(Attribute{Type: Size, Default: 1.5}), "the default of in.a is 1.5, but it wants a whole number of 64 bits; durations are in nanoseconds, sizes in bytes"},
		{"more than 64 bits", attribute(Attribute{Type: Integer, Default: uint64(math.MaxUint64)}), "the default of in.a is 18446744073709551615, but it wants a whole number of 64 bits"},
		{"a default out of range", attribute(Attribute{Type: Duration, Max: Bound(time.Second), Default: time.Minute}), "the default of in.a is 60000000000, but it wants at most 1e+09"},
		{"one value as a list", attribute(Attribute{Type: String, Shape: List, Default: "b"}), "the default of in.a is \"b\", but it wants a list"},
		{"a list that is nil", attribute(Attribute{Type: String, Shape: List, Default: []string(nil)}), "the default of in.a is null, but it wants a list"},
		{"an element out of range", attribute(Attribute{Type: Integer, Shape: List, Max: Bound(1), Default: []int{0, 2}}), "the default of in.a is [0,2], but it wants at most 1"},
		{"a list as a map", attribute(Attribute{Type: String, Shape: Map, Default: []string{}}), "the default of in.a is [], but it wants a map"},
		{"an element of another type", attribute(Attribute{Type: Bool, Shape: Map, Default: map[string]any{"k": true, "l": nil}}), "the default of in.a is {\"k\":true,\"l\":null}, but it wants true or false"},
		{"less than the least", attribute(Attribute{Type: Size, Min: Bound(4), Default: 3}), "the default of in.a is 3, but it wants at least 4"},
		{"a secret default", attribute(Attribute{Type: Bool, Default: "sesame", Sensitive: true}), "the default of in.a is not shown here, but it wants true or false"},
		{"no name", Block{Attributes: []Attribute{{Type: Bool}}}, `the name "" does not match ^[a-z][a-z0-9_]*$`},
		{"a name that is no word", Block{Blocks: []NestedBlock{{Name: "A b"}}}, `the name "A b" does not match ^[a-z][a-z0-9_]*$`},
		{"too long a name", Block{Blocks: []NestedBlock{{Name: strings.Repeat("a", 65)}}}, "is longer than 64 bytes"},
		{"a name twice", Block{Attributes: []Attribute{{Name: "a", Type: Bool}}, Blocks: []NestedBlock{{Name: "a"}}}, "the name a stands there twice"},
		{"at most less than at least", Block{Blocks: []NestedBlock{{Name: "b", MinItems: 2, MaxItems: 1}}}, "the block b is there at most 1 but at least 2 times"},
		{"blocks without end", deep, "blocks nest deeper than 16"},
		{"arguments without end", Block{Attributes: many}, "it has more than 1000 arguments and blocks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Check(c.in)
			var broken *Broken
			if !errors.As(err, &broken) || len(broken.Problems) != 1 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAllProblemsOfASchemaAreToldUpToABound(t *testing.T) {
	var b Block
	for range 20 {
		b.Attributes = append(b.Attributes, Attribute{Name: "A"})
	}
	var broken *Broken
	if !errors.As(Check(b), &broken) || len(broken.Problems) != shownProblems+1 || broken.Problems[shownProblems] != "and 12 more" {
		t.Errorf("got %v", broken)
	}
}
