package contract

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Garbage are configurations that are none, by what they are. A plugin refuses each,
// by a diagnostic or an error of the call, and lives on.
func Garbage() map[string][]byte {
	return map[string][]byte{
		"half an object":      []byte(`{"a": `),
		"a list":              []byte(`[1, 2]`),
		"text":                []byte(`"config"`),
		"no JSON at all":      []byte("\x00\xff\xfe not json"),
		"nesting without end": []byte(strings.Repeat(`{"a":`, 20_000)),
	}
}

// WrongTypes are configurations with one value of another type than the schema says,
// by its name. The daemon never sends such: a plugin may refuse or take them, but
// lives on. base is a right configuration.
func WrongTypes(b schema.Block, base []byte) map[string][]byte {
	out := map[string][]byte{}
	var right map[string]json.RawMessage
	if json.Unmarshal(base, &right) != nil {
		return out
	}
	with := func(name string, value string) {
		wrong := map[string]json.RawMessage{}
		for k, v := range right {
			wrong[k] = v
		}
		wrong[name] = json.RawMessage(value)
		raw, err := json.Marshal(wrong)
		if err == nil { // all of it is JSON
			out[name+" = "+value] = raw
		}
	}
	for _, a := range b.Attributes {
		with(a.Name, `{"not": ["what", "is", "wanted"]}`)
		with(a.Name, `null`)
		if a.Shape == schema.Single {
			with(a.Name, `[[]]`)
		} else {
			with(a.Name, `7`)
		}
		if a.Type == schema.String {
			with(a.Name, `7`)
		} else {
			with(a.Name, `"text"`)
		}
	}
	for _, n := range b.Blocks {
		with(n.Name, `"text"`)
		with(n.Name, `[null, 7, []]`)
	}
	return out
}

// Newer gives a message what a later edition of the protocol might add: a field
// that nobody knows. It returns m.
func Newer[M proto.Message](m M) M {
	unknown := protowire.AppendTag(nil, 30_000, protowire.BytesType)
	unknown = protowire.AppendString(unknown, "from a later edition")
	unknown = protowire.AppendTag(unknown, 30_001, protowire.VarintType)
	unknown = protowire.AppendVarint(unknown, math.MaxUint64)
	m.ProtoReflect().SetUnknown(protoreflect.RawFields(unknown))
	return m
}

// HostileFacts are host facts that are allowed and unlikely: odd paths, ids at the
// end of their range, an alternative that nobody knows yet.
func HostileFacts() []*protov1.HostFact {
	cgroup := func(id uint64, path string) *protov1.HostFact {
		return &protov1.HostFact{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{
			Change: protov1.CgroupFact_CHANGE_PRESENT, Id: id, Path: path,
		}}}
	}
	return []*protov1.HostFact{
		{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}},
		cgroup(0, ""), cgroup(math.MaxUint64, "/"+strings.Repeat("long", wire.MaxString/8)),
		cgroup(1, "/../../\uFFFD\n\x1b[31m"), cgroup(2, "/docker/"+strings.Repeat("a", 64)),
		Newer(&protov1.HostFact{}),
		{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: 99, Id: 3, Path: "/later"}}},
		{Fact: &protov1.HostFact_Process{Process: &protov1.ProcessFact{Change: protov1.ProcessFact_CHANGE_EXEC, Pid: math.MaxUint32}}},
		{Fact: &protov1.HostFact_Synced{Synced: &protov1.Synced{}}},
		{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: protov1.CgroupFact_CHANGE_REMOVED, Id: 77}}},
	}
}

// HostileWorkloads are descriptions that are allowed and unlikely: huge labels, odd
// names, empty ones, removals of what was never told, an alternative that nobody
// knows yet. They stand between a reset and a synced, which are the caller's.
func HostileWorkloads() []*protov1.InventoryChange {
	huge := map[string]string{"": "", "k": strings.Repeat("v", wire.MaxString), strings.Repeat("k", 4096): "\uFFFD\n\x1b[31m"}
	for i := range 500 {
		huge[fmt.Sprintf("label-%d", i)] = strings.Repeat("x", 100)
	}
	container := func(c *protov1.Container) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
	}
	return []*protov1.InventoryChange{
		container(&protov1.Container{Id: "plain", Name: "web", Image: &protov1.Image{Name: "nginx", Tag: "1"}, State: protov1.Container_STATE_RUNNING}),
		container(&protov1.Container{Id: "bare"}),
		container(&protov1.Container{Id: "huge", Name: strings.Repeat("n", wire.MaxString), Labels: huge, Annotations: huge}),
		container(&protov1.Container{Id: "later", State: 99, Ports: []*protov1.Port{{ContainerPort: math.MaxUint32}}}),
		container(&protov1.Container{Id: "plain", Name: "web", PodUid: "no-such-pod", SandboxId: "no-such-container"}),
		container(&protov1.Container{Id: "self", NetworkMode: "container:self"}),
		{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: "pod", Name: "p", Labels: huge, ContainerIds: []string{"plain", "", "none"}}}},
		{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: "never told"}}}}},
		{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{}}},
		Newer(&protov1.InventoryChange{}),
	}
}

// HostileReports are reports that are allowed and unlikely: of no time, of nothing,
// of more than can be, of classes that nobody knows yet. Their sequences are the
// caller's to set.
func HostileReports() []*protov1.Report {
	class := func(kind, priority string, n uint64) *protov1.ClassLoad {
		return &protov1.ClassLoad{Class: &protov1.Class{Kind: kind, Priority: priority}, Seen: n, Kept: n / 2, SampledOut: n - n/2, Bytes: n, Probability: 0.5}
	}
	half := int64(500_000_000)
	crowd := &protov1.Report{IntervalNano: half, RowCapacity: 1}
	for i := range 1024 {
		crowd.Workloads = append(crowd.Workloads, &protov1.WorkloadLoad{
			Container: &protov1.ContainerRef{Id: fmt.Sprintf("c%d", i)}, Group: strings.Repeat("g", i), Seen: math.MaxUint64, Kept: uint64(i),
		})
	}
	nan := math.NaN()
	return []*protov1.Report{
		{},
		{IntervalNano: half},
		{IntervalNano: half, Classes: []*protov1.ClassLoad{class("process.exec", "info", 1000), class("network.connect", "error", 1)}},
		{IntervalNano: 1, Classes: []*protov1.ClassLoad{class("process.exec", "info", math.MaxUint64)}},
		{IntervalNano: -half, Classes: []*protov1.ClassLoad{class("process.exec", "info", 10)}},
		{IntervalNano: math.MaxInt64, Classes: []*protov1.ClassLoad{class("", "", 10), class("kind.of.later", "unheard", 10), {}, {Class: &protov1.Class{}, Probability: nan}}},
		{IntervalNano: half, Merged: math.MaxUint64, Host: &protov1.HostLoad{CpuUtilization: &nan}},
		{IntervalNano: half, Policies: []*protov1.PolicyResult{{PolicySequence: 1, Reason: "refused for the test"}, {PolicySequence: math.MaxUint64, Accepted: true}}},
		crowd,
		Newer(&protov1.Report{IntervalNano: half, Classes: []*protov1.ClassLoad{Newer(class("file.open", "debug", 5))}}),
	}
}
