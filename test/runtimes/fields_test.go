package runtimes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// unasked are fields to which nothing here gives a value, on any runtime.
func unasked() []string {
	return []string{"truncated", "limits.blkio_weight", "limits.blkio_throttles", "limits.network", "limits.cpu_weight", "limits.cpuset",
		"security.selinux", "security.apparmor"}
}

// flatten gives the fields that are set, as text; those of an image, of limits and of
// security each by itself.
func flatten(m proto.Message) map[string]string {
	out := map[string]string{}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(f.Name())
		switch {
		case f.Kind() == protoreflect.MessageKind && !f.IsList() && !f.IsMap() && name != "network":
			for inner, text := range flatten(v.Message().Interface()) {
				out[name+"."+inner] = text
			}
		case f.IsMap():
			var pairs []string
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				pairs = append(pairs, fmt.Sprintf("%s=%q", k, v))
				return true
			})
			slices.Sort(pairs)
			out[name] = strings.Join(pairs, " ")
		case f.IsList():
			var items []string
			for i := range v.List().Len() {
				item := v.List().Get(i)
				if f.Kind() == protoreflect.MessageKind {
					items = append(items, "{"+prototext.MarshalOptions{}.Format(item.Message().Interface())+"}")
				} else {
					items = append(items, fmt.Sprintf("%q", item))
				}
			}
			out[name] = strings.Join(items, " ")
		case f.Kind() == protoreflect.EnumKind:
			out[name] = string(f.Enum().Values().ByNumber(v.Enum()).Name())
		default:
			out[name] = v.String()
		}
		return true
	})
	return out
}

// allFields are the names that flatten may give.
func allFields(m protoreflect.MessageDescriptor, prefix string) (names []string) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if f.Kind() == protoreflect.MessageKind && !f.IsList() && !f.IsMap() && f.Name() != "network" {
			names = append(names, allFields(f.Message(), string(f.Name())+".")...)
		} else {
			names = append(names, prefix+string(f.Name()))
		}
	}
	return names
}

// asTold makes what a runtime said comparable with what the daemon may say: the values of
// the environment stay within.
func asTold(c *protov1.Container, runtime string) map[string]string {
	c = proto.Clone(c).(*protov1.Container)
	for i, e := range c.GetEnv() {
		name, _, _ := strings.Cut(e, "=")
		c.Env[i] = name + "=[redacted]"
	}
	c.Runtime = runtime
	if c.GetPid() == 0 {
		c.CgroupPath, c.CgroupId = "", 0 // where it was: the runtime does not tell
	}
	for _, list := range [][]string{c.GetSecurity().GetCapabilitiesAdded(), c.GetSecurity().GetCapabilitiesDropped()} {
		for i := range list {
			list[i] = strings.TrimPrefix(list[i], "CAP_")
		}
	}
	return flatten(c)
}

// differences are the fields of which the daemon says something else than the runtime.
func differences(told, said map[string]string) (names []string) {
	for name := range said {
		if told[name] != said[name] {
			names = append(names, name)
		}
	}
	for name := range told {
		if _, ok := said[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fields compares all fields of a container that runs and of one that has ended.
func fields(t *testing.T, r row, rt env.Runtime) {
	tr := start(t, rt)
	dir := t.TempDir()
	mine := tag()
	running, err := rt.RunDetached(t.Context(), env.FullSpec(mine+"-full", dir))
	if err != nil {
		t.Fatal(err)
	}
	remove(t, rt, running)
	ended, err := rt.RunDetached(t.Context(), env.Spec{Name: mine + "-ended", Image: env.BusyboxImage, Args: []string{"sh", "-c", "exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	remove(t, rt, ended)
	eventually(t, "the container's end", func() error {
		c, err := rt.Inspect(t.Context(), ended)
		if err == nil && c.GetState() != protov1.Container_STATE_EXITED {
			err = fmt.Errorf("it is in state %v", c.GetState())
		}
		return err
	})

	set := map[string]bool{} // told of one of them at least
	equal := map[string]bool{}
	wrong := map[string]bool{}
	for _, c := range []struct{ what, id string }{{"running", running}, {"ended", ended}} {
		said, err := rt.Inspect(t.Context(), c.id)
		if err != nil {
			t.Fatal(err)
		}
		want := asTold(said, r.runtime)
		// The daemon inspects on its own time: what differs for good is wrong.
		var got map[string]string
		var names []string
		for deadline := time.Now().Add(harness.Patience / 2); ; time.Sleep(50 * time.Millisecond) {
			got = asTold(tr.WaitContainer(c.id).GetContainer(), r.runtime)
			names = slices.DeleteFunc(differences(got, want), func(name string) bool { return r.differs[name] != "" })
			if len(names) == 0 || time.Now().After(deadline) {
				break
			}
		}
		for _, name := range names {
			t.Errorf("%s of the %s container: the runtime says %q, the daemon %q", name, c.what, want[name], got[name])
		}
		for name := range got {
			set[name] = true
			if got[name] == want[name] {
				equal[name] = true
			}
		}
		for _, name := range differences(got, want) {
			wrong[name] = true
		}
	}
	compared := 0
	for _, name := range allFields((&protov1.Container{}).ProtoReflect().Descriptor(), "") {
		switch reason := r.differs[name]; {
		case reason != "" && set[name] && equal[name] && !wrong[name]:
			t.Errorf("%s is told as the runtime tells it, though the table says: %s", name, reason)
		case reason == "" && !set[name] && !slices.Contains(unasked(), name):
			t.Errorf("%s is not told, and the table gives no reason", name)
		case equal[name]:
			compared++
		}
	}
	t.Logf("%d fields are told as the runtime tells them, %d are not, for the reasons in the table", compared, len(r.differs))
	for _, name := range slices.Sorted(maps.Keys(r.differs)) {
		t.Logf("%s: %s", name, r.differs[name])
	}
	tr.Stop()
}
