package kernel

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// ofFunction ends the name of a program that tells a system call by the call's function,
// where another of the same name tells it by the call's tracepoint. An open that is not kept
// takes 455 instructions more than untraced by its function and 601 by its tracepoint, and
// another call 1 and 98: BenchmarkHooks of test/kernel counts them.
const ofFunction = "_fexit"

// ofFunctions gives the programs that tell the same by functions, where there are such.
func ofFunctions(spec *ebpf.CollectionSpec, programs []string) []string {
	out := slices.Clone(programs)
	for i, name := range out {
		if spec.Programs[name+ofFunction] != nil {
			out[i] = name + ofFunction
		}
	}
	return out
}

// ofTracepoint gives the program that tells the same where a function can't be had.
func ofTracepoint(program string) string { return strings.TrimSuffix(program, ofFunction) }

// callsHaveFunctions tells whether system calls can be told by their functions here: whether
// the kernel takes such a program, and runs it without a break. One that was broken off would
// keep others from running on its CPU, and what they were to count would be missing. It is
// tried with a call in which nobody waits: one who did would not be told.
func callsHaveFunctions() bool {
	if preemptible() {
		return false
	}
	l, err := attachEmpty("getpgid", true)
	return err == nil && l.Close() == nil
}

// empty loads a program that does nothing at the exit of a system call.
func empty(call string, functions bool) (program, error) {
	spec := ebpf.ProgramSpec{
		Type: ebpf.TracePoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	}
	if functions {
		spec.Type, spec.AttachType, spec.AttachTo = ebpf.Tracing, ebpf.AttachTraceFExit, "__x64_sys_"+call
		if runtime.GOARCH == "arm64" {
			spec.AttachTo = "__arm64_sys_" + call
		}
	}
	p, err := ebpf.NewProgram(&spec)
	if err != nil {
		return program{}, fmt.Errorf("load an empty program for %s: %w", call, err)
	}
	one := program{Program: p, name: call, section: "fexit"}
	if !functions {
		one.section = "tracepoint/syscalls/sys_exit_" + call
	}
	return one, nil
}

// AttachEmpty attaches a program that does nothing where the probe's program for an open is
// attached on this kernel: it takes what the kernel itself takes for one. Closing it detaches
// it. It is what measurements compare the probe with.
func AttachEmpty(call string) (io.Closer, error) {
	return attachEmpty(call, callsHaveFunctions())
}

func attachEmpty(call string, functions bool) (io.Closer, error) {
	p, err := empty(call, functions)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	l, err := p.attach()
	if err != nil {
		return nil, fmt.Errorf("attach an empty program to %s: %w", call, err)
	}
	return l, nil
}

// preemptible tells whether this kernel may take the CPU from a program in the middle, and
// says so too when it can't be found out.
func preemptible() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true
	}
	version := unix.ByteSliceToString(u.Version[:])
	if !strings.Contains(version, "PREEMPT") {
		return false
	}
	modes, err := readFrom("debugfs", "sched/preempt", "/sys/kernel/debug")
	return err != nil || preempts(string(modes))
}

// preempts reads the modes of a kernel that has several: "none (voluntary) full".
func preempts(modes string) bool {
	for mode := range strings.FieldsSeq(modes) {
		if mode == "(none)" || mode == "(voluntary)" {
			return false
		}
	}
	return true
}
