package contract

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

func reset(ks ...protov1.WorkloadKind) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{Kinds: ks}}}
}

func synced(ks ...protov1.WorkloadKind) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{Kinds: ks}}}
}

func container(c *protov1.Container) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
}

// same holds findings against the beginnings or parts that are wanted, in order.
func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.Contains(got[i], want[i])
	}
	if !ok {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestAnInventoryIsHeldAgainstTheContract(t *testing.T) {
	containers := protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER
	subscribe := &protov1.InventoryChange{Change: &protov1.InventoryChange_Subscribe{Subscribe: &protov1.Subscribe{}}}
	remove := func(r *protov1.Removed) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: r}}
	}
	for name, c := range map[string]struct {
		changes []*protov1.InventoryChange
		want    []string
	}{
		"a snapshot and a change":               {[]*protov1.InventoryChange{subscribe, reset(), container(&protov1.Container{Id: "a"}), synced(), container(&protov1.Container{Id: "b"})}, nil},
		"kind by kind":                          {[]*protov1.InventoryChange{reset(), synced(containers), synced()}, nil},
		"a container before the reset":          {[]*protov1.InventoryChange{container(&protov1.Container{Id: "a"}), reset()}, []string{`begins with container "a"`}},
		"a synced before the reset":             {[]*protov1.InventoryChange{synced()}, []string{"begins with synced"}},
		"a synced too many":                     {[]*protov1.InventoryChange{reset(), synced(), synced()}, []string{"without a reset"}},
		"a synced of another kind":              {[]*protov1.InventoryChange{reset(containers), synced(protov1.WorkloadKind_WORKLOAD_KIND_POD)}, []string{"without a reset"}},
		"nothing":                               {[]*protov1.InventoryChange{reset(), {}}, []string{"empty"}},
		"a container without an id":             {[]*protov1.InventoryChange{reset(), container(&protov1.Container{Name: "a"})}, []string{"no id"}},
		"a pod without a uid":                   {[]*protov1.InventoryChange{reset(), {Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Name: "p"}}}}, []string{`pod "p" has no uid`}},
		"a service without a uid":               {[]*protov1.InventoryChange{reset(), {Change: &protov1.InventoryChange_Service{Service: &protov1.Service{}}}}, []string{"has no uid"}},
		"a removal of nothing":                  {[]*protov1.InventoryChange{reset(), remove(&protov1.Removed{})}, []string{"names nothing"}},
		"a removal of a pod":                    {[]*protov1.InventoryChange{reset(), remove(&protov1.Removed{What: &protov1.Removed_PodUid{PodUid: "p"}})}, nil},
		"a lifecycle of another language":       {[]*protov1.InventoryChange{reset(), {Change: &protov1.InventoryChange_Lifecycle{Lifecycle: &protov1.Lifecycle{Action: "Started"}}}}, []string{"action"}},
		"a string that is too long":             {[]*protov1.InventoryChange{reset(), container(&protov1.Container{Id: "a", Hostname: strings.Repeat("h", wire.MaxString+1)})}, []string{"in container.hostname"}},
		"a string in a map that is too long":    {[]*protov1.InventoryChange{reset(), container(&protov1.Container{Id: "a", Labels: map[string]string{"k": strings.Repeat("h", wire.MaxString+1)}})}, []string{"in container.labels"}},
		"a string in a list that is too long":   {[]*protov1.InventoryChange{reset(), container(&protov1.Container{Id: "a", Mounts: []*protov1.Mount{{Source: strings.Repeat("h", wire.MaxString+1)}}})}, []string{"in container.mounts.source"}},
		"a change that is too large":            {[]*protov1.InventoryChange{reset(), container(&protov1.Container{Id: "a", Env: slices.Repeat([]string{strings.Repeat("e", 1000)}, 300)})}, []string{"shorten it"}},
		"strings that are as long as may be":    {[]*protov1.InventoryChange{reset(), container(&protov1.Container{Id: "a", Env: slices.Repeat([]string{strings.Repeat("e", wire.MaxString)}, 3)})}, nil},
		"a batch of more than may be, together": {slices.Concat([]*protov1.InventoryChange{reset()}, slices.Repeat([]*protov1.InventoryChange{container(&protov1.Container{Id: "a", Env: slices.Repeat([]string{strings.Repeat("e", 30_000)}, 8)})}, 5)), []string{"a batch of 6 changes"}},
	} {
		t.Run(name, func(t *testing.T) {
			var v Inventory
			same(t, v.Batch(&protov1.InventoryChanges{Changes: c.changes}), c.want...)
		})
	}
}

