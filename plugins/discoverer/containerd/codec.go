package main

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// codec is gRPC's for protobuf, but for texts that are not UTF-8. containerd 1.6 takes
// such labels and gives them out again; refusing them would hide all containers behind
// one of them.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: it is no message", v)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: it is no message", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	return unmarshalText(b.ReadOnlyData(), m)
}

// unmarshalText reads a message; of texts that are not UTF-8 it replaces the bytes at
// fault by question marks.
func unmarshalText(b []byte, m proto.Message) error {
	err := proto.Unmarshal(b, m)
	if err == nil {
		return nil
	}
	clean := append([]byte(nil), b...)
	if !replaceInvalid(clean, m.ProtoReflect().Descriptor(), 0) {
		return err
	}
	proto.Reset(m)
	return proto.Unmarshal(clean, m)
}

// maxDepth of messages within messages; containerd's have four.
const maxDepth = 32

// replaceInvalid replaces in place, so that no length changes. It tells whether it found
// any.
func replaceInvalid(b []byte, d protoreflect.MessageDescriptor, depth int) (found bool) {
	if depth > maxDepth {
		return false
	}
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return found
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, wire, b); n < 0 {
			return found
		}
		if wire == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			switch f := d.Fields().ByNumber(number); {
			case f == nil:
			case f.Kind() == protoreflect.StringKind:
				found = questionMarks(value) || found
			case f.Kind() == protoreflect.MessageKind:
				found = replaceInvalid(value, f.Message(), depth+1) || found
			}
		}
		b = b[n:]
	}
	return found
}

func questionMarks(text []byte) (found bool) {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			text[i] = '?'
			found = true
		}
		i += n
	}
	return found
}
