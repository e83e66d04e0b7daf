package kernel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// loader loads the programs of a probe together, which has the kernel's types read
// once, or where that fails one at a time, each with the maps that it uses: a map or
// a program that the kernel does not know must not take the others down.
type loader struct {
	constants map[string]any
	rings     int
	ringBytes int
	cpus      int                  // that a map has a value for
	functions func() bool          // system calls may be told by their functions
	common    map[string]*ebpf.Map // what the probes have in common, the Kernel's
}

// program is one that is loaded.
type program struct {
	*ebpf.Program
	name, section string
}

// probe is one whose programs are loaded, and attached or not yet. What it keeps
// between two events is its own and goes with it: a probe that is attached again
// begins anew, and a detached one costs nothing.
type probe struct {
	Probe
	programs []program
	maps     map[string]*ebpf.Map
	links    []link.Link // kept referenced: a link that is collected detaches
}

// spec reads a probe's programs and maps, as they are to be loaded here.
func (l *loader) spec(name string) (*ebpf.CollectionSpec, error) {
	read, ok := specs[name]
	if !ok {
		return nil, fmt.Errorf("no probe is named %q", name)
	}
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read probe %s: %w", name, err)
	}
	for _, m := range []string{"rings", "readers"} {
		spec.Maps[m].MaxEntries = uint32(l.rings)
	}
	spec.Maps["rings"].InnerMap.MaxEntries = uint32(l.ringBytes)
	sized(spec.Maps["policy"], l.cpus)
	sizedGroups(spec.Maps["groups"])
	if err := sizedCgroups(spec, cgroupPlaces); err != nil {
		return nil, err
	}
	for name, v := range l.constants {
		if spec.Variables[name] == nil {
			continue // not used by this probe
		}
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return spec, nil
}

// load loads the programs of a probe. Those that this kernel can't take are in
// Failed. After an error nothing of it is left.
func (l *loader) load(name string) (*probe, error) {
	spec, err := l.spec(name)
	if err != nil {
		return nil, err
	}
	p := &probe{Probe: Probe{Name: name}, maps: map[string]*ebpf.Map{}}
	names := wanted(name, spec)
	if better := ofFunctions(spec, names); !slices.Equal(better, names) && l.functions() {
		names = better
	}
	if l.programs(p, spec, names...) == nil {
		return p, nil
	}
	for _, program := range names {
		err := l.programs(p, spec, program)
		if other := ofTracepoint(program); err != nil && other != program {
			program, err = other, both(err, l.programs(p, spec, other))
		}
		if err != nil {
			if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
				return nil, errors.Join(err, p.free())
			}
			p.Failed = append(p.Failed, Failure{Program: program, Reason: err})
		}
	}
	return p, nil
}

// programs loads programs of a probe, all or none.
func (l *loader) programs(p *probe, spec *ebpf.CollectionSpec, names ...string) error {
	some := spec.Copy()
	some.Programs = map[string]*ebpf.ProgramSpec{}
	used := map[string]bool{}
	for _, name := range names {
		one := spec.Programs[name].Copy()
		if one == nil {
			return errors.New("the object has no such program")
		}
		some.Programs[name] = one
		for i := range one.Instructions {
			if ins := &one.Instructions[i]; ins.IsLoadFromMap() {
				used[ins.Reference()] = true
			}
		}
	}
	there := maps.Clone(l.common)
	maps.Copy(there, p.maps)
	maps.DeleteFunc(some.Maps, func(m string, _ *ebpf.MapSpec) bool { return !used[m] })
	maps.DeleteFunc(there, func(m string, _ *ebpf.Map) bool { return some.Maps[m] == nil })
	c, err := ebpf.NewCollectionWithOptions(some, ebpf.CollectionOptions{MapReplacements: there})
	if err != nil {
		return loadError(err)
	}
	defer c.Close()
	for m := range some.Maps {
		if there[m] == nil && !strings.HasPrefix(m, ".") {
			p.maps[m] = c.Maps[m] // the probe's other programs share it
			delete(c.Maps, m)
		}
	}
	for _, name := range names {
		p.programs = append(p.programs, program{Program: c.Programs[name], name: name, section: some.Programs[name].SectionName})
		delete(c.Programs, name)
	}
	return nil
}

// attach attaches what was loaded of a probe. What can't be is in Failed.
func (l *loader) attach(p *probe) {
	for i := range p.programs {
		one := &p.programs[i]
		attached, err := one.attach()
		if other := ofTracepoint(one.name); err != nil && other != one.name {
			first := err
			attached, err = l.attachInstead(p, one, other)
			err = both(first, err)
		}
		if err != nil {
			p.Failed = append(p.Failed, Failure{Program: ofTracepoint(one.name), Reason: fmt.Errorf("attach: %w", err)})
			continue
		}
		p.links = append(p.links, attached)
		p.Programs = append(p.Programs, one.name)
	}
}

// both is what stands against two ways to the same: nothing, where the second can be gone.
func both(first, second error) error {
	if second == nil {
		return nil
	}
	return errors.Join(first, second)
}

// attachInstead puts another program of the probe in the place of one that can't be attached.
func (l *loader) attachInstead(p *probe, one *program, name string) (link.Link, error) {
	spec, err := l.spec(p.Name)
	if err != nil {
		return nil, err
	}
	var other probe
	other.maps = p.maps
	if err := l.programs(&other, spec, name); err != nil {
		return nil, err
	}
	err = one.Close()
	*one = other.programs[0]
	if err != nil {
		return nil, err
	}
	return one.attach()
}

func (p program) attach() (link.Link, error) {
	if call, ok := strings.CutPrefix(p.section, "tracepoint/"); ok {
		return attachTracepoint(call, p.Program)
	}
	return link.AttachTracing(link.TracingOptions{Program: p.Program})
}

// detach ends the programs. One may still be running on another CPU. The kernel
// waits a while for each, so they end side by side.
func (p *probe) detach() error {
	errs := make([]error, len(p.links))
	var closing sync.WaitGroup
	for i, l := range p.links {
		closing.Go(func() { errs[i] = l.Close() })
	}
	closing.Wait()
	p.links = nil
	return errors.Join(errs...)
}

// skippedRuns is how often the kernel left the probe's programs out.
func (p *probe) skippedRuns() (n uint64) {
	for _, one := range p.programs {
		if s, err := one.Stats(); err == nil {
			n += s.RecursionMisses
		}
	}
	return n
}

// free gives back what the probe holds, detached.
func (p *probe) free() error {
	errs := []error{p.detach()}
	for _, one := range p.programs {
		errs = append(errs, one.Close())
	}
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	p.programs, p.maps = nil, nil
	return errors.Join(errs...)
}

// why is what stands against each program that is not attached.
func (p *probe) why() error {
	reasons := make([]error, 0, len(p.Failed))
	for _, f := range p.Failed {
		reasons = append(reasons, fmt.Errorf("%s: %w", f.Program, f.Reason))
	}
	return errors.Join(reasons...)
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
