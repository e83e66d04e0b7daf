package contract

import (
	"fmt"
	"regexp"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// attributeKey is what a fact's attribute may be called.
var attributeKey = regexp.MustCompile(`^[a-z0-9_.]+$`)

// Mesh judges the facts of one stream of a detector against what it was told. The
// zero value is at the beginning of a stream. It is not safe for concurrent use.
type Mesh struct {
	begun, open, synced bool
	told                map[string]bool // workloads that the detector ever heard of
}

// Synced tells whether a snapshot of facts was told whole.
func (m *Mesh) Synced() bool { return m.synced && !m.open }

// Told remembers what the detector is told. Call it before sending.
func (m *Mesh) Told(b *protov1.InventoryChanges) {
	if m.told == nil {
		m.told = map[string]bool{}
	}
	for _, c := range b.GetChanges() {
		switch c := c.GetChange().(type) {
		case *protov1.InventoryChange_Container:
			m.told["container "+c.Container.GetScope()+"/"+c.Container.GetId()] = true
			if uid := c.Container.GetPodUid(); uid != "" { // whose own description may follow, or never come
				m.told["pod "+uid] = true
			}
		case *protov1.InventoryChange_Pod:
			m.told["pod "+c.Pod.GetUid()] = true
		}
	}
}

// subject is how a workload is called in a sentence and in told; "" is none.
func subject(w *protov1.WorkloadRef) string {
	switch w := w.GetWorkload().(type) {
	case *protov1.WorkloadRef_Container:
		return "container " + w.Container.GetScope() + "/" + w.Container.GetId()
	case *protov1.WorkloadRef_PodUid:
		return "pod " + w.PodUid
	}
	return ""
}

// Batch judges the next message of the stream and returns what is wrong with it.
func (m *Mesh) Batch(b *protov1.MeshChanges) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if n := proto.Size(b); n > wire.MaxBatch {
		add("a batch of %d facts has %d bytes: send at most %d at a time", len(b.GetChanges()), n, wire.MaxBatch)
	}
	for _, c := range b.GetChanges() {
		what := "a change"
		switch c := c.GetChange().(type) {
		case nil:
			add("a change is empty: set one of its alternatives")
		case *protov1.MeshChange_Reset_:
			what, m.begun, m.open = "a reset", true, true
		case *protov1.MeshChange_Synced:
			what = "synced"
			if m.begun && !m.open {
				add("synced comes without a reset before it: each snapshot is between a reset and a synced")
			}
			m.open, m.synced = false, true
		case *protov1.MeshChange_Fact:
			what = "the fact of " + subject(c.Fact.GetWorkload())
			m.fact(c.Fact, add)
		case *protov1.MeshChange_Removed:
			what = "a removal"
			if subject(c.Removed) == "" {
				add("a removal names no workload: give the container or the pod")
			}
		}
		if !m.begun {
			m.begun = true
			add("the stream begins with %s: the first change is a reset", what)
		}
		wrong = append(wrong, sized(what, c)...)
	}
	return wrong
}

func (m *Mesh) fact(f *protov1.MeshFact, add func(string, ...any)) {
	s := subject(f.GetWorkload())
	switch {
	case s == "":
		add("a fact names no workload: give the container or the pod")
		return
	case !m.told[s]:
		add("a fact is about %s, of which the detector was never told: tell only of what the daemon named", s)
	}
	if f.GetMesh() == "" {
		add("the fact of %s names no mesh", s)
	}
	if c := f.GetConfidence(); !(c >= 0 && c <= 1) {
		add("the fact of %s has the confidence %v: it is from 0 to 1", s, c)
	}
	for k := range f.GetAttributes() {
		if !attributeKey.MatchString(k) {
			add("the fact of %s has an attribute %.64q: keys are of a-z, 0-9, _ and dots", s, k)
		}
	}
}
