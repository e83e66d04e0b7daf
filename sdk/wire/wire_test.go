package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func TestASchemaComesBackAsItWasWritten(t *testing.T) {
	in := schema.Block{
		Doc: "All of it.",
		Attributes: []schema.Attribute{
			{Name: "a", Type: schema.String, Required: true, Doc: "d", Sensitive: true, Deprecated: "b", Enum: []string{"x", "y"}, Pattern: "x|y", Opens: schema.Socket},
			{Name: "b", Type: schema.Number, Shape: schema.List, Min: schema.Bound(1), Max: schema.Bound(2.5)},
			{Name: "c", Type: schema.Integer, Shape: schema.Map, Default: map[string]int{"k": 1}},
			{Name: "d", Type: schema.Bool, Default: false},
			{Name: "e", Type: schema.Duration, Default: time.Second},
			{Name: "f", Type: schema.Size, Default: int64(64 << 20)},
		},
		Blocks: []schema.NestedBlock{{Name: "g", MinItems: 1, MaxItems: 2, Block: schema.Block{
			Attributes: []schema.Attribute{{Name: "a", Type: schema.String}},
		}}},
	}
	p, err := SchemaToProto(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := SchemaFromProto(p)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "", `{"k":1}`, "false", "1000000000", "67108864"} {
		raw, _ := out.Attributes[i].Default.(json.RawMessage)
		if string(raw) != want {
			t.Errorf("default of %q is %s, not %s", out.Attributes[i].Name, raw, want)
		}
		in.Attributes[i].Default, out.Attributes[i].Default = nil, nil
	}
	if !reflect.DeepEqual(in, out) {
		t.Errorf("came back as %+v", out)
	}
}

func TestADefaultThatIsNoJSONIsNamed(t *testing.T) {
	_, err := SchemaToProto(schema.Block{Blocks: []schema.NestedBlock{{Name: "b", Block: schema.Block{
		Attributes: []schema.Attribute{{Name: "a", Default: make(chan int)}},
	}}}})
	if err == nil || !strings.Contains(err.Error(), `block "b": write the default of "a"`) {
		t.Errorf("error is %v", err)
	}
}

