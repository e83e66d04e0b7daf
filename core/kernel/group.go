package kernel

import (
	"errors"
	"fmt"
	"os"
	"structs"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// mostGroups is how many groups of cgroups can have rows of their own.
const mostGroups = 1024

// groupRows is the map that names the rows of each group's classes.
type groupRows struct {
	m        *ebpf.Map
	capacity int
	rows     map[uint32]*[promotedRow]uint16
}

// sizedGroups gives the map its number of entries, of which the first is no group.
func sizedGroups(groups *ebpf.MapSpec) { groups.MaxEntries = mostGroups + 1 }

func newGroupRows(m *ebpf.Map) *groupRows {
	return &groupRows{m: m, capacity: mostGroups, rows: map[uint32]*[promotedRow]uint16{}}
}

// set names the rows of classes; 0 is the pooled one.
func (g *groupRows) set(places map[Class]uint32) error {
	changed := map[uint32]bool{}
	for c, row := range places {
		rows := g.rows[c.Group]
		if rows == nil {
			rows = new([promotedRow]uint16)
			g.rows[c.Group] = rows
		}
		rows[event.Row(c.Kind, c.Priority)] = uint16(row)
		changed[c.Group] = true
	}
	for group := range changed {
		rows := g.rows[group]
		if err := g.m.Put(group, rows); err != nil {
			return fmt.Errorf("name the rows of group %d: %w", group, err)
		}
		if *rows == [promotedRow]uint16{} {
			delete(g.rows, group)
		}
	}
	return nil
}

// cgroupState is struct cgroup_state of bpf/abi.h.
type cgroupState struct {
	_                              structs.HostLayout
	ReservePaidNS, PaidNS, Filters uint64
	Group, Told                    uint32
}

// cgroupStates is what the programs know of each cgroup: in its own storage, or, on
// kernels that have none, by its id.
type cgroupStates struct {
	storage, byID *ebpf.Map
	stored        bool
	mu            sync.Mutex
	root          *os.File // of the default hierarchy; nil until it is needed
}

// hasCgroupStorage tells whether this kernel keeps storage for cgroups.
func hasCgroupStorage() bool { return features.HaveMapType(ebpf.CgroupStorage) == nil }

// sizedStates makes the map that is not used as small as can be.
func sizedStates(spec *ebpf.CollectionSpec, stored bool) {
	unused := "cgroup_states"
	if stored {
		unused = "cgroup_states_by_id"
	}
	m := spec.Maps[unused]
	m.Type, m.MaxEntries, m.Flags = ebpf.Array, 1, 0
	m.Key, m.KeySize = nil, 4
	m.Value = nil
}

// ErrNoCgroup says that there is no cgroup of that id, or no more.
var ErrNoCgroup = errors.New("there is no such cgroup")

// SetGroup says which group a cgroup is of; 0: of none. It holds for the cgroup
// alone, not for those below it, and ends with it.
func (k *Kernel) SetGroup(cgroup uint64, group uint32) error {
	if int(group) > k.groups.capacity {
		return fmt.Errorf("group %d: there are %d", group, k.groups.capacity)
	}
	return k.states.change(cgroup, func(s *cgroupState) { s.Group = group })
}

// ForgetCgroup gives back what is kept of a cgroup that is gone, where the kernel
// does not do it itself.
func (k *Kernel) ForgetCgroup(cgroup uint64) error {
	if k.states.stored {
		return nil
	}
	err := k.states.byID.Delete(cgroup)
	if err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return fmt.Errorf("forget cgroup %d: %w", cgroup, err)
}

// change changes what user space says of a cgroup, and leaves the rest. What a program
// writes meanwhile may be lost: a first event that is told as such twice.
func (s *cgroupStates) change(cgroup uint64, do func(*cgroupState)) error {
	if !s.stored {
		return changeState(s.byID, cgroup, do)
	}
	fd, err := s.open(cgroup)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return changeState(s.storage, uint32(fd), do)
}

func changeState[K uint32 | uint64](m *ebpf.Map, key K, do func(*cgroupState)) error {
	var state cgroupState
	if err := m.Lookup(key, &state); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read the state of a cgroup: %w", err)
	}
	do(&state)
	if err := m.Put(key, state); err != nil {
		return fmt.Errorf("change the state of a cgroup: %w", err)
	}
	return nil
}

// open gives a descriptor of a cgroup by its id, which is the handle of its
// directory.
func (s *cgroupStates) open(cgroup uint64) (int, error) {
	root, err := s.hierarchy()
	if err != nil {
		return -1, err
	}
	const kernfs = 0xfe // FILEID_KERNFS
	handle := unix.NewFileHandle(kernfs, unsafe.Slice((*byte)(unsafe.Pointer(&cgroup)), 8))
	fd, err := unix.OpenByHandleAt(int(root.Fd()), handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOENT) {
		return -1, ErrNoCgroup
	}
	if err != nil {
		return -1, fmt.Errorf("open cgroup %d: %w", cgroup, err)
	}
	return fd, nil
}

// hierarchy opens the default hierarchy's root once.
func (s *cgroupStates) hierarchy() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	if s == nil || s.root == nil {
		return nil
	}
	return s.root.Close()
}
