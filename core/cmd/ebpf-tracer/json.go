package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// writeJSON writes a value, indented.
func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// plain is a message for encoding/json: names as in the .proto files, numbers as
// numbers (protojson writes 64-bit ones as text) and the words of enums in lower
// case. With zeros a field that is zero is told, else it is left out.
func plain(m proto.Message, zeros bool) map[string]any {
	return plainMessage(m.ProtoReflect(), zeros)
}

func plainMessage(m protoreflect.Message, zeros bool) map[string]any {
	out := map[string]any{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) && (!zeros || fd.HasPresence()) {
			continue
		}
		v := m.Get(fd)
		switch {
		case fd.IsMap():
			entries := map[string]any{}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				entries[k.String()] = plainValue(fd.MapValue(), v, zeros)
				return true
			})
			out[string(fd.Name())] = entries
		case fd.IsList():
			list := make([]any, v.List().Len())
			for i := range list {
				list[i] = plainValue(fd, v.List().Get(i), zeros)
			}
			out[string(fd.Name())] = list
		default:
			out[string(fd.Name())] = plainValue(fd, v, zeros)
		}
	}
	return out
}

func plainValue(fd protoreflect.FieldDescriptor, v protoreflect.Value, zeros bool) any {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return plainMessage(v.Message(), zeros)
	case protoreflect.EnumKind:
		return word(fd.Enum(), v.Enum())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil // JSON has no such number
		}
	}
	return v.Interface()
}

// word is what an enum's value is called, without the enum's own name: "running"
// for STATE_RUNNING; "" when it was not told.
func word(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := e.Values().ByNumber(n)
	if v == nil {
		return fmt.Sprintf("unknown_%d", n)
	}
	// The first value is PREFIX_UNSPECIFIED.
	prefix := strings.TrimSuffix(string(e.Values().Get(0).Name()), "UNSPECIFIED")
	if n == 0 {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
}

// wordOf is the word of an enum's value.
func wordOf(e protoreflect.Enum) string { return word(e.Descriptor(), e.Number()) }
