// Package event holds the plain types that flow down the pipe: what one event is,
// of the kernel once decoded, or of a container's life. It is a leaf: it imports
// nothing and owns no data.
//
// An Event is filled in place and used again for the next record. Its byte
// slices point into the ring or into the decoder's scratch memory and are valid
// only until the function that was handed the Event returns.
package event

// Kind of an event. Those of the kernel come first, with the numbers of bpf/abi.h.
type Kind uint16

const (
	ProcessFork Kind = iota
	ProcessExec
	ProcessExit
	NetworkConnect
	NetworkConnectFailed
	NetworkAccept
	NetworkClose
	NetworkListen
	FileOpen
	CgroupCreate
	CgroupRemove
	// KernelKinds is how many the kernel tells of.
	KernelKinds
)

// Kinds of what a container's runtime tells of its life. No policy decides on
// them.
const (
	ContainerCreated = KernelKinds + iota
	ContainerStarted
	ContainerPaused
	ContainerUnpaused
	ContainerOOM
	ContainerDied
	ContainerRemoved
	ImagePulled
	// Kinds is how many there are of all.
	Kinds
)

var kindNames = [Kinds]string{
	"process.fork", "process.exec", "process.exit",
	"network.connect", "network.connect_failed", "network.accept",
	"network.close", "network.listen",
	"file.open",
	"cgroup.create", "cgroup.remove",
	"container.created", "container.started", "container.paused", "container.unpaused",
	"container.oom", "container.died", "container.removed", "image.pulled",
}

// String is the kind's name in output, configuration and policies.
func (k Kind) String() string {
	if k < Kinds {
		return kindNames[k]
	}
	return "unknown"
}

// ParseKind is the inverse of Kind.String.
func ParseKind(name string) (Kind, bool) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), true
		}
	}
	return 0, false
}

// Internal tells a kind that feeds the daemon itself and is not exported unless
// an exporter names it.
func (k Kind) Internal() bool { return k == CgroupCreate || k == CgroupRemove }

// Injected tells a kind of which the kernel knows nothing.
func (k Kind) Injected() bool { return k >= KernelKinds }

// Priority of an event, with the numbers of bpf/abi.h: greater matters more.
type Priority uint8

const (
	Debug Priority = iota
	Info
	Warning
	Error
	Critical
	// Priorities is how many there are.
	Priorities
)

var priorityNames = [Priorities]string{"debug", "info", "warning", "error", "critical"}

// String is the priority's name in output, configuration and policies.
func (p Priority) String() string {
	if p < Priorities {
		return priorityNames[p]
	}
	return "unknown"
}

// ParsePriority is the inverse of Priority.String.
func ParsePriority(name string) (Priority, bool) {
	for p, n := range priorityNames {
		if n == name {
			return Priority(p), true
		}
	}
	return 0, false
}

// PooledRows is the number of decision rows that every policy has: one for each
// kind of the kernel and priority.
const PooledRows = int(KernelKinds) * int(Priorities)

// Row is the pooled decision row of a kind and priority.
func Row(k Kind, p Priority) int { return int(k)*int(Priorities) + int(p) }

// RowClass is the inverse of Row.
func RowClass(row int) (Kind, Priority) {
	return Kind(row / int(Priorities)), Priority(row % int(Priorities))
}

// Flags of an event, with the bits of bpf/abi.h.
type Flags uint32

const (
	ArgsTruncated Flags = 1 << iota
	PathTruncated
	OwnerUnknown  // a socket older than the tracer: no pid
	OwnerListener // a connection not accepted yet: the listener's pid
	CoreDumped
	Unreadable   // user memory could not be read
	PathDetached // a file in no directory: a memfd
	PathDeleted  // no directory holds it any more
)

// Event is one event: decoded, or injected.
type Event struct {
	Kind       Kind
	Priority   Priority
	Flags      Flags
	TimeNS     uint64 // CLOCK_MONOTONIC
	CgroupID   uint64 // on the default hierarchy
	Threshold  uint64 // 56 bits; see Weight
	Random     uint64 // 56 bits: the number drawn, the same for all of a process or socket; 0: none
	StartNS    uint64 // of the process, monotonic; unique with PID; 0: not known
	Row        uint32 // of the policy, which the event is charged to
	Generation uint32 // of the policy
	PID        uint32 // of the process, in the host's pid namespace
	TID        uint32
	NSPID      uint32 // the same in its own pid namespace
	NSTID      uint32
	UID        uint32 // in the host's user namespace
	EUID       uint32
	ParentPID  uint32 // 0: not told
	PIDNS      uint32 // inode numbers
	MountNS    uint32
	NetNS      uint32
	Comm       []byte

	// One of these, by Kind.
	Fork    Fork
	Exec    Exec
	Exit    Exit
	Network Network
	Open    Open
	Cgroup  Cgroup
	// Life is set in an injected event, which has a kind and a priority beside it and
	// nothing else; nil in those of the kernel.
	Life *Life
}

// Weight is how many events this one stands for: 1 over the probability that it
// was kept with. Thresholds are those of OpenTelemetry's probability sampling:
// an event is kept iff its 56-bit random number is at least the threshold.
func (e *Event) Weight() float64 {
	if e.Threshold == 0 {
		return 1
	}
	return thresholds / (thresholds - float64(e.Threshold))
}

const thresholds = 1 << 56

// Threshold is the 56-bit threshold for a probability, which is clamped to 0..1.
func Threshold(p float64) uint64 {
	switch {
	case p >= 1:
		return 0
	case p > 0:
		return uint64((1 - p) * thresholds)
	}
	return thresholds // also NaN
}

// Fork is a new process. The event's process is the child.
type Fork struct {
	ParentTID   uint32
	ParentNSPID uint32
}

// Exec is a process that runs a new program.
type Exec struct {
	// Path is absolute, from the root of the process's mount tree. It begins with
	// an ellipsis when it was cut (PathTruncated), and without a slash when the
	// file is in no directory (PathDetached).
	Path []byte
	Args []byte // each ended by NUL
}

// Exit is the end of a whole process.
type Exit struct {
	DurationNS uint64 // since the fork
	Code       uint32
	Signal     uint32 // that ended it; 0: none
}

// Network is something that happened to a TCP socket.
type Network struct {
	Cookie     uint64 // names the socket while the kernel runs; 0: none
	DurationNS uint64 // connect: time to connect; close: time connected
	Sent       uint64 // bytes, without retransmissions
	Received   uint64
	LocalAddr  []byte // 4 or 16 bytes
	PeerAddr   []byte
	LocalPort  uint16
	PeerPort   uint16
	Errno      uint16 // of a failed connect (0 there: the caller gave up), or what ended a connection
	Backlog    uint32 // of a listener
}

// Open is a call of the open family.
type Open struct {
	Flags  uint32 // O_...
	Result int32  // the descriptor, or -errno
	DirFD  int32  // AT_FDCWD: the working directory
	Path   []byte // as the process gave it
}

// Cgroup is a cgroup that came or went: the event's own.
type Cgroup struct {
	Level uint32
	Path  []byte // from the root of the default hierarchy
}

// Life is something that happened to a container, as its runtime told it.
type Life struct {
	TimeUnixNano int64  // by the runtime's clock, which is the wall's
	Source       string // the discoverer that told it
	// Inferred: nobody told it when it happened; a later description shows that it
	// did.
	Inferred bool
	Exited   bool // ExitCode is told
	ExitCode int32
	Signal   uint32 // that ended it; 0: none, or not told
	Image    string // of a pulled image, as it was asked for
}
