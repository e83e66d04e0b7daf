package kernel

import (
	"errors"
	"fmt"
	"os"
	"structs"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	// cgroupPlaces is for how many cgroups there is room: 1 MB, and a power of two. Of
	// 4,000 cgroups none is expected to find all the places near its own taken.
	cgroupPlaces = 1 << 14
	// near is NEAR of bpf/abi.h.
	near = 8
)

// cgroupState is struct cgroup_state of bpf/abi.h.
type cgroupState struct {
	_                                  structs.HostLayout
	ID, ReservePaidNS, PaidNS, Filters uint64
	Group, Told, Share                 uint32
	_                                  [5]uint32
}

// cgroupStates is what the programs know of each cgroup, in memory that user space shares
// with them. A place is found as bpf/policy.h does it.
type cgroupStates struct {
	owners *ebpf.Map
	page   []byte
	real   bool // ids are those of cgroups of this machine

	mu     sync.Mutex
	states []cgroupState // in page; nil once it is closed
	root   *os.File      // of the default hierarchy; nil until it is needed
}

// sizedCgroups makes room for cgroups: places is a power of two.
func sizedCgroups(spec *ebpf.CollectionSpec, places int) error {
	spec.Maps["cgroups"].MaxEntries = uint32(places)
	spec.Maps["cgroup_owners"].MaxEntries = uint32(places)
	mask := spec.Variables["cgroup_places"]
	if mask == nil {
		return nil // a probe that decides nothing
	}
	if err := mask.Set(uint32(places - 1)); err != nil {
		return fmt.Errorf("make room for cgroups: %w", err)
	}
	return nil
}

func newCgroupStates(m map[string]*ebpf.Map, real bool) (*cgroupStates, error) {
	cgroups := m["cgroups"]
	size := int(cgroups.MaxEntries()) * int(unsafe.Sizeof(cgroupState{}))
	page, err := unix.Mmap(cgroups.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map what is known of cgroups: %w", err)
	}
	return &cgroupStates{
		owners: m["cgroup_owners"], page: page, real: real,
		states: unsafe.Slice((*cgroupState)(unsafe.Pointer(&page[0])), cgroups.MaxEntries()),
	}, nil
}

// ErrNoCgroup says that there is no cgroup of that id, or no more.
var ErrNoCgroup = errors.New("there is no such cgroup")

// SetGroup says which group a cgroup is of; 0: of none. It holds for the cgroup
// alone, not for those below it, and ends with it.
func (k *Kernel) SetGroup(cgroup uint64, group uint32) error {
	if int(group) > k.groups.capacity {
		return fmt.Errorf("group %d: there are %d", group, k.groups.capacity)
	}
	return k.states.setGroup(cgroup, group)
}

func (s *cgroupStates) setGroup(cgroup uint64, group uint32) error {
	return s.change(cgroup, group != 0, func(c *cgroupState) { atomic.StoreUint32(&c.Group, group) })
}

func (s *cgroupStates) setShare(cgroup uint64, share uint32) error {
	return s.change(cgroup, share != 0, func(c *cgroupState) { atomic.StoreUint32(&c.Share, share) })
}

func (s *cgroupStates) setFilters(cgroup, filters uint64) error {
	return s.change(cgroup, filters != 0, func(c *cgroupState) { atomic.StoreUint64(&c.Filters, filters) })
}

// change changes what is known of a cgroup. When nothing is, it begins to be known if
// begin is set, and nothing is done if not.
func (s *cgroupStates) change(cgroup uint64, begin bool, do func(*cgroupState)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.states == nil {
		return os.ErrClosed
	}
	places := s.near(cgroup)
	for _, place := range places {
		if c := &s.states[place]; atomic.LoadUint64(&c.ID) == cgroup {
			do(c)
			return nil
		}
	}
	if !begin {
		return nil
	}
	if s.real {
		if err := s.exists(cgroup); err != nil {
			return err
		}
	}
	for _, place := range places {
		if taken, err := s.take(place, cgroup); err != nil {
			return err
		} else if taken {
			do(&s.states[place])
			return nil
		}
	}
	return fmt.Errorf("cgroup %d: too many others have the places near its own", cgroup)
}

// take gives a cgroup a place, if it is nobody else's.
func (s *cgroupStates) take(place uint32, cgroup uint64) (bool, error) {
	c := &s.states[place]
	if id := atomic.LoadUint64(&c.ID); id != 0 {
		return id == cgroup, nil
	}
	err := s.owners.Update(place, cgroup, ebpf.UpdateNoExist)
	if err == nil {
		atomic.StoreUint64(&c.ID, cgroup)
		return true, nil
	}
	if !errors.Is(err, ebpf.ErrKeyExist) {
		return false, fmt.Errorf("take a place for cgroup %d: %w", cgroup, err)
	}
	var owner uint64
	if err := s.owners.Lookup(place, &owner); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("ask whose the place of cgroup %d is: %w", cgroup, err)
	}
	return owner == cgroup, nil
}

// near are the places that a cgroup may have: place_of of bpf/policy.h.
func (s *cgroupStates) near(cgroup uint64) (places [near]uint32) {
	const golden = 0x9e3779b97f4a7c15
	for i := range places {
		places[i] = (uint32(cgroup*golden>>32) + uint32(i)) & uint32(len(s.states)-1)
	}
	return places
}

// ForgetGone gives back what is kept of cgroups that are gone. The programs do that
// themselves when one is removed, but for those that somebody speaks of afterwards: a
// connection that outlives it.
func (k *Kernel) ForgetGone() error { return k.states.forgetGone() }

func (s *cgroupStates) forgetGone() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for place := range s.states {
		id := atomic.LoadUint64(&s.states[place].ID)
		if id == 0 {
			continue
		}
		if err := s.exists(id); err == nil {
			continue
		} else if !errors.Is(err, ErrNoCgroup) {
			return err
		}
		if err := s.giveBack(uint32(place), id); err != nil {
			return err
		}
	}
	return nil
}

// giveBack empties a place, and then lets others have it.
func (s *cgroupStates) giveBack(place uint32, id uint64) error {
	c := &s.states[place]
	if !atomic.CompareAndSwapUint64(&c.ID, id, 0) {
		return nil // the programs did it
	}
	*c = cgroupState{}
	if err := s.owners.Delete(place); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("give back the place of cgroup %d: %w", id, err)
	}
	return nil
}

// exists gives ErrNoCgroup when there is no cgroup of an id, which is the handle of its
// directory.
func (s *cgroupStates) exists(cgroup uint64) error {
	root, err := s.hierarchy()
	if err != nil {
		return err
	}
	const kernfs = 0xfe // FILEID_KERNFS
	handle := unix.NewFileHandle(kernfs, unsafe.Slice((*byte)(unsafe.Pointer(&cgroup)), 8))
	fd, err := unix.OpenByHandleAt(int(root.Fd()), handle, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
		return ErrNoCgroup
	}
	if err != nil {
		return fmt.Errorf("look for cgroup %d: %w", cgroup, err)
	}
	return unix.Close(fd)
}

// hierarchy opens the default hierarchy's root once.
func (s *cgroupStates) hierarchy() (*os.File, error) {
	if s.root != nil {
		return s.root, nil
	}
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		var fs unix.Statfs_t
		if unix.Fstatfs(int(f.Fd()), &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			s.root = f
			return f, nil
		}
		f.Close()
	}
	return nil, errors.New("cgroup v2 is not mounted below /sys/fs/cgroup")
}

func (s *cgroupStates) close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = nil
	err := unix.Munmap(s.page)
	if s.root != nil {
		err = errors.Join(err, s.root.Close())
	}
	return err
}
