// Package kernel owns the kernel side: it loads and attaches the probes, reads
// the rings, swaps the decision table and keeps the kernel's part of the ledger.
//
// It is the only user of cilium/ebpf and of package bpf. It hands out raw
// records, by bytes, and takes probabilities, by row; it knows neither
// containers nor plugins nor exporters. It never blocks a program: the programs
// only ever write into maps that it has made beforehand.
package kernel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	random "math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
)

var (
	// ErrNotPermitted says that the process may not load programs.
	ErrNotPermitted = errors.New("not permitted to load BPF programs: run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_PTRACE")
	// ErrNoBTF says that the kernel does not describe its types.
	ErrNoBTF = errors.New("this kernel has no BTF (/sys/kernel/btf/vmlinux): the tracer needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian 11, Ubuntu 20.10, RHEL 8.2 and later are")
	// ErrNoProbe says that not one program could be attached.
	ErrNoProbe = errors.New("no probe could be attached")
	// ErrDetached says that the programs have been ended for good.
	ErrDetached = errors.New("the probes have been detached")
)

// Options of Load.
type Options struct {
	Probes    []string // of ProbeNames, to begin with; "cgroup" is always added
	RingBytes int      // of each ring: a power of two, at least a page
	Rings     int      // 0: one for each NUMA node
	NoArgs    bool     // the arguments of an exec are not even read
	// Tracepoints has opens told by their tracepoints, although this kernel may take what
	// costs less: to compare.
	Tracepoints bool
	// Prepare sets what is to hold for the first event: a budget, filters. It is called
	// before anything is attached; nil: nothing is set. Load fails with its error.
	Prepare func(*Kernel) error
}

// Kernel is the loaded kernel side. Its methods may be called at the same time,
// but for Read, which is for one goroutine.
type Kernel struct {
	rings   []*ring
	readers readerStates
	faults  *ebpf.Map
	policy  *policyMaps
	valve   *valve
	groups  *groupRows
	states  *cgroupStates
	shares  *shares
	filters *filterMaps
	loader  loader
	alarm   atomic.Pointer[alarm] // while Read runs
	ticking atomic.Bool           // it comes by itself within a tick

	changing sync.Mutex // one probe is attached or detached at a time
	noArgs   bool
	ended    bool // by Detach

	mu      sync.Mutex
	probes  []*probe
	skipped uint64 // of probes that are detached
}

// Check says in a sentence what stands against tracing on this host, or nil.
func Check() error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return ErrNoBTF
	}
	if os.Geteuid() != 0 {
		// Without root the capabilities decide, and the first map tells.
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
		if errors.Is(err, os.ErrPermission) {
			return ErrNotPermitted
		}
		if err == nil {
			m.Close()
		}
	}
	return nil
}

// Load makes the maps, loads the programs of the probes and attaches them. A
// program that this kernel can't take is reported in Probes and left out; Load
// fails when nothing could be attached. Events are kept from the moment it
// returns, at the probability 1, but for what Options.Prepare has set.
func Load(o Options) (*Kernel, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	// Kernels before 5.11 charge maps to the locked memory of the process.
	if err := rlimit.RemoveMemlock(); err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	k := &Kernel{noArgs: o.NoArgs}
	if err := k.load(o, ringOfCPU(cpus, o.Rings)); err != nil {
		return nil, notPermitted(errors.Join(err, k.Close()))
	}
	return k, nil
}

// notPermitted says what is missing, where it is a permission.
func notPermitted(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (%w)", ErrNotPermitted, err)
	}
	return err
}

