package namespace

import (
	"errors"
	"fmt"
	"strings"
)

// The inodes that the kernel gives the first namespaces of these types, on every host
// since 3.8 (enum init_ns_ino of linux/nsfs.h). Those of the other types are numbered
// like all later ones, on kernels before 6.18.
var first = Set{
	PID: 0xEFFFFFFC, User: 0xEFFFFFFD, UTS: 0xEFFFFFFE, IPC: 0xEFFFFFFF, Cgroup: 0xEFFFFFFB, Time: 0xEFFFFFFA,
}

// Host is the namespaces that are the host's own.
type Host struct {
	Set
	// Doubt says in which way the set may be wrong; "": in none.
	Doubt string
}

// kernelThread is the pid of a process of the kernel itself, where the pids are the
// host's.
const kernelThread = 2

// FindHost finds out which namespaces are the host's own, with /proc mounted at proc.
// They are those of its first process. Where that may not be read, as with some
// hardened kernels and inside of some containers, those of the kernel's own processes
// are taken, and where there are none to be seen, what the kernel numbers alike on
// every host, and this process's own for the rest.
func FindHost(proc string) (Host, error) {
	own, err := namespacesOf(proc, "self")
	if err != nil {
		return Host{}, fmt.Errorf("find this process's own namespaces: %w", err)
	}
	if own[PID] == first[PID] { // else /proc shows other processes by these pids
		if set, err := namespacesOf(proc, "1"); err == nil {
			return Host{Set: set}, nil
		}
		if set, err := namespacesOf(proc, fmt.Sprint(kernelThread)); err == nil {
			return Host{Set: set}, nil
		}
	}
	h := Host{Set: own}
	var doubtful []string
	for t, inode := range first {
		switch {
		case own[t] == 0: // this kernel has no such type
		case inode == 0:
			doubtful = append(doubtful, Type(t).String())
		default:
			h.Set[t] = inode
		}
	}
	h.Doubt = fmt.Sprintf("the namespaces of the host's own processes can't be read: the %s namespaces of this process are taken for the host's",
		strings.Join(doubtful, " and "))
	return h, nil
}

func namespacesOf(proc, pid string) (Set, error) {
	p, err := openName(proc, pid)
	if err != nil {
		return Set{}, err
	}
	set, err := p.namespaces()
	return set, errors.Join(err, p.close())
}
