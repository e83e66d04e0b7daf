package kernel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/bpf"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// SimulatorBatch is how many trials are decided together at most: BATCH.
const SimulatorBatch = 16384

// simulatorPlaces is for how many cgroups there is room: they are never removed.
const simulatorPlaces = 1 << 18

// Trial is an event that never happened and, once decided, what became of it: struct
// trial of bpf/simulate.bpf.c.
type Trial struct {
	TimeNS    uint64 // virtual, never falling
	Number    uint64 // what its life drew; 0: a fresh draw
	CgroupID  uint64 // 0: none
	Kind      event.Kind
	Priority  event.Priority
	CPU       uint8 // below CPUs
	Row       uint32
	Threshold uint64 // as in an event
	Kept      uint64 // 1: kept
}

// Simulator decides about trials by the programs' own decision, at the trials' own
// time. It attaches to nothing. For one goroutine.
type Simulator struct {
	program *ebpf.Program
	maps    map[string]*ebpf.Map
	page    []byte
	trials  []Trial
	policy  *policyMaps
	valve   *valve
	groups  *groupRows
	states  *cgroupStates
	shares  *shares
}

// NewSimulator makes one whose draws follow from seed. cpus is the number of CPUs
// that the trials come on.
func NewSimulator(seed uint64, cpus int) (_ *Simulator, err error) {
	if err := Check(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, notPermitted(fmt.Errorf("raise the limit of locked memory: %w", err))
	}
	spec, err := bpf.LoadSimulate()
	if err != nil {
		return nil, fmt.Errorf("read the simulator: %w", err)
	}
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	if cpus > possible {
		return nil, fmt.Errorf("simulate %d CPUs: this machine has %d", cpus, possible)
	}
	sized(spec.Maps["policy"], possible)
	sizedGroups(spec.Maps["groups"])
	if err := sizedCgroups(spec, simulatorPlaces); err != nil {
		return nil, err
	}
	s := &Simulator{maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			err = notPermitted(errors.Join(err, s.Close()))
		}
	}()
	for _, name := range []string{"groups", "valve", "cgroups", "cgroup_owners", "shares", "trials"} {
		if s.maps[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return nil, fmt.Errorf("make map %s: %w", name, err)
		}
	}
	s.groups = newGroupRows(s.maps["groups"])
	if s.states, err = newCgroupStates(s.maps, false); err != nil {
		return nil, err
	}
	if s.shares, err = newShares(s.maps["shares"]); err != nil {
		return nil, err
	}
	if s.valve, err = newValve(s.maps["valve"]); err != nil {
		return nil, err
	}
	if s.policy, err = newPolicyMaps(spec.Maps["policy"], s.groups, s.valve, rand.New(rand.NewPCG(seed, 0)).Uint64); err != nil {
		return nil, err
	}
	s.policy.active = cpus
	replace := map[string]*ebpf.Map{"policy": s.policy.outer}
	for name, m := range s.maps {
		replace[name] = m
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, loadError(err)
	}
	s.program = c.Programs["simulate"]
	delete(c.Programs, "simulate")
	c.Close()
	size := int(unsafe.Sizeof(Trial{})) * SimulatorBatch
	s.page, err = unix.Mmap(s.maps["trials"].FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the trials: %w", err)
	}
	s.trials = unsafe.Slice((*Trial)(unsafe.Pointer(&s.page[0])), SimulatorBatch)
	return s, nil
}

// Trials is room for SimulatorBatch trials, which Decide reads and answers in.
func (s *Simulator) Trials() []Trial { return s.trials }

// Decide decides the first n of Trials, in order.
func (s *Simulator) Decide(n int) error {
	if n == 0 {
		return nil
	}
	if _, err := s.program.Run(&ebpf.RunOptions{Context: uint32(n)}); err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	const none = 1<<32 - 1 // ROW_NONE
	if s.trials[n-1].Row == none {
		return errors.New("simulate: a trial found no row")
	}
	return nil
}

// The following are as those of Kernel.

// SetPolicy puts a policy into force.
func (s *Simulator) SetPolicy(p Policy) (uint32, error) { return s.policy.set(p) }

// SetBudget holds from the next event on.
func (s *Simulator) SetBudget(b Budget) { s.valve.set(b) }

// SetSharers says how many cgroups share the budget.
func (s *Simulator) SetSharers(n int) { s.valve.share(n) }

// SetGroup says which group a cgroup is of.
func (s *Simulator) SetGroup(cgroup uint64, group uint32) error {
	return s.states.setGroup(cgroup, group)
}

// SetShare gives the cgroups of a share a part of the budget to themselves.
func (s *Simulator) SetShare(share uint32, portion float64) error {
	return s.shares.set(share, portion)
}

// SetCgroupShare says which share a cgroup has a part in.
func (s *Simulator) SetCgroupShare(cgroup uint64, share uint32) error {
	return s.states.setShare(cgroup, share)
}

// Capacity of a policy.
func (s *Simulator) Capacity() (rows, groups int) { return s.policy.capacity, s.groups.capacity }

// Since gives what was decided since the last call.
func (s *Simulator) Since() ([]Period, error) { return s.policy.since() }

// Close frees everything.
func (s *Simulator) Close() error {
	var errs []error
	if s.program != nil {
		errs = append(errs, s.program.Close())
	}
	if s.page != nil {
		errs = append(errs, unix.Munmap(s.page))
	}
	errs = append(errs, s.valve.close(), s.states.close(), s.shares.close())
	if s.policy != nil {
		errs = append(errs, s.policy.close())
	}
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