func (k *Kernel) load(o Options, nodes ringMap) error {
	var word [8]byte
	if _, err := rand.Read(word[:]); err != nil {
		return fmt.Errorf("draw a seed: %w", err)
	}
	self, err := hostPID()
	if err != nil {
		return err
	}
	k.loader = loader{rings: nodes.count, ringBytes: o.RingBytes, functions: sync.OnceValue(callsHaveFunctions), constants: map[string]any{
		"self_tgid":   self,
		"seed":        binary.NativeEndian.Uint64(word[:]),
		"ring_count":  uint32(nodes.count),
		"ring_of_cpu": nodes.of,
		"ring_high":   uint64(o.RingBytes) / 4 * 3,
	}}
	if o.Tracepoints {
		k.loader.functions = func() bool { return false }
	}
	k.loader.cpus, err = ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the CPUs: %w", err)
	}
	if err := k.makeMaps(); err != nil {
		return err
	}
	// First all are loaded, which takes its time, and then all are attached: the
	// kinds of events begin together, and what comes meanwhile fits into a ring.
	for _, name := range append([]string{cgroupProbe}, o.Probes...) {
		p, err := k.loader.load(name)
		if err != nil {
			return err
		}
		k.probes = append(k.probes, p)
		if err := k.setArgs(p); err != nil {
			return err
		}
	}
	if o.Prepare != nil {
		if err := o.Prepare(k); err != nil {
			return err
		}
	}
	attached := 0
	reasons := []error{ErrNoProbe}
	for _, p := range k.probes {
		k.loader.attach(p)
		reasons = append(reasons, p.why())
		if p.Name != cgroupProbe {
			attached += len(p.Programs)
		}
	}
	if attached == 0 && len(o.Probes) > 0 {
		return errors.Join(reasons...)
	}
	return nil
}

// makeMaps makes the maps that probes have in common.
func (k *Kernel) makeMaps() error {
	l := &k.loader
	spec, err := l.spec(cgroupProbe) // they are the same in all
	if err != nil {
		return err
	}
	l.common = map[string]*ebpf.Map{}
	for _, name := range []string{"rings", "readers", "faults", "valve", "groups", "cgroups", "cgroup_owners", "shares",
		"filters", "filter_comms", "filter_numbers", "filter_peers", "filter_hits"} {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return fmt.Errorf("make map %s: %w", name, err)
		}
		l.common[name] = m
	}
	k.groups = newGroupRows(l.common["groups"])
	if k.states, err = newCgroupStates(l.common, true); err != nil {
		return err
	}
	if k.shares, err = newShares(l.common["shares"]); err != nil {
		return err
	}
	if k.valve, err = newValve(l.common["valve"]); err != nil {
		return err
	}
	k.filters = newFilterMaps(l.common, l.cpus, k.valve, k.states)
	if k.policy, err = newPolicyMaps(spec.Maps["policy"], k.groups, k.valve, random.Uint64); err != nil {
		return err
	}
	l.common["policy"] = k.policy.outer
	k.faults = l.common["faults"]
	for i := range l.rings {
		r, err := newRing(spec.Maps["rings"].InnerMap)
		if err != nil {
			return fmt.Errorf("make ring %d: %w", i, err)
		}
		k.rings = append(k.rings, r)
		if err := l.common["rings"].Update(uint32(i), r.m, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("place ring %d: %w", i, err)
		}
	}
	k.readers, err = newReaderStates(l.common["readers"], l.rings, l.ringBytes)
	return err
}

// hostPID is the tracer's pid as the programs see it: in the first pid namespace,
// which need not be its own.
func hostPID() (uint32, error) {
	spec, err := bpf.LoadCgroup()
	if err != nil {
		return 0, fmt.Errorf("read probe cgroup: %w", err)
	}
	p, err := ebpf.NewProgram(spec.Programs["self"])
	if err != nil {
		return 0, fmt.Errorf("load the program that tells the tracer's pid: %w", err)
	}
	defer p.Close()
	pid, err := p.Run(&ebpf.RunOptions{})
	if err != nil {
		return 0, fmt.Errorf("ask for the tracer's pid: %w", err)
	}
	return pid, nil
}

// Probes tells what was attached and what was not, in the order in which they
// were.
func (k *Kernel) Probes() []Probe {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]Probe, 0, len(k.probes))
	for _, p := range k.probes {
		out = append(out, p.clone())
	}
	return out
}

// AttachProbe loads a probe and attaches it beside the others, which notice
// nothing of it. A part of it that this kernel can't take is reported in Probes;
// when it is all of it, or anything else goes wrong, nothing has changed. A probe
// that is there already stays as it is.
func (k *Kernel) AttachProbe(name string) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	if k.ended {
		return fmt.Errorf("attach probe %s: %w", name, ErrDetached)
	}
	if k.probe(name) != nil {
		return nil
	}
	p, err := k.loader.load(name)
	if err != nil {
		return fmt.Errorf("attach probe %s: %w", name, notPermitted(err))
	}
	if err := k.setArgs(p); err != nil {
		return fmt.Errorf("attach probe %s: %w", name, errors.Join(err, p.free()))
	}
	k.loader.attach(p)
	if len(p.Programs) == 0 {
		return fmt.Errorf("attach probe %s: %w", name, errors.Join(ErrNoProbe, p.why(), p.free()))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probes = append(k.probes, p)
	return nil
}

