package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// denied are the system calls that no plugin needs and that reach beyond its
// process: other processes' memory, namespaces and mounts, the kernel itself, and
// io_uring, which does what others are denied. An architecture adds its own.
var denied = []uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE,
	unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT,
	unix.SYS_FSPICK, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, unix.SYS_CHROOT,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_REBOOT,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_SYSLOG, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_FANOTIFY_INIT,
	unix.SYS_LOOKUP_DCOOKIE, unix.SYS_MKNODAT, unix.SYS_PERSONALITY, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES,
	unix.SYS_NFSSERVCTL,
}

// lastKnown is the highest system call that this program knows: mseal, of 6.10.
// The numbers above are for calls of which nobody has judged yet what they do; they
// are the same on every architecture that has them.
const lastKnown = unix.SYS_MSEAL

// newNamespaces are the flags of clone that make a namespace.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// What a call comes to.
var (
	allow   = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	absent  = failWith(unix.ENOSYS)
	refused = failWith(unix.EPERM)
	family  = failWith(unix.EAFNOSUPPORT)
)

func failWith(e unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

// Places in what the kernel gives a filter to look at (struct seccomp_data). Only
// arguments of 32 bits are looked at, which stand first on the machines here.
const (
	numberAt = 0
	archAt   = 4
	argsAt   = 16
)

func argument(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: argsAt + 8*n, Size: 4} }

// seccomp filters the system calls of the plugin. Calls that this program does not
// know, and those of another ABI of the same processor, are absent.
func (r *run) seccomp() error {
	if auditArch == 0 {
		r.notApplied("seccomp", fmt.Errorf("nobody has listed the system calls of %s", runtime.GOARCH))
		return nil
	}
	raw, err := bpf.Assemble(filter(r.plan))
	if err != nil {
		return fmt.Errorf("make the seccomp filter: %w", err)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&f)))
	runtime.KeepAlive(program)
	switch {
	case e == unix.ENOSYS || e == unix.EINVAL:
		r.notApplied("seccomp", errors.New("this kernel does not have it"))
	case e != 0:
		return fmt.Errorf("apply seccomp: %w", e)
	case r.plan.Network:
		r.applied("seccomp: no kernel interfaces, namespaces, other processes")
	case r.plan.Sockets:
		r.applied("seccomp: no kernel interfaces, namespaces, other processes, no network")
	default:
		r.applied("seccomp: no kernel interfaces, namespaces, other processes, no network, no connections at all")
	}
	return nil
}

// filter is the program for a plan.
func filter(p Plan) []bpf.Instruction {
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: archAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1}, absent,
		bpf.LoadAbsolute{Off: numberAt, Size: 4},
		// Also those of the x32 ABI, whose numbers have a high bit.
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: lastKnown, SkipTrue: 1}, absent,
	}
	no := append(slices.Clone(denied), deniedHere...)
	if !p.Sockets && !p.Network {
		no = append(no, unix.SYS_CONNECT)
	}
	type judged struct {
		number uint32
		judge  []bpf.Instruction
	}
	judges := []judged{
		{unix.SYS_CLONE, judgeClone()}, {unix.SYS_IOCTL, judgeIoctl()}, {unix.SYS_PRCTL, judgePrctl()},
		{unix.SYS_SOCKET, judgeSocket(p)}, {unix.SYS_SOCKETPAIR, judgePair()},
	}
	if p.Capabilities&(1<<unix.CAP_SYS_ADMIN) != 0 {
		no = slices.DeleteFunc(no, func(n uint32) bool { return n == unix.SYS_SETNS })
		judges = append(judges, judged{unix.SYS_SETNS, judgeSetns()})
	}
	for _, n := range no {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: n, SkipTrue: 1}, refused)
	}
	// The flags of clone3 can't be seen; what libraries do without it is clone.
	out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_CLONE3, SkipTrue: 1}, absent)
	for _, c := range judges {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.number, SkipTrue: uint8(len(c.judge))})
		out = append(out, c.judge...) // ends with a return
	}
	return append(out, allow)
}

func judgeClone() []bpf.Instruction {
	return []bpf.Instruction{argument(0), bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: newNamespaces, SkipTrue: 1}, refused, allow}
}

// judgeSetns lets a plugin whose operator granted it CAP_SYS_ADMIN dial inside another
// network namespace, and enter no other kind.
func judgeSetns() []bpf.Instruction {
	return []bpf.Instruction{argument(1), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.CLONE_NEWNET, SkipTrue: 1}, refused, allow}
}

// judgeIoctl keeps a plugin from typing into a terminal.
func judgeIoctl() []bpf.Instruction {
	return []bpf.Instruction{
		argument(1),
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.TIOCSTI, SkipTrue: 1}, refused,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: tiocLinux, SkipTrue: 1}, refused,
		allow,
	}
}

const tiocLinux = 0x541C

// judgePrctl keeps a plugin from living on when the daemon is killed. That a library
// asks for another signal for its children is no error: they end with the plugin.
func judgePrctl() []bpf.Instruction {
	return []bpf.Instruction{
		argument(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PR_SET_PDEATHSIG, SkipTrue: 1}, allow,
		argument(1),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(unix.SIGKILL), SkipTrue: 1}, failWith(0),
		allow,
	}
}

// judgePair denies pairs of datagram sockets: each of the two can send to any other.
func judgePair() []bpf.Instruction {
	return []bpf.Instruction{
		argument(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SOCK_DGRAM, SkipTrue: 1}, family,
		allow,
	}
}

// judgeSocket denies other families than unix and, where the plugin may use the
// network, those of the internet; and unix datagram sockets, which could send
// without connecting.
func judgeSocket(p Plan) []bpf.Instruction {
	out := []bpf.Instruction{argument(0)}
	if p.Network {
		for _, f := range []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
			out = append(out, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: f, SkipTrue: 1}, allow)
		}
	}
	return append(out,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipTrue: 1}, family,
		argument(1),
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_STREAM, SkipTrue: 1}, family,
		allow,
	)
}
