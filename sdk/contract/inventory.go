package contract

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Inventory judges the changes of one stream of a discoverer. The zero value is
// at the beginning of a stream. It is not safe for concurrent use.
type Inventory struct {
	begun bool
	open  map[protov1.WorkloadKind]bool // whose snapshot is being told
	done  map[protov1.WorkloadKind]bool // whose snapshot was told
}

// everyKind is what a reset or synced without kinds stands for.
func everyKind(ks []protov1.WorkloadKind) []protov1.WorkloadKind {
	if len(ks) > 0 {
		return ks
	}
	return []protov1.WorkloadKind{
		protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER, protov1.WorkloadKind_WORKLOAD_KIND_POD, protov1.WorkloadKind_WORKLOAD_KIND_SERVICE,
	}
}

// Synced tells whether a snapshot was told, and none is open.
func (v *Inventory) Synced() bool { return len(v.done) > 0 && len(v.open) == 0 }

// Batch judges the next message of the stream and returns what is wrong with it.
func (v *Inventory) Batch(b *protov1.InventoryChanges) []string {
	var wrong []string
	if n := proto.Size(b); n > wire.MaxBatch {
		wrong = append(wrong, fmt.Sprintf("a batch of %d changes has %d bytes: send at most %d at a time", len(b.GetChanges()), n, wire.MaxBatch))
	}
	for _, c := range b.GetChanges() {
		wrong = append(wrong, v.change(c)...)
	}
	return wrong
}

func (v *Inventory) change(c *protov1.InventoryChange) []string {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	what := changeName(c)
	switch c := c.GetChange().(type) {
	case nil:
		add("a change is empty: set one of its alternatives")
	case *protov1.InventoryChange_Subscribe, *protov1.InventoryChange_Considered:
		return nil // may stand anywhere
	case *protov1.InventoryChange_Reset_:
		v.begun = true
		if v.open == nil {
			v.open, v.done = map[protov1.WorkloadKind]bool{}, map[protov1.WorkloadKind]bool{}
		}
		for _, k := range everyKind(c.Reset_.GetKinds()) {
			v.open[k] = true
		}
	case *protov1.InventoryChange_Synced:
		found := false
		for _, k := range everyKind(c.Synced.GetKinds()) {
			found = found || v.open[k]
			if v.open[k] {
				delete(v.open, k)
				v.done[k] = true
			}
		}
		if !found && v.begun {
			add("synced comes without a reset before it: each snapshot is between a reset and a synced")
		}
	case *protov1.InventoryChange_Container:
		if c.Container.GetId() == "" {
			add("a container has no id: give the whole id, as the runtime has it")
		}
	case *protov1.InventoryChange_Pod:
		if c.Pod.GetUid() == "" {
			add("pod %q has no uid", c.Pod.GetName())
		}
	case *protov1.InventoryChange_Service:
		if c.Service.GetUid() == "" {
			add("service %q has no uid", c.Service.GetName())
		}
	case *protov1.InventoryChange_Removed:
		r := c.Removed
		if r.GetContainer().GetId() == "" && r.GetPodUid() == "" && r.GetServiceUid() == "" {
			add("a removal names nothing: give the container's id, or the uid of the pod or service")
		}
	case *protov1.InventoryChange_Lifecycle:
		if a := c.Lifecycle.GetAction(); a == "" || strings.ToLower(a) != a {
			add("a lifecycle's action is %q: it is one of created, started, paused, unpaused, oom, died, removed, pulled", a)
		}
	}
	if !v.begun {
		// The daemon ends the stream here; say it once and go on.
		v.begun = true
		add("the stream begins with %s: the first change is a reset", what)
	}
	return append(wrong, sized(what, c)...)
}

// sized judges the sizes of one change.
func sized(what string, m proto.Message) []string {
	n := proto.Size(m)
	if n <= wire.MaxString {
		return nil // no string in it can be longer
	}
	var wrong []string
	if n > wire.MaxChange {
		wrong = append(wrong, fmt.Sprintf("%s has %d bytes, more than the %d that the daemon takes: shorten it", what, n, wire.MaxChange))
	}
	if field := longString(m.ProtoReflect()); field != "" {
		wrong = append(wrong, fmt.Sprintf("%s has a string of more than %d bytes in %s: shorten it and name the field in truncated", what, wire.MaxString, field))
	}
	return wrong
}

// longString names the innermost field that holds a string that is too long.
func longString(m protoreflect.Message) (found string) {
	long := func(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
		switch fd.Kind() {
		case protoreflect.StringKind:
			if len(v.String()) > wire.MaxString {
				return "it"
			}
		case protoreflect.MessageKind:
			if inner := longString(v.Message()); inner != "" {
				return inner
			}
		}
		return ""
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		is := ""
		switch {
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				if is = long(fd.MapValue(), v); len(k.String()) > wire.MaxString {
					is = "it"
				}
				return is == ""
			})
		case fd.IsList():
			for i := 0; i < v.List().Len() && is == ""; i++ {
				is = long(fd, v.List().Get(i))
			}
		default:
			is = long(fd, v)
		}
		switch is {
		case "":
			return true
		case "it":
			found = string(fd.Name())
		default:
			found = fmt.Sprintf("%s.%s", fd.Name(), is)
		}
		return false
	})
	return found
}

// changeName is how a change is called in a sentence.
func changeName(c *protov1.InventoryChange) string {
	switch c := c.GetChange().(type) {
	case *protov1.InventoryChange_Reset_:
		return "a reset"
	case *protov1.InventoryChange_Synced:
		return "synced"
	case *protov1.InventoryChange_Container:
		return fmt.Sprintf("container %.64q", c.Container.GetId())
	case *protov1.InventoryChange_Pod:
		return fmt.Sprintf("pod %.64q", c.Pod.GetUid())
	case *protov1.InventoryChange_Service:
		return fmt.Sprintf("service %.64q", c.Service.GetUid())
	case *protov1.InventoryChange_Removed:
		return "a removal"
	case *protov1.InventoryChange_Lifecycle:
		return fmt.Sprintf("lifecycle %.64q", c.Lifecycle.GetAction())
	}
	return "an empty change"
}
