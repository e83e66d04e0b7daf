package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Process is a process as the host and its own namespaces see it.
type Process struct {
	PIDs     []uint32 // in each of its pid namespaces, from the host's to its own
	UID, GID uint32   // effective, on the host
	// NSUID and NSGID are the same in its own user namespace; nil: they are not mapped
	// there.
	NSUID, NSGID *uint32
	Comm         string
	Namespaces   Set // not known when this daemon may not read them, as with the host's first process at times
}

// Process reads a process by its pid on the host. The error wraps fs.ErrNotExist when
// there is none.
func (n *Namespaces) Process(pid uint32) (out Process, err error) {
	p, err := open(n.options.Proc, pid)
	if err != nil {
		return Process{}, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	s, err := p.status()
	if err != nil {
		return Process{}, err
	}
	comm, err := p.read("comm")
	if err != nil {
		return Process{}, err
	}
	out = Process{PIDs: s.pids, UID: s.uid, GID: s.gid, Comm: strings.TrimSuffix(comm, "\n")}
	if out.Namespaces, err = p.namespaces(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return Process{}, err
	}
	uids, gids, err := p.maps()
	if err != nil {
		return Process{}, err
	}
	if id, ok := uids.Inside(s.uid); ok {
		out.NSUID = &id
	}
	if id, ok := gids.Inside(s.gid); ok {
		out.NSGID = &id
	}
	return out, nil
}

// What HostPID considers at most: processes of one cgroup, and of the host.
const (
	mostOfCgroup = 4096
	mostOfHost   = 1 << 16
)

// ErrUnknown says that the namespaces of a container are not known.
var ErrUnknown = errors.New("the container's namespaces are not known: it has no process, or it was not read yet")

// HostPID gives the pid on the host of a container's process that has a pid in the
// container's pid namespace. The error is ErrUnknown, or wraps fs.ErrNotExist when there
// is no such process.
func (n *Namespaces) HostPID(ref *protov1.ContainerRef, pid uint32) (uint32, error) {
	n.mu.RLock()
	m := n.member(ref)
	n.mu.RUnlock()
	if m == nil {
		return 0, ErrUnknown
	}
	if len(m.pids) > 0 && m.pids[len(m.pids)-1] == pid && n.there(m) {
		return m.pid, nil
	}
	v, ok := n.options.Inventory.Get(ref)
	if !ok {
		return 0, ErrUnknown
	}
	for _, id := range v.CgroupIDs[:min(len(v.CgroupIDs), mostCgroups)] {
		g := n.options.Inventory.Lookup(id)
		if g == nil {
			continue
		}
		procs, err := n.options.Inventory.Procs(g, mostOfCgroup)
		if err != nil {
			continue // it is gone, or has threads: the others may tell
		}
		if host, ok := n.called(m, pid, procs); ok {
			return host, nil
		}
	}
	// It may be in a cgroup that is not the container's, as one of docker exec is on
	// some hosts.
	procs, err := pidsOf(n.options.Proc, mostOfHost)
	if err != nil {
		return 0, err
	}
	if host, ok := n.called(m, pid, procs); ok {
		return host, nil
	}
	return 0, fmt.Errorf("find process %d of the container: %w", pid, fs.ErrNotExist)
}

// called finds, among processes of the host, the one that has a pid in the pid namespace
// of a container.
func (n *Namespaces) called(m *member, pid uint32, procs []uint32) (uint32, bool) {
	for _, host := range procs {
		if n.isCalled(m, pid, host) {
			return host, true
		}
	}
	return 0, false
}

// isCalled tells whether a process of the host has a pid in the pid namespace of a
// container. It may be in one below.
func (n *Namespaces) isCalled(m *member, pid, host uint32) bool {
	p, err := open(n.options.Proc, host)
	if err != nil {
		return false // gone
	}
	s, err := p.status()
	is := err == nil && len(m.pids) > 0 && len(s.pids) >= len(m.pids) && s.pids[len(m.pids)-1] == pid
	if is {
		var inode uint64
		inode, err = p.above(len(s.pids) - len(m.pids))
		is = inode == m.set[PID]
	}
	return errors.Join(err, p.close()) == nil && is
}

// above gives the inode of the process's pid namespace, or of one so many levels above.
func (p *process) above(levels int) (inode uint64, err error) {
	if levels == 0 {
		link, err := p.link(PID)
		if err != nil {
			return 0, ofProcess(p.name, err)
		}
		return parseLink(link, PID)
	}
	fd, err := openAt(p.dir, "ns/"+PID.String(), unix.O_RDONLY)
	for err == nil && levels > 0 {
		var parent int
		parent, err = unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		err = errors.Join(err, unix.Close(fd))
		fd = parent
		levels--
	}
	if err != nil {
		return 0, ofProcess(p.name, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return 0, ofProcess(p.name, err)
	}
	return st.Ino, nil
}

// pidsOf lists processes of the host, at most so many.
func pidsOf(proc string, most int) ([]uint32, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, fmt.Errorf("list the processes of the host: %w", err)
	}
	defer dir.Close()
	var pids []uint32
	for len(pids) < most {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if pid, err := strconv.ParseUint(name, 10, 32); err == nil {
				pids = append(pids, uint32(pid))
			}
		}
		if err != nil {
			break // io.EOF, or what there is will do
		}
	}
	return pids[:min(len(pids), most)], nil
}
