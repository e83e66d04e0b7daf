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
	"os"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
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
)

// Options of Load.
type Options struct {
	Probes    []string // of ProbeNames; "cgroup" is always added
	RingBytes int      // of each ring: a power of two, at least a page
	Rings     int      // 0: one for each NUMA node
	NoArgs    bool     // the arguments of an exec are not even read
}

// Kernel is the loaded kernel side. Its methods may be called at the same time,
// but for Read, which is for one goroutine.
type Kernel struct {
	rings   []*ring
	readers readerStates
	faults  *ebpf.Map
	policy  *policyMaps
	probes  []Probe
	shared  map[string]*ebpf.Map

	mu      sync.Mutex
	links   []link.Link // kept referenced: a link that is collected detaches
	loaded  []*ebpf.Program
	skipped uint64 // of programs that are detached
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
// returns, at the probability 1.
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
	nodes := ringOfCPU(cpus, o.Rings)
	k := &Kernel{shared: map[string]*ebpf.Map{}}
	if err := k.load(o, nodes); err != nil {
		err = errors.Join(err, k.Close())
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("%w (%w)", ErrNotPermitted, err)
		}
		return nil, err
	}
	return k, nil
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
	constants := map[string]any{
		"self_tgid":   self,
		"seed":        binary.NativeEndian.Uint64(word[:]),
		"ring_count":  uint32(nodes.count),
		"ring_of_cpu": nodes.of,
		"exec_args":   uint8(1),
	}
	if o.NoArgs {
		constants["exec_args"] = uint8(0)
	}
	loader := &loader{kernel: k, constants: constants, rings: nodes.count, ringBytes: o.RingBytes}
	// First all are loaded, which takes its time, and then all are attached: the
	// kinds of events begin together, and what comes meanwhile fits into a ring.
	probes := make([]*loading, 0, len(o.Probes)+1)
	for _, name := range append([]string{"cgroup"}, o.Probes...) {
		p, err := loader.load(name)
		if err != nil {
			return err
		}
		probes = append(probes, p)
	}
	attached := 0
	for _, p := range probes {
		k.probes = append(k.probes, loader.attach(p))
		if p.Name != "cgroup" {
			attached += len(p.Programs)
		}
	}
	if attached == 0 && len(o.Probes) > 0 {
		reasons := make([]error, 0, len(k.probes)+1)
		reasons = append(reasons, ErrNoProbe)
		for _, p := range k.probes {
			for _, f := range p.Failed {
				reasons = append(reasons, fmt.Errorf("%s: %w", f.Program, f.Reason))
			}
		}
		return errors.Join(reasons...)
	}
	return nil
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

// Probes tells what was attached and what was not.
func (k *Kernel) Probes() []Probe { return k.probes }

// Detach ends all programs. The rings and the ledger can be read on; once Read
// has drained the rings the ledger is exact.
func (k *Kernel) Detach() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, l := range k.links {
		errs = append(errs, l.Close())
	}
	if k.links != nil {
		// A program may still be running on another CPU.
		errs = append(errs, k.policy.settle())
	}
	k.links = nil
	k.skipped += skippedRuns(k.loaded)
	for _, p := range k.loaded {
		errs = append(errs, p.Close())
	}
	k.loaded = nil
	return errors.Join(errs...)
}

// Close detaches and frees everything. Read must have returned.
func (k *Kernel) Close() error {
	errs := []error{k.Detach()}
	for _, r := range k.rings {
		errs = append(errs, r.close())
	}
	errs = append(errs, k.readers.close())
	for _, m := range k.shared {
		errs = append(errs, m.Close())
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
	return k.skipped + skippedRuns(k.loaded)
}

func skippedRuns(programs []*ebpf.Program) (n uint64) {
	for _, p := range programs {
		if s, err := p.Stats(); err == nil {
			n += s.RecursionMisses
		}
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
	"no_task_storage",
}