func TestAnInventoryIsSyncedWhenNoSnapshotIsOpen(t *testing.T) {
	var v Inventory
	for i, s := range []struct {
		change *protov1.InventoryChange
		want   bool
	}{{reset(), false}, {synced(protov1.WorkloadKind_WORKLOAD_KIND_POD), false}, {synced(), true}, {reset(), false}} {
		v.Batch(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{s.change}})
		if v.Synced() != s.want {
			t.Errorf("after step %d synced is %v", i, v.Synced())
		}
	}
}

func TestFactsAreHeldAgainstTheContract(t *testing.T) {
	about := func(id string) *protov1.WorkloadRef {
		return &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{Container: &protov1.ContainerRef{Id: id}}}
	}
	fact := func(f *protov1.MeshFact) *protov1.MeshChange {
		return &protov1.MeshChange{Change: &protov1.MeshChange_Fact{Fact: f}}
	}
	begin := &protov1.MeshChange{Change: &protov1.MeshChange_Reset_{Reset_: &protov1.Reset{}}}
	end := &protov1.MeshChange{Change: &protov1.MeshChange_Synced{Synced: &protov1.Synced{}}}
	good := &protov1.MeshFact{Workload: about("a"), Mesh: "m", Confidence: 1, Attributes: map[string]string{"a.b_1": "x"}}
	for name, c := range map[string]struct {
		changes []*protov1.MeshChange
		want    []string
	}{
		"a good one":                  {[]*protov1.MeshChange{begin, fact(good), end}, nil},
		"no reset":                    {[]*protov1.MeshChange{fact(good)}, []string{"begins with the fact of container /a"}},
		"synced first":                {[]*protov1.MeshChange{end}, []string{"begins with synced"}},
		"synced twice":                {[]*protov1.MeshChange{begin, end, end}, []string{"without a reset"}},
		"of no workload":              {[]*protov1.MeshChange{begin, fact(&protov1.MeshFact{Mesh: "m"})}, []string{"names no workload"}},
		"of one that nobody told":     {[]*protov1.MeshChange{begin, fact(&protov1.MeshFact{Workload: about("b"), Mesh: "m"})}, []string{"never told"}},
		"of no mesh":                  {[]*protov1.MeshChange{begin, fact(&protov1.MeshFact{Workload: about("a")})}, []string{"names no mesh"}},
		"surer than sure":             {[]*protov1.MeshChange{begin, fact(&protov1.MeshFact{Workload: about("a"), Mesh: "m", Confidence: math.NaN()})}, []string{"confidence"}},
		"an attribute with a capital": {[]*protov1.MeshChange{begin, fact(&protov1.MeshFact{Workload: about("a"), Mesh: "m", Attributes: map[string]string{"A": ""}})}, []string{"attribute"}},
		"a removal of nothing":        {[]*protov1.MeshChange{begin, {Change: &protov1.MeshChange_Removed{Removed: &protov1.WorkloadRef{}}}}, []string{"names no workload"}},
		"nothing":                     {[]*protov1.MeshChange{begin, {}}, []string{"empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			var m Mesh
			m.Told(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{container(&protov1.Container{Id: "a"})}})
			same(t, m.Batch(&protov1.MeshChanges{Changes: c.changes}), c.want...)
		})
	}
}

