package kernel

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
)

// ProbeNames are the probes that a configuration can name.
func ProbeNames() []string { return []string{"process", "network", "file"} }

// cgroupProbe is always there: attribution stands on it.
const cgroupProbe = "cgroup"

// Probe is what became of one probe.
type Probe struct {
	Name     string
	Programs []string // attached
	Failed   []Failure
}

// Failure is a program that this kernel can't take.
type Failure struct {
	Program string
	Reason  error
}

// State is "attached", "partial" or "unavailable".
func (p Probe) State() string {
	switch {
	case len(p.Programs) == 0:
		return "unavailable"
	case len(p.Failed) > 0:
		return "partial"
	}
	return "attached"
}

// Reason is a sentence about the programs that failed, "" when none did.
func (p Probe) Reason() string {
	parts := make([]string, 0, len(p.Failed))
	for _, f := range p.Failed {
		parts = append(parts, f.Program+": "+f.Reason.Error())
	}
	return strings.Join(parts, "; ")
}

// clone is a copy that changes no more.
func (p Probe) clone() Probe {
	p.Programs, p.Failed = slices.Clone(p.Programs), slices.Clone(p.Failed)
	return p
}

var specs = map[string]func() (*ebpf.CollectionSpec, error){
	"process":   bpf.LoadProcess,
	"network":   bpf.LoadNetwork,
	"file":      bpf.LoadFile,
	cgroupProbe: bpf.LoadCgroup,
}

// wanted are the programs of a probe that fit this kernel, in a stable order.
func wanted(probe string, spec *ebpf.CollectionSpec) []string {
	switch probe {
	case cgroupProbe:
		return []string{"cgroup_create", "cgroup_remove"}
	case "process":
		if exitTellsLastThread() {
			return []string{"process_fork", "process_exec", "process_exit"}
		}
		return []string{"process_fork", "process_exec", "process_exit_marked"}
	case "network":
		return []string{"network_state", "network_accept", "network_accept4", "network_connect_exit"}
	case "file":
		names := []string{"file_openat", "file_openat2"}
		for _, n := range []string{"file_open", "file_creat"} { // amd64 alone has them
			if spec.Programs[n] != nil {
				names = append(names, n)
			}
		}
		return names
	}
	return nil
}

// exitTellsLastThread: whether the tracepoint of an exit says if it was the last
// thread's.
func exitTellsLastThread() bool {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return false
	}
	var t *btf.Typedef
	if types.TypeByName("btf_trace_sched_process_exit", &t) != nil {
		return false
	}
	pointer, ok := t.Type.(*btf.Pointer)
	if !ok {
		return false
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	return ok && len(proto.Params) > 2 // data, task, group_dead
}
