package kernel

import (
	"net/netip"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// FilterAction is what a filter does.
type FilterAction uint8

const (
	Drop FilterAction = iota // what matches is filtered
	Keep                     // what matches is filtered by none after it
	Only                     // what does not match is filtered
	Rank                     // what matches gets another priority
)

// Call is a system call whose exit tells an event: enum call of bpf/abi.h.
type Call uint32

// CallNames are the calls that a filter can ask for, by number.
var callNames = [...]string{"", "open", "openat", "openat2", "creat", "connect", "accept", "accept4"}

// ParseCall finds one by its name.
func ParseCall(name string) (Call, bool) {
	i := slices.Index(callNames[1:], name)
	return Call(i + 1), i >= 0
}

// Filter matches an event that has, of everything that is not empty here, one of the
// values. It looks only at events that can have all of what it asks for.
type Filter struct {
	Action   FilterAction
	Priority event.Priority // of Rank
	Kinds    []event.Kind   // empty: all
	// Priorities are those that events come with; empty: all.
	Priorities []event.Priority
	InCgroup   bool     // asks for the cgroups that Filters names
	Comms      []string // of at most 15 bytes
	Peers      []netip.Prefix
	PIDs       []uint32 // of processes, in the host's pid namespace
	UIDs       []uint32 // in the host's user namespace
	Ports      []uint16 // of either end of a connection
	Errors     []uint16 // errno
	Calls      []Call
}

// Filters is a whole set, in order: the first filter that has a say decides. Quick ones
// come after all others.
type Filters struct {
	Filters []Filter
	// Cgroups are the filters, a bit each by their place, that a cgroup is named by.
	Cgroups map[uint64]uint32
	// Quick are values of which one is enough for an event to be filtered.
	Quick []Quick
}

// Quick is a filter by one value: exactly one field is set.
type Quick struct {
	Comm   string
	Peer   netip.Prefix
	Number Number
}

// Number is a value of something that is numbered.
type Number struct {
	Ask   Ask
	Value uint32
}

// Ask is what a number says: enum filter_ask of bpf/abi.h.
type Ask uint32

const (
	askCgroup Ask = iota
	askComm
	askPeer
	AskPID
	AskUID
	AskPort
	AskError
	AskCall
	asks
)

// Bounds of a set of filters.
const (
	MaxFilters = 32
	MaxQuick   = 4096
	maxValues  = 8192 // names, and prefixes; twice as many numbers
)

// LooksAt are the kinds that it looks at.
func (f Filter) LooksAt() (kinds []event.Kind) {
	for k := range event.KernelKinds {
		if f.looksAt(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// looksAt tells whether events of a kind can have all that a filter asks for.
func (f Filter) looksAt(k event.Kind) bool {
	if k.Internal() || (len(f.Kinds) > 0 && !slices.Contains(f.Kinds, k)) {
		return false
	}
	network := k >= event.NetworkConnect && k <= event.NetworkListen
	if len(f.Peers)+len(f.Ports) > 0 && !network {
		return false
	}
	if len(f.Errors) > 0 && k != event.FileOpen && k != event.NetworkConnectFailed && k != event.NetworkClose {
		return false
	}
	// connect is told by states of the socket, except where it fails at once.
	return len(f.Calls) == 0 || k == event.FileOpen || k == event.NetworkAccept || k == event.NetworkConnectFailed
}