func TestAnswersAreHeldAgainstTheContract(t *testing.T) {
	policy := func(p *protov1.Policy) *protov1.Answer {
		return &protov1.Answer{Answer: &protov1.Answer_Policy{Policy: p}}
	}
	one := proto.Float64(1)
	rule := func(match *protov1.ClassPattern, p *float64) *protov1.Rule {
		return &protov1.Rule{Match: match, Probability: p}
	}
	for name, c := range map[string]struct {
		answer *protov1.Answer
		want   []string
	}{
		"a good one":            {policy(&protov1.Policy{Sequence: 1, DefaultProbability: one, Rules: []*protov1.Rule{rule(&protov1.ClassPattern{}, one)}}), nil},
		"of another report":     {&protov1.Answer{ReportSequence: 7, Answer: policy(&protov1.Policy{Sequence: 1, DefaultProbability: one}).Answer}, []string{"answers report 7"}},
		"neither":               {&protov1.Answer{}, []string{"neither a policy nor keep"}},
		"keep of nothing":       {&protov1.Answer{Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}, []string{"there was none"}},
		"no default":            {policy(&protov1.Policy{}), []string{"no default_probability"}},
		"more than all":         {policy(&protov1.Policy{DefaultProbability: proto.Float64(1.5)}), []string{"from 0 to 1"}},
		"not a number":          {policy(&protov1.Policy{DefaultProbability: proto.Float64(math.NaN())}), []string{"is refused"}},
		"a rule without match":  {policy(&protov1.Policy{DefaultProbability: one, Rules: []*protov1.Rule{rule(nil, one)}}), []string{"no match"}},
		"a rule without a rate": {policy(&protov1.Policy{DefaultProbability: one, Rules: []*protov1.Rule{rule(&protov1.ClassPattern{}, nil)}}), []string{"no probability"}},
		"too many rules":        {policy(&protov1.Policy{DefaultProbability: one, Rules: slices.Repeat([]*protov1.Rule{rule(&protov1.ClassPattern{}, one)}, 8193)}), []string{"8193 rules"}},
		"a ttl of the past":     {policy(&protov1.Policy{DefaultProbability: one, TtlNano: -1}), []string{"ttl"}},
		"filters":               {policy(&protov1.Policy{DefaultProbability: one, Filters: []*protov1.Filter{{Comm: []string{"a"}}, {Action: "drop", Comm: []string{"a"}}, {Name: "c", Kinds: []string{"file.open"}}}}), nil},
		"a filter that keeps":   {policy(&protov1.Policy{DefaultProbability: one, Filters: []*protov1.Filter{{Action: "keep", Comm: []string{"a"}}}}), []string{`action "keep"`}},
		"a filter of all":       {policy(&protov1.Policy{DefaultProbability: one, Filters: []*protov1.Filter{{Comm: []string{"a"}}, {Name: "b"}}}), []string{"filter 1 asks for nothing"}},
		"filters of one name":   {policy(&protov1.Policy{DefaultProbability: one, Filters: []*protov1.Filter{{Name: "a", Comm: []string{"a"}}, {Name: "a", Port: []uint32{1}}}}), []string{`named "a"`}},
		"too many filters":      {policy(&protov1.Policy{DefaultProbability: one, Filters: slices.Repeat([]*protov1.Filter{{Comm: []string{"a"}}}, 1025)}), []string{"1025 filters"}},
		"a budget of less":      {policy(&protov1.Policy{DefaultProbability: one, BudgetEventsPerSecond: proto.Float64(-1)}), []string{"budget"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sampling
			same(t, s.Answer(0, c.answer), c.want...)
		})
	}
	var s Sampling
	same(t, s.Answer(0, policy(&protov1.Policy{Sequence: 5, DefaultProbability: one})))
	same(t, s.Answer(0, policy(&protov1.Policy{Sequence: 5, DefaultProbability: one})), "sequences rise")
	same(t, s.Answer(0, &protov1.Answer{Answer: &protov1.Answer_Keep{Keep: &protov1.Keep{}}}))
}

