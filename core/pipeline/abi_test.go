package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// abi reads the type that gathers all of bpf/abi.h from an object's BTF.
func abi(t *testing.T) (*ebpf.CollectionSpec, *btf.Struct) {
	t.Helper()
	spec, err := bpf.LoadCgroup()
	if err != nil {
		t.Fatal(err)
	}
	var s *btf.Struct
	if err := spec.Types.TypeByName("abi", &s); err != nil {
		t.Fatal(err)
	}
	return spec, s
}

func member(t *testing.T, s *btf.Struct, name string) btf.Member {
	t.Helper()
	for _, m := range s.Members {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("struct %s has no member %s", s.Name, name)
	return btf.Member{}
}

func TestOffsetsAreThoseOfTheHeader(t *testing.T) {
	_, all := abi(t)
	for path, want := range map[string]int{
		"header.time_ns": offTime, "header.cgroup_id": offCgroup, "header.threshold": offThreshold,
		"header.random": offRandom, "header.start_ns": offStart, "header.euid": offEUID, "header.row": offRow, "header.generation": offGeneration, "header.kind": offKind,
		"header.priority": offPriority, "header.flags": offFlags, "header.pid": offPID,
		"header.tid": offTID, "header.ns_pid": offNSPID, "header.ns_tid": offNSTID,
		"header.uid": offUID, "header.pidns": offPIDNS, "header.mntns": offMountNS,
		"header.netns": offNetNS, "header.comm": offComm, "header.parent_pid": offParent,
		"fork.parent_tid": 0, "fork.parent_ns_pid": 4,
		"exec.path_len": 0, "exec.args_len": 2,
		"exit.duration_ns": 0, "exit.code": 8, "exit.signal": 12,
		"network.cookie": 0, "network.duration_ns": 8, "network.sent_bytes": 16,
		"network.received_bytes": 24, "network.local_addr": 32, "network.peer_addr": 48,
		"network.local_port": 64, "network.peer_port": 66, "network.family": 68,
		"network.error": 70, "network.backlog": 72,
		"open.open_flags": 0, "open.result": 4, "open.dirfd": 8, "open.path_len": 12,
		"cgroup.level": 0, "cgroup.path_len": 4,
		"reader.mode": 0, "reader.watermark": 4,
	} {
		outer, field, _ := strings.Cut(path, ".")
		s, ok := btf.UnderlyingType(member(t, all, outer).Type).(*btf.Struct)
		if !ok {
			t.Fatalf("%s is no struct", outer)
		}
		if got := int(member(t, s, field).Offset.Bytes()); got != want {
			t.Errorf("%s is at %d in abi.h, at %d in Go", path, got, want)
		}
	}
	for name, want := range map[string]int{
		"header": headerSize, "fork": forkSize, "exec": execSize, "exit": exitSize,
		"network": networkSize, "open": openSize, "cgroup": cgroupSize, "reader": 64,
	} {
		got, err := btf.Sizeof(member(t, all, name).Type)
		if err != nil || got != want {
			t.Errorf("struct event_%s has %d bytes in abi.h (%v), %d in Go", name, got, err, want)
		}
	}
}

func TestNumbersAreThoseOfTheHeader(t *testing.T) {
	_, all := abi(t)
	for _, c := range []struct {
		member, prefix string
		want           map[string]uint64
		count          string
	}{
		{"kind", "EVENT_", names(int(event.KernelKinds), func(i int) string { return event.Kind(i).String() }), "EVENT_KINDS"},
		{"priority", "PRIORITY_", names(int(event.Priorities), func(i int) string { return event.Priority(i).String() }), "PRIORITIES"},
		{"flag", "FLAG_", map[string]uint64{
			"ARGS_TRUNCATED": uint64(event.ArgsTruncated), "PATH_TRUNCATED": uint64(event.PathTruncated),
			"OWNER_UNKNOWN": uint64(event.OwnerUnknown), "OWNER_LISTENER": uint64(event.OwnerListener),
			"CORE_DUMPED": uint64(event.CoreDumped), "UNREADABLE": uint64(event.Unreadable),
			"PATH_DETACHED": uint64(event.PathDetached), "PATH_DELETED": uint64(event.PathDeleted),
		}, ""},
	} {
		enum, ok := btf.UnderlyingType(member(t, all, c.member).Type).(*btf.Enum)
		if !ok {
			t.Fatalf("%s is no enum", c.member)
		}
		got := map[string]uint64{}
		for _, v := range enum.Values {
			if v.Name == c.count {
				if int(v.Value) != len(c.want) {
					t.Errorf("%s is %d in abi.h, %d in Go", v.Name, v.Value, len(c.want))
				}
				continue
			}
			got[strings.TrimPrefix(v.Name, c.prefix)] = v.Value
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: abi.h has %v, Go %v", c.member, got, c.want)
		}
	}
}

func names(n int, name func(int) string) map[string]uint64 {
	out := map[string]uint64{}
	for i := range n {
		out[strings.ToUpper(strings.ReplaceAll(name(i), ".", "_"))] = uint64(i)
	}
	return out
}
