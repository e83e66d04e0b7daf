package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
)

// ProbeNames are the probes that a configuration can name.
func ProbeNames() []string { return []string{"process", "network", "file"} }

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

var specs = map[string]func() (*ebpf.CollectionSpec, error){
	"process": bpf.LoadProcess,
	"network": bpf.LoadNetwork,
	"file":    bpf.LoadFile,
	"cgroup":  bpf.LoadCgroup,
}

// loader loads programs one at a time, each with the maps that it uses: a map or
// a program that the kernel does not know must not take the others down.
type loader struct {
	kernel    *Kernel
	constants map[string]any
	rings     int
	ringBytes int
}

// loading is a probe whose programs are loaded and not yet attached.
type loading struct {
	Probe
	programs []loadedProgram
}

type loadedProgram struct {
	spec *ebpf.ProgramSpec
	*ebpf.Program
}

// load loads the programs of a probe. Those that this kernel can't take are in
// Failed.
func (l *loader) load(name string) (*loading, error) {
	p := &loading{Probe: Probe{Name: name}}
	load, ok := specs[name]
	if !ok {
		return p, fmt.Errorf("no probe is named %q", name)
	}
	spec, err := load()
	if err != nil {
		return p, fmt.Errorf("read probe %s: %w", name, err)
	}
	for _, s := range []struct {
		name string
		of   *ebpf.MapSpec
		n    int
	}{{"rings", spec.Maps["rings"], l.rings}, {"readers", spec.Maps["readers"], l.rings}} {
		s.of.MaxEntries = uint32(s.n)
	}
	spec.Maps["rings"].InnerMap.MaxEntries = uint32(l.ringBytes)
	if err := l.sharedMaps(spec); err != nil {
		return p, err
	}
	for name, v := range l.constants {
		if spec.Variables[name] == nil {
			continue // not used by this probe
		}
		if err := spec.Variables[name].Set(v); err != nil {
			return p, fmt.Errorf("set %s: %w", name, err)
		}
	}
	for _, program := range wanted(name, spec) {
		one, err := l.program(spec, program)
		if err != nil {
			if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
				return p, err
			}
			p.Failed = append(p.Failed, Failure{Program: program, Reason: err})
			continue
		}
		p.programs = append(p.programs, one)
	}
	return p, nil
}

// attach attaches what was loaded of a probe.
func (l *loader) attach(p *loading) Probe {
	for _, one := range p.programs {
		attached, err := attach(one.spec, one.Program)
		if err != nil {
			p.Failed = append(p.Failed, Failure{Program: one.spec.Name, Reason: fmt.Errorf("attach: %w", err)})
			continue
		}
		l.kernel.mu.Lock()
		l.kernel.links = append(l.kernel.links, attached)
		l.kernel.mu.Unlock()
		p.Programs = append(p.Programs, one.spec.Name)
	}
	return p.Probe
}

// sharedMaps makes the maps that probes and programs have in common, once.
func (l *loader) sharedMaps(spec *ebpf.CollectionSpec) error {
	k := l.kernel
	if k.policy != nil {
		return nil
	}
	var err error
	if k.policy, err = newPolicyMaps(spec.Maps["policy"]); err != nil {
		return err
	}
	for _, name := range []string{"rings", "readers", "faults"} {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make map %s: %w", name, err)
		}
		k.shared[name] = m
	}
	k.faults = k.shared["faults"]
	for i := range l.rings {
		r, err := newRing(spec.Maps["rings"].InnerMap)
		if err != nil {
			return fmt.Errorf("make ring %d: %w", i, err)
		}
		k.rings = append(k.rings, r)
		if err := k.shared["rings"].Update(uint32(i), r.m, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("place ring %d: %w", i, err)
		}
	}
	if k.readers, err = newReaderStates(k.shared["readers"], l.rings, l.ringBytes); err != nil {
		return err
	}
	return nil
}

// wanted are the programs of a probe that fit this kernel, in a stable order.
func wanted(probe string, spec *ebpf.CollectionSpec) []string {
	switch probe {
	case "cgroup":
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

// program loads one program, which ends with the Kernel.
func (l *loader) program(spec *ebpf.CollectionSpec, name string) (loadedProgram, error) {
	one := spec.Copy()
	program := one.Programs[name]
	if program == nil {
		return loadedProgram{}, errors.New("the object has no such program")
	}
	one.Programs = map[string]*ebpf.ProgramSpec{name: program}
	used := map[string]bool{}
	for i := range program.Instructions {
		if ins := &program.Instructions[i]; ins.IsLoadFromMap() {
			used[ins.Reference()] = true
		}
	}
	replace := map[string]*ebpf.Map{}
	for m := range one.Maps {
		switch {
		case !used[m]:
			delete(one.Maps, m)
		case m == "policy":
			replace[m] = l.kernel.policy.outer
		case l.kernel.shared[m] != nil:
			replace[m] = l.kernel.shared[m]
		}
	}
	c, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return loadedProgram{}, loadError(err)
	}
	defer c.Close()
	// The maps of a probe are shared by its programs, and end with the Kernel.
	for m := range one.Maps {
		if replace[m] == nil && !strings.HasPrefix(m, ".") {
			l.kernel.shared[m] = c.Maps[m]
			delete(c.Maps, m)
		}
	}
	p := c.Programs[name]
	delete(c.Programs, name)
	l.kernel.mu.Lock()
	defer l.kernel.mu.Unlock()
	l.kernel.loaded = append(l.kernel.loaded, p)
	return loadedProgram{spec: program, Program: p}, nil
}

func attach(spec *ebpf.ProgramSpec, p *ebpf.Program) (link.Link, error) {
	if call, ok := strings.CutPrefix(spec.SectionName, "tracepoint/"); ok {
		return attachTracepoint(call, p)
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}

// loadError keeps the end of a verifier's log, where the reason stands.
func loadError(err error) error {
	var ve *ebpf.VerifierError
	if !errors.As(err, &ve) {
		return fmt.Errorf("load: %w", err)
	}
	log := ve.Log
	if n := len(log) - 6; n > 0 {
		log = log[n:]
	}
	return fmt.Errorf("load: %w: %s", ve.Cause, strings.Join(log, " | "))
}