func TestASchemaThatCantBeIsRefused(t *testing.T) {
	deep := &protov1.Block{}
	for range schema.MaxDepth + 1 {
		deep = &protov1.Block{Blocks: []*protov1.NestedBlock{{Name: "b", Block: deep}}}
	}
	attribute := func(a *protov1.Attribute) *protov1.Block {
		return &protov1.Block{Attributes: []*protov1.Attribute{a}}
	}
	for name, c := range map[string]struct {
		in   *protov1.Block
		want string
	}{
		"blocks without end":                       {deep, "blocks nest deeper than 16"},
		"a type of a later protocol":               {attribute(&protov1.Attribute{Name: "a", Type: 99}), "the type 99 of a is not known"},
		"a default that is no JSON":                {attribute(&protov1.Attribute{Name: "a", Type: 1, DefaultJson: []byte("{")}), "the default of a can't be written as JSON"},
		"more than one value as default":           {attribute(&protov1.Attribute{Name: "a", Type: 3, DefaultJson: []byte("1 2")}), "the default of a"},
		"a default of another type":                {attribute(&protov1.Attribute{Name: "a", Type: 3, DefaultJson: []byte(`"1"`)}), "the default of a is \"1\", but it wants a number"},
		"opening what only a later protocol knows": {attribute(&protov1.Attribute{Name: "a", Type: 1, Opens: 99}), "what a opens, 99, is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := SchemaFromProto(c.in)
			var broken *schema.Broken
			if !errors.As(err, &broken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func FuzzSchemaFromProto(f *testing.F) {
	p, err := SchemaToProto(schema.Block{Attributes: []schema.Attribute{{Name: "a", Type: schema.Duration, Default: time.Second}},
		Blocks: []schema.NestedBlock{{Name: "b"}}})
	if err != nil {
		f.Fatal(err)
	}
	raw, err := proto.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p protov1.Block
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		s, err := SchemaFromProto(&p)
		if err != nil {
			return
		}
		// What was taken can be told again.
		if _, err := SchemaToProto(s); err != nil {
			t.Error(err)
		}
	})
}

func TestDiagnosticsComeBackAsTheyWere(t *testing.T) {
	in := diag.Diagnostics{
		diag.Errorf(diag.Path{diag.Attr("a"), diag.Index(2), diag.Key("k k")}, "s", "d %d", 1),
		{Severity: diag.Warning, Summary: "w"},
	}
	if out := DiagnosticsFromProto(DiagnosticsToProto(in)); !reflect.DeepEqual(in, out) {
		t.Errorf("came back as %+v", out)
	}
}

func TestADiagnosticOfALaterProtocolIsTakenForTheWorse(t *testing.T) {
	out := DiagnosticsFromProto([]*protov1.Diagnostic{{
		Severity: 99, Summary: "s",
		Path: []*protov1.PathStep{{Step: &protov1.PathStep_Attribute{Attribute: "a"}}, {}, {Step: &protov1.PathStep_Index{Index: 1}}},
	}})
	if len(out) != 1 || out[0].Severity != diag.Error || out[0].Path.String() != "a" {
		t.Errorf("taken as %+v", out)
	}
}

func TestTheCodecReplacesWhatIsNotUTF8AndLeavesTheMessageAlone(t *testing.T) {
	in := &protov1.Container{
		Name: "a\xff", Labels: map[string]string{"k\xff": "v\xff", "fine": "fine"},
		Args: []string{"\xfe", "fine"}, Mounts: []*protov1.Mount{{Source: "\xff"}}, Image: &protov1.Image{Name: "\xff"},
	}
	out, err := Codec().Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Free()
	var got protov1.Container
	if err := proto.Unmarshal(out.Materialize(), &got); err != nil {
		t.Fatal(err)
	}
	want := &protov1.Container{
		Name: "a\uFFFD", Labels: map[string]string{"k\uFFFD": "v\uFFFD", "fine": "fine"},
		Args: []string{"\uFFFD", "fine"}, Mounts: []*protov1.Mount{{Source: "\uFFFD"}}, Image: &protov1.Image{Name: "\uFFFD"},
	}
	if !proto.Equal(&got, want) {
		t.Errorf("sent %v", &got)
	}
	if in.Name != "a\xff" || in.Labels["k\xff"] != "v\xff" {
		t.Error("the message itself was changed")
	}
}

func TestAChangeIsShortenedToWhatTheContractTakes(t *testing.T) {
	big := strings.Repeat("ü", MaxString) // twice MaxString bytes
	many := make([]string, 20)
	for i := range many {
		many[i] = strings.Repeat("x", MaxString)
	}
	container := func(c *protov1.Container) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
	}
	for name, c := range map[string]struct {
		in        *protov1.InventoryChange
		fits      bool
		truncated []string
	}{
		"small":             {container(&protov1.Container{Id: "1", Name: "n"}), true, nil},
		"a long string":     {container(&protov1.Container{Id: "1", Hostname: big}), true, []string{"hostname"}},
		"a long label":      {container(&protov1.Container{Id: "1", Labels: map[string]string{"k": big}}), true, []string{"labels"}},
		"a long label name": {container(&protov1.Container{Id: "1", Labels: map[string]string{big: "v"}}), true, []string{"labels"}},
		"a long mount":      {container(&protov1.Container{Id: "1", Mounts: []*protov1.Mount{{Source: big}}}), true, []string{"mounts"}},
		"much environment":  {container(&protov1.Container{Id: "1", Env: many, Args: []string{"a"}}), true, []string{"env"}},
		"much of two":       {container(&protov1.Container{Id: "1", Env: many, Args: many}), true, []string{"env", "args"}},
		"a large pod": {&protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{
			Uid: "1", Annotations: map[string]string{"k": big}}}}, true, nil},
		"a service with too many pods": {&protov1.InventoryChange{Change: &protov1.InventoryChange_Service{Service: &protov1.Service{
			Uid: "1", PodUids: many}}}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n, ok := Shorten(c.in)
			if ok != c.fits || n != proto.Size(c.in) || ok && n > MaxChange {
				t.Errorf("%d bytes, fits: %v", n, ok)
			}
			got := c.in.GetContainer().GetTruncated()
			slices.Sort(got)
			want := slices.Sorted(slices.Values(c.truncated))
			if !slices.Equal(got, want) {
				t.Errorf("truncated %v", got)
			}
			if h := c.in.GetContainer().GetHostname(); !utf8.ValidString(h) || len(h) > MaxString {
				t.Errorf("hostname of %d bytes", len(h))
			}
		})
	}
}

func BenchmarkShorten(b *testing.B) {
	c := &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
		Id: strings.Repeat("a", 64), Name: "n", Labels: map[string]string{"a": "b", "c": "d"}, Env: []string{"A=b", "C=d"},
	}}}
	b.ReportAllocs()
	for b.Loop() {
		Shorten(c)
	}
}
