package kernel

import (
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
)

// layout gives offset and size of each field of a Go struct, the unnamed apart.
func layout(v any) (fields [][2]int, size int) {
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		if f := t.Field(i); f.Name != "_" {
			fields = append(fields, [2]int{int(f.Offset), int(f.Type.Size())})
		}
	}
	return fields, int(t.Size())
}

func TestStructsOfMapsAreThoseOfTheHeader(t *testing.T) {
	probes, err := bpf.LoadCgroup()
	if err != nil {
		t.Fatal(err)
	}
	simulator, err := bpf.LoadSimulate()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		spec   *ebpf.CollectionSpec
		ours   any
		padded map[string]bool // fields that are there for room
	}{
		{"policy_row", probes, policyRow{}, nil},
		{"cgroup_state", probes, cgroupState{}, map[string]bool{"reserved": true}},
		{"budget_share", probes, budgetShare{}, map[string]bool{"unused": true}},
		{"valve", probes, valveWords{}, map[string]bool{"unused": true, "unused2": true}},
		{"filters", probes, filterSet{}, nil},
		{"filter_value", probes, filterValue{}, nil},
		{"filter_number", probes, Number{}, nil},
		{"filter_prefix", probes, filterPrefix{}, nil},
		{"trial", simulator, Trial{}, nil},
	} {
		var theirs *btf.Struct
		if err := test.spec.Types.TypeByName(test.name, &theirs); err != nil {
			t.Fatal(err)
		}
		fields, size := layout(test.ours)
		i := 0
		for _, m := range theirs.Members {
			if test.padded[m.Name] {
				continue
			}
			n, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			if i >= len(fields) || fields[i] != [2]int{int(m.Offset.Bytes()), n} {
				t.Errorf("%s.%s is at %d with %d bytes in C; field %d in Go differs", test.name, m.Name, m.Offset.Bytes(), n, i)
			}
			i++
		}
		if i != len(fields) || size != int(theirs.Size) {
			t.Errorf("%s: %d fields and %d bytes in C, %d and %d in Go", test.name, i, theirs.Size, len(fields), size)
		}
	}
}
