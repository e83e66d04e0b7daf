package kernel

import (
	"fmt"
	"math"
	"os"
	"structs"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MaxShares is how many shares a budget can have.
const MaxShares = 32 // SHARES, less the one that is none

// budgetShare is struct budget_share of bpf/abi.h.
type budgetShare struct {
	_                   structs.HostLayout
	PaidNS, Parts, Kept uint64
	_                   [5]uint64
}

// shares of the budget, in memory that user space shares with the programs.
type shares struct {
	page  []byte
	mu    sync.Mutex
	words []budgetShare // nil once it is closed
}

func newShares(m *ebpf.Map) (*shares, error) {
	page, err := unix.Mmap(m.FD(), 0, int(unsafe.Sizeof(budgetShare{}))*(MaxShares+1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the shares of the budget: %w", err)
	}
	return &shares{page: page, words: unsafe.Slice((*budgetShare)(unsafe.Pointer(&page[0])), MaxShares+1)}, nil
}

// SetShare gives the cgroups of a share, which is named by a number from 1 to MaxShares, a
// part of the budget to themselves, 0 to 1: as long as they keep less, others are thinned
// out before them, and they are thinned out less than the policy says. What they don't
// use is there for all. 0 ends the share.
func (k *Kernel) SetShare(share uint32, portion float64) error { return k.shares.set(share, portion) }

// SetCgroupShare says which share a cgroup has a part in; 0: none. It holds for the cgroup
// alone, not for those below it, and ends with it. ErrNoCgroup: it is gone.
func (k *Kernel) SetCgroupShare(cgroup uint64, share uint32) error {
	if share > MaxShares {
		return fmt.Errorf("share %d: there are %d", share, MaxShares)
	}
	return k.states.setShare(cgroup, share)
}

// ShareKept gives how many events of a share have been kept, and maybe lost then.
func (k *Kernel) ShareKept(share uint32) uint64 { return k.shares.kept(share) }

func (s *shares) set(share uint32, portion float64) error {
	if share == 0 || share > MaxShares || !(portion >= 0 && portion <= 1) {
		return fmt.Errorf("share %d of %v: there are %d, of 0 to 1", share, portion, MaxShares)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.words == nil {
		return os.ErrClosed
	}
	var parts uint64
	if portion > 0 {
		parts = uint64(math.Ceil(min(256/portion, 1<<24)))
	}
	atomic.StoreUint64(&s.words[share].Parts, parts)
	return nil
}

func (s *shares) kept(share uint32) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.words == nil || share > MaxShares {
		return 0
	}
	return atomic.LoadUint64(&s.words[share].Kept)
}

func (s *shares) close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = nil
	return unix.Munmap(s.page)
}
