package wire

import (
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Shorten brings a change within MaxChange and its strings within MaxString,
// in place. A container says in its field truncated what was shortened. It
// returns the change's size in bytes, and false when it can't be made to fit.
func Shorten(c *protov1.InventoryChange) (int, bool) {
	n := proto.Size(c)
	if n <= MaxString {
		return n, true // no string in it can be longer
	}
	what, whole := described(c)
	if what == nil {
		return n, n <= MaxChange
	}
	var cut []string
	what.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if shortenField(what, fd, v) {
			cut = append(cut, string(fd.Name()))
		}
		return true
	})
	if n = proto.Size(c); n > MaxChange {
		// What is largest goes, one field after the other, but never what
		// identifies the workload.
		for _, name := range []protoreflect.Name{"env", "args", "entrypoint", "annotations", "mounts", "ports", "networks", "labels"} {
			fd := what.Descriptor().Fields().ByName(name)
			if fd == nil || !what.Has(fd) {
				continue
			}
			what.Clear(fd)
			cut = append(cut, string(name))
			if n = proto.Size(c); n <= MaxChange-1<<10 {
				break
			}
		}
	}
	if whole != nil {
		whole.Truncated = append(whole.Truncated, cut...)
	}
	n = proto.Size(c)
	return n, n <= MaxChange
}

// described is the message inside a change, if it describes something.
func described(c *protov1.InventoryChange) (protoreflect.Message, *protov1.Container) {
	switch c := c.GetChange().(type) {
	case *protov1.InventoryChange_Container:
		return c.Container.ProtoReflect(), c.Container
	case *protov1.InventoryChange_Pod:
		return c.Pod.ProtoReflect(), nil
	case *protov1.InventoryChange_Service:
		return c.Service.ProtoReflect(), nil
	case *protov1.InventoryChange_Lifecycle:
		return c.Lifecycle.ProtoReflect(), nil
	}
	return nil, nil
}

// shortenField cuts the strings of one field and tells whether it cut any.
func shortenField(m protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	cut := false
	switch {
	case fd.IsMap():
		if fd.MapValue().Kind() != protoreflect.StringKind {
			return false
		}
		vm := v.Map()
		vm.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			if len(k.String()) > MaxString {
				vm.Clear(k)
				cut = true
			} else if s := v.String(); len(s) > MaxString {
				vm.Set(k, protoreflect.ValueOfString(shortened(s)))
				cut = true
			}
			return true
		})
	case fd.IsList():
		list := v.List()
		for i := range list.Len() {
			switch fd.Kind() {
			case protoreflect.StringKind:
				if s := list.Get(i).String(); len(s) > MaxString {
					list.Set(i, protoreflect.ValueOfString(shortened(s)))
					cut = true
				}
			case protoreflect.MessageKind:
				cut = shortenMessage(list.Get(i).Message()) || cut
			}
		}
	case fd.Kind() == protoreflect.StringKind:
		if s := v.String(); len(s) > MaxString {
			m.Set(fd, protoreflect.ValueOfString(shortened(s)))
			cut = true
		}
	case fd.Kind() == protoreflect.MessageKind:
		cut = shortenMessage(v.Message())
	}
	return cut
}

func shortenMessage(m protoreflect.Message) bool {
	cut := false
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		cut = shortenField(m, fd, v) || cut
		return true
	})
	return cut
}

// shortened is at most MaxString bytes of s, cut between two runes.
func shortened(s string) string {
	n := MaxString
	for n > MaxString-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
