package sandbox

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/place"
)

// Where things are inside a plugin's own root.
const (
	SocketDir = "/run/plugin" // its socket, on a file system of its own
	TempDir   = "/tmp"        // likewise
	StateDir  = "/state"      // what it keeps over restarts
	ProgramAt = "/plugin"     // its program and files
)

// Plan is what the child does before it becomes the plugin. The host makes it and
// the child obeys: it is sent as JSON.
type Plan struct {
	Program int      // the descriptor to execute
	Path    string   // what the plugin sees as its argument 0
	Args    []string // after it
	Env     []string
	Dir     string // where it runs

	// Trial: to do it all, and then end instead of becoming the plugin.
	Trial bool

	// Required: it is no plugin unless every measure is in force. Lacking are those
	// of the host that are not.
	Required bool
	Lacking  []string

	Confine bool   // a root of its own
	Shared  string // why it has none
	NewRoot string
	// OwnNetwork: the process is in a network namespace of its own, in which
	// nothing is, and so can't reach the host's abstract sockets either.
	OwnNetwork bool
	Mounts     []Mount
	Groups     []string // directories of control groups to join

	UID, GID     uint32
	OnlyRoot     bool // there is no user for it
	Supplement   []uint32
	Capabilities uint64
	Limits       Limits

	Readable   []string // of Landlock, inside the plugin's root
	Executable []string
	Writable   []string // without the right to execute
	Sockets    bool     // may connect to unix sockets
	Network    bool     // may have internet sockets
}

// Mount is something of the host that a plugin sees.
type Mount struct {
	From, To string
	Root     string // that From is a path in, and links on the way to it; "": the daemon's
	Write    bool
	Optional bool // absent is no error
	Socket   bool // anything but a unix socket is one
}

// Request is what the host knows when it starts a plugin.
type Request struct {
	Name   string // kind/name: it decides the user
	Rights Rights
	Limits Limits
	// Path of the program on the host, Dir the directory with the plugin's files,
	// in which it runs.
	Path string
	Dir  string
	Args []string
	// System: the program needs the system's libraries.
	System bool
	// SocketDir on the host, for a plugin that has no root of its own.
	SocketDir string
	// NewRoot is an empty directory for a plugin's root to stand on; "": it
	// shares the daemon's.
	NewRoot string
	Shared  string // why there is no NewRoot
	Groups  []string
	// Required: every measure must be in force, or it does not start. Lacking are
	// those that are known not to be.
	Required bool
	Lacking  []string
}

// firstUser is the first of 65,536 user ids that no distribution, container
// engine or directory service hands out; the ids from 1879048192 on are unused
// by convention (systemd's "Users, Groups, UIDs and GIDs").
const firstUser = 0x7EB00000

// userOf gives every plugin a user id of its own, the same at each start, so that
// it owns its state directory and that limits by user are its own.
func userOf(name string) uint32 {
	return firstUser + number(name)
}

// userAmong is userOf where it is mapped into the daemon's user namespace, and else,
// as in a container with few users, one of the upper half of those that are; 0 when
// there is hardly another than root.
func userAmong(uidMap, name string) uint32 {
	u := userOf(name)
	var first, count uint64 // of the most users in a row
	for line := range strings.Lines(uidMap) {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err != nil {
			continue
		}
		if inside <= uint64(u) && uint64(u) < inside+n {
			return u
		}
		if n > count {
			first, count = inside, n
		}
	}
	const few = 1 << 12
	if count < few {
		return 0
	}
	return uint32(first + count/2 + uint64(number(name))%(count/2))
}

// number is below 65,536, the same for the same name.
func number(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name)) // never fails
	sum := h.Sum32()
	return (sum>>16 ^ sum) & 0xFFFF
}

// systemDirs are the directories in which programs find their libraries.
var systemDirs = []string{"/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/pki", "/etc/localtime"}

// networkFiles are what resolving names needs.
var networkFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/ssl/certs", "/etc/pki"}