// DetachProbe ends the programs of one probe and frees what only they use. What
// they told stays in the rings and in the ledger, and the other probes notice
// nothing of it. A probe that is not there is no error.
func (k *Kernel) DetachProbe(name string) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	if name == cgroupProbe {
		return fmt.Errorf("detach probe %s: attribution needs it", name)
	}
	p := k.probe(name)
	if p == nil {
		return nil
	}
	if err := k.end(p); err != nil {
		return fmt.Errorf("detach probe %s: %w", name, err)
	}
	return nil
}

// probe finds one by its name, nil if it is not there.
func (k *Kernel) probe(name string) *probe {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.probes, func(p *probe) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return k.probes[i]
}

// end detaches probes, and takes them out when none of their programs runs any
// more and their counts are final. With changing.
func (k *Kernel) end(probes ...*probe) error {
	var errs []error
	for _, p := range probes {
		errs = append(errs, p.detach())
	}
	if k.policy != nil {
		errs = append(errs, k.policy.settle())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range probes {
		k.skipped += p.skippedRuns()
		errs = append(errs, p.free())
	}
	k.probes = slices.DeleteFunc(k.probes, func(p *probe) bool { return slices.Contains(probes, p) })
	return errors.Join(errs...)
}

// ReadArgs says whether the arguments of an exec are read, from the next exec on.
func (k *Kernel) ReadArgs(read bool) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	before := k.noArgs
	k.noArgs = !read
	p := k.probe("process")
	if p == nil {
		return nil // for when it is attached
	}
	if err := k.setArgs(p); err != nil {
		k.noArgs = before
		return err
	}
	return nil
}

// setArgs tells a probe whether to read arguments. With changing.
func (k *Kernel) setArgs(p *probe) error {
	m := p.maps["exec_options"]
	if m == nil {
		return nil // it knows no arguments
	}
	var read uint32
	if !k.noArgs {
		read = 1
	}
	if err := m.Put(uint32(0), read); err != nil {
		return fmt.Errorf("say whether arguments are read: %w", err)
	}
	return nil
}

// Detach ends all programs, for good. The rings and the ledger can be read on;
// once Read has drained the rings the ledger is exact.
func (k *Kernel) Detach() error {
	k.changing.Lock()
	defer k.changing.Unlock()
	if k.ended {
		return nil
	}
	k.ended = true
	k.mu.Lock()
	all := slices.Clone(k.probes)
	k.mu.Unlock()
	return k.end(all...)
}

// Close detaches and frees everything. Read must have returned.
func (k *Kernel) Close() error {
	errs := []error{k.Detach()}
	for _, r := range k.rings {
		errs = append(errs, r.close())
	}
	errs = append(errs, k.readers.close(), k.valve.close(), k.states.close(), k.shares.close())
	for name, m := range k.loader.common {
		if name != "policy" { // its owner closes it
			errs = append(errs, m.Close())
		}
	}
	if k.policy != nil {
		errs = append(errs, k.policy.close())
	}
	runtime.KeepAlive(k)
	return errors.Join(errs...)
}

// SkippedRuns is how often the kernel left a program out because it was
// already running on that CPU: events that not even `seen` counts.
func (k *Kernel) SkippedRuns() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.skipped
	for _, p := range k.probes {
		n += p.skippedRuns()
	}
	return n
}

// Faults are the counts of what went wrong inside the programs, by name.
func (k *Kernel) Faults() (map[string]uint64, error) {
	out := make(map[string]uint64, len(faultNames))
	for i, name := range faultNames {
		var perCPU []uint64
		if err := k.faults.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read faults: %w", err)
		}
		for _, n := range perCPU {
			out[name] += n
		}
	}
	return out, nil
}

// The order is that of enum fault in bpf/abi.h.
var faultNames = [...]string{
	"no_policy", "no_scratch", "no_socket_storage", "connects", "owners",
	"no_task_storage", "no_cgroup_state",
}
