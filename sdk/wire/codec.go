package wire

import (
	"strings"

	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Codec is gRPC's protobuf codec, but a message with a string that is not
// UTF-8 is sent with the bytes at fault replaced by U+FFFD. Names, labels and
// paths come from outside, and one of them must not end a stream. A message
// that is valid costs nothing more.
func Codec() encoding.CodecV2 {
	return codec{encoding.GetCodecV2(encproto.Name)}
}

type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	out, err := c.CodecV2.Marshal(v)
	if err == nil {
		return out, nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return nil, err
	}
	return c.CodecV2.Marshal(ValidUTF8(m))
}

// ValidUTF8 returns a copy of m in which every string is valid UTF-8.
func ValidUTF8(m proto.Message) proto.Message {
	c := proto.Clone(m)
	repair(c.ProtoReflect())
	return c
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func repair(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			repairMap(fd, v.Map())
		case fd.IsList():
			list := v.List()
			for i := range list.Len() {
				switch fd.Kind() {
				case protoreflect.StringKind:
					list.Set(i, protoreflect.ValueOfString(valid(list.Get(i).String())))
				case protoreflect.MessageKind:
					repair(list.Get(i).Message())
				}
			}
		case fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString(valid(v.String())))
		case fd.Kind() == protoreflect.MessageKind:
			repair(v.Message())
		}
		return true
	})
}

func repairMap(fd protoreflect.FieldDescriptor, m protoreflect.Map) {
	type entry struct {
		key protoreflect.MapKey
		val protoreflect.Value
	}
	var changed []entry
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if fd.MapValue().Kind() == protoreflect.MessageKind {
			repair(v.Message())
		}
		changed = append(changed, entry{k, v})
		return true
	})
	for _, e := range changed {
		key, val := e.key, e.val
		if fd.MapKey().Kind() == protoreflect.StringKind {
			key = protoreflect.ValueOfString(valid(key.String())).MapKey()
		}
		if fd.MapValue().Kind() == protoreflect.StringKind {
			val = protoreflect.ValueOfString(valid(val.String()))
		}
		if key.Interface() != e.key.Interface() {
			m.Clear(e.key)
		}
		m.Set(key, val)
	}
}