func described() schema.Block {
	return schema.Block{Doc: "d", Attributes: []schema.Attribute{
		{Name: "socket", Type: schema.String, Default: "/run/x.sock", Doc: "The socket."},
		{Name: "timeout", Type: schema.Duration, Default: 2 * time.Second, Min: schema.Bound(time.Second), Doc: "How long."},
		{Name: "tags", Type: schema.String, Shape: schema.List, Default: []string{}, Enum: []string{"a", "b"}, Doc: "Tags."},
		{Name: "weights", Type: schema.Number, Shape: schema.Map, Doc: "Weights."},
		{Name: "must", Type: schema.Bool, Required: true, Doc: "It must."},
	}, Blocks: []schema.NestedBlock{{Name: "level", MaxItems: 2, Block: schema.Block{Doc: "A level.", Attributes: []schema.Attribute{
		{Name: "rate", Type: schema.Number, Default: 0.5, Max: schema.Bound(1), Doc: "A rate."},
	}}}}}
}

func wired(t *testing.T, b schema.Block) schema.Block {
	t.Helper()
	p, err := wire.SchemaToProto(b)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = wire.SchemaFromProto(p); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestADescriptionIsHeldAgainstTheContract(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *protov1.DescribeResponse, b *schema.Block)
		want   []string
	}{
		"a good one":                 {func(*protov1.DescribeResponse, *schema.Block) {}, nil},
		"no kind":                    {func(d *protov1.DescribeResponse, _ *schema.Block) { d.Kind = 9 }, []string{"its kind is 9"}},
		"a name with a capital":      {func(d *protov1.DescribeResponse, _ *schema.Block) { d.Name = "Test" }, []string{"its name is"}},
		"no version, no doc":         {func(d *protov1.DescribeResponse, _ *schema.Block) { d.Version, d.Doc = "", " " }, []string{"no version", "no doc"}},
		"an undocumented argument":   {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[0].Doc = "" }, []string{"argument socket has no doc"}},
		"an undocumented block":      {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Blocks[0].Block.Doc = "" }, []string{"block level has no doc"}},
		"an undocumented inner one":  {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Blocks[0].Block.Attributes[0].Doc = "" }, []string{"argument level.rate"}},
		"a default of another type":  {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[0].Default = 7 }, []string{"it wants text"}},
		"a default out of range":     {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[1].Default = time.Millisecond }, []string{"at least"}},
		"a default that is a string": {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[1].Default = "2s" }, []string{"it wants a number"}},
		"a default of half a unit":   {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[1].Default = 1e9 + 0.5 }, []string{"a whole number"}},
		"a default not in the enum":  {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[2].Default = []string{"c"} }, []string{"one of"}},
		"a default of another shape": {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[3].Default = []int{1} }, []string{"it wants a map"}},
		"required, with a default":   {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[0].Required = true }, []string{"one or the other"}},
		"a pattern for a number":     {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[1].Pattern = "x" }, []string{"but is no text"}},
		"a range for text":           {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[0].Min = schema.Bound(1) }, []string{"but is no number"}},
		"a name that is none":        {func(_ *protov1.DescribeResponse, b *schema.Block) { b.Attributes[0].Name = "No" }, []string{"can't be used"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, b := &protov1.DescribeResponse{Kind: protov1.Kind_KIND_SAMPLER, Name: "test", Version: "1", Doc: "d"}, described()
			c.change(d, &b)
			var err error
			if d.Schema, err = wire.SchemaToProto(b); err != nil {
				t.Fatal(err)
			}
			_, wrong := Description(d)
			same(t, wrong, c.want...)
		})
	}
}