// devices that every program may expect.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// Prepare turns a request into the child's plan. It looks at the host and changes
// nothing.
func Prepare(r Request) (Plan, error) {
	if err := r.Rights.Check(); err != nil {
		return Plan{}, err
	}
	mask, err := capabilityMask(r.Rights.Capabilities)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{
		Path: r.Path, Args: r.Args, Dir: r.Dir,
		Groups: r.Groups, Required: r.Required, Lacking: r.Lacking, Shared: r.Shared, Limits: r.Limits, Capabilities: mask,
		Sockets: len(r.Rights.SocketPlaces()) > 0, Network: r.Rights.Network,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
	}
	if p.UID == 0 && !r.Rights.Root {
		uids, err := os.ReadFile("/proc/self/uid_map")
		if err != nil {
			return Plan{}, fmt.Errorf("look up the users of this user namespace: %w", err)
		}
		p.UID = userAmong(string(uids), r.Name)
		p.GID, p.OnlyRoot = p.UID, p.UID == 0
	}
	for _, s := range r.Rights.SocketPlaces() {
		if err := p.mayConnect(s); err != nil {
			return Plan{}, err
		}
	}
	if r.NewRoot == "" {
		return p.shared(r), nil
	}
	p.Confine, p.NewRoot, p.OwnNetwork = true, r.NewRoot, !r.Rights.Network
	p.Dir = ProgramAt
	if rel, err := filepath.Rel(r.Dir, r.Path); err == nil && filepath.IsLocal(rel) {
		p.Path = filepath.Join(ProgramAt, rel)
	} else { // an interpreter
		p.Mounts = append(p.Mounts, Mount{From: r.Path, To: r.Path})
		p.Executable = append(p.Executable, r.Path)
	}
	p.Mounts = append(p.Mounts, Mount{From: r.Dir, To: ProgramAt})
	p.Executable = append(p.Executable, ProgramAt)
	see := func(path string, optional bool) {
		if !slices.ContainsFunc(p.Mounts, func(m Mount) bool { return m.To == path }) {
			p.Mounts = append(p.Mounts, Mount{From: path, To: path, Optional: optional})
		}
	}
	p.Readable = []string{"/proc"}
	p.Writable = []string{SocketDir, TempDir}
	if r.System {
		for _, d := range systemDirs {
			see(d, true)
		}
		p.Executable = append(p.Executable, systemDirs...)
	}
	if r.Rights.Network {
		for _, f := range networkFiles {
			see(f, true)
		}
		p.Readable = append(p.Readable, networkFiles...)
	}
	for _, path := range r.Rights.Paths {
		see(path, true)
		p.Readable = append(p.Readable, path)
	}
	for _, at := range r.Rights.places(nil, r.Rights.HostPaths) {
		p.Readable = append(p.Readable, p.seeBelow(at, Mount{})...)
	}
	if r.Rights.State != "" {
		p.Mounts = append(p.Mounts, Mount{From: r.Rights.State, To: StateDir, Write: true})
		p.Writable = append(p.Writable, StateDir)
	}
	// After the paths, of which one may be /dev, where no other device works.
	for _, d := range devices {
		p.Mounts = append(p.Mounts, Mount{From: d, To: d, Write: true})
	}
	for _, s := range r.Rights.Sockets {
		p.Mounts = append(p.Mounts, Mount{From: s, To: s, Write: true, Optional: true, Socket: true})
	}
	for _, at := range r.Rights.places(nil, r.Rights.HostSockets) {
		p.seeBelow(at, Mount{Write: true, Socket: true})
	}
	return p, nil
}

// seeBelow shows the plugin what is below the host's root, if it is there, as m says:
// under its own name, and under that which links on the way lead to. It returns both.
func (p *Plan) seeBelow(at place.Place, m Mount) []string {
	names := []string{at.String()}
	if real := at.Walk(func(string, string) {}).Real; real != "" && real != at.Path {
		names = append(names, place.Place{Root: at.Root, Path: real}.String())
	}
	for _, to := range names {
		m.Root, m.From, m.To, m.Optional = at.Root, at.Path, to, true
		p.Mounts = append(p.Mounts, m)
	}
	return names
}

// shared is the plan of a plugin that sees the host's files, as far as Landlock
// lets it.
func (p Plan) shared(r Request) Plan {
	p.Readable = append([]string{"/proc", "/dev"}, r.Rights.Paths...)
	for _, at := range r.Rights.places(nil, r.Rights.HostPaths) {
		// Under its own name a link could lead out of the host's root.
		if real := at.Walk(func(string, string) {}).Real; real != "" {
			p.Readable = append(p.Readable, place.Place{Root: at.Root, Path: real}.String())
		}
	}
	p.Executable = []string{r.Dir}
	if r.System {
		p.Executable = append(p.Executable, systemDirs...)
	}
	if filepath.IsAbs(r.Path) {
		p.Executable = append(p.Executable, r.Path)
	}
	if r.Rights.Network {
		p.Readable = append(p.Readable, networkFiles...)
	}
	p.Writable = []string{r.SocketDir}
	if r.Rights.State != "" {
		p.Writable = append(p.Writable, r.Rights.State)
	}
	return p
}

// mayConnect gives the plugin the group that may use a socket, or, when only its
// owner may, the owner's user id.
func (p *Plan) mayConnect(at place.Place) error {
	st, err := at.Stat()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket that a plugin asks for: %w", err)
	}
	// Who may write to it decides whom the plugin runs as: nothing else counts.
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s, which a plugin asks for as a socket, is none: name a socket, or what it reads in paths", at)
	}
	if p.UID == 0 || st.Mode&0o002 != 0 {
		return nil
	}
	if st.Mode&0o020 != 0 {
		if !slices.Contains(p.Supplement, st.Gid) {
			p.Supplement = append(p.Supplement, st.Gid)
		}
		return nil
	}
	p.UID = st.Uid
	return nil
}

// Report is what the child tells before it becomes the plugin.
type Report struct {
	UID        uint32
	Applied    []string // the measures in force
	NotApplied []string // those the kernel can't take, with the reason
	NoRoot     bool     // nothing but its own root could not be had, because of Error
	Error      string   // why it did not become the plugin; "": it did
}