func TestAConfigurationIsFilledAsTheDaemonDoes(t *testing.T) {
	b := wired(t, described())
	for name, c := range map[string]struct {
		in, out string
		want    []string
	}{
		"only what is required":   {`{"must":true}`, `{"level":[],"must":true,"socket":"/run/x.sock","tags":[],"timeout":2000000000}`, nil},
		"with a block":            {`{"must":true,"socket":"s","level":[{}]}`, `{"level":[{"rate":0.5}],"must":true,"socket":"s","tags":[],"timeout":2000000000}`, nil},
		"nothing":                 {``, "", []string{"must is required"}},
		"a list":                  {`[]`, "", []string{"no JSON object"}},
		"an argument too many":    {`{"must":true,"mast":1}`, "", []string{"no argument mast"}},
		"a value of another type": {`{"must":1,"timeout":"2s"}`, "", []string{"timeout", "must"}},
		"blocks too many":         {`{"must":true,"level":[{},{},{"rate":2}]}`, "", []string{"3 blocks", "level[2].rate"}},
		"a block that is none":    {`{"must":true,"level":{"rate":1}}`, "", []string{"an array of objects"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, wrong := Config(b, []byte(c.in))
			same(t, wrong, c.want...)
			if c.out != "" && string(out) != c.out {
				t.Errorf("filled: %s, want %s", out, c.out)
			}
		})
	}
}

func TestAFindingLeadsIntoTheSchema(t *testing.T) {
	b := wired(t, described())
	for _, c := range []struct {
		path diag.Path
		want bool
	}{
		{nil, true},
		{diag.Path{diag.Attr("socket")}, true},
		{diag.Path{diag.Attr("socket"), diag.Index(0)}, false},
		{diag.Path{diag.Attr("tags"), diag.Index(0)}, true},
		{diag.Path{diag.Attr("tags"), diag.Key("a")}, false},
		{diag.Path{diag.Attr("weights"), diag.Key("a")}, true},
		{diag.Path{diag.Attr("level")}, true},
		{diag.Path{diag.Attr("level"), diag.Index(1), diag.Attr("rate")}, true},
		{diag.Path{diag.Attr("level"), diag.Attr("rate")}, false},
		{diag.Path{diag.Attr("level.rate")}, false},
		{diag.Path{diag.Index(0)}, false},
	} {
		got := Diagnostics(b, diag.Diagnostics{{Summary: "s", Path: c.path}})
		if (len(got) == 0) != c.want {
			t.Errorf("%s: %q", c.path, got)
		}
	}
	same(t, Diagnostics(b, diag.Diagnostics{{}}), "no summary")
}

func TestWrongTypesChangeOneValueEach(t *testing.T) {
	b := wired(t, described())
	base, _ := Config(b, []byte(`{"must":true}`))
	all := WrongTypes(b, base)
	if len(all) < 10 {
		t.Errorf("only %d", len(all))
	}
	for name, raw := range all {
		if _, wrong := Config(b, raw); !json.Valid(raw) || len(wrong) == 0 && !strings.HasSuffix(name, "null") {
			t.Errorf("%s is right: %s", name, raw)
		}
	}
}

func TestWhatIsHostileFitsTheWire(t *testing.T) {
	all := []proto.Message{&protov1.HostFacts{Facts: HostileFacts()}, &protov1.InventoryChanges{Changes: HostileWorkloads()}}
	for _, c := range HostileWorkloads() {
		if n := proto.Size(c); n > wire.MaxChange {
			t.Errorf("a change of %d bytes: the daemon sends none of that size", n)
		}
	}
	for _, r := range HostileReports() {
		all = append(all, r)
	}
	for _, m := range all {
		raw, err := proto.Marshal(m)
		if err != nil || len(raw) > wire.MaxMessage {
			t.Errorf("%T of %d bytes: %v", m, len(raw), err)
		}
	}
}
