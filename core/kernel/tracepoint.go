package kernel

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachTracepoint attaches to a per-call tracepoint, "syscalls/sys_exit_openat".
// It needs tracefs to look the number up, and where that is not mounted it mounts
// it nowhere: an unattached mount is enough.
func attachTracepoint(name string, p *ebpf.Program) (link.Link, error) {
	id, err := tracepointID(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_TRACEPOINT,
		Config:      id,
		Sample_type: unix.PERF_SAMPLE_RAW,
		Sample:      1,
		Wakeup:      1,
	}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open tracepoint %s: %w", name, err)
	}
	raw, err := link.AttachRawLink(link.RawLinkOptions{
		Target: fd, Program: p, Attach: ebpf.AttachPerfEvent,
	})
	// The link holds the event.
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		raw.Close()
		return nil, fmt.Errorf("close tracepoint %s: %w", name, cerr)
	}
	if err != nil {
		return nil, fmt.Errorf("link tracepoint %s: %w", name, err)
	}
	return raw, nil
}

func tracepointID(name string) (uint64, error) {
	b, err := readFrom("tracefs", "events/"+name+"/id", "/sys/kernel/tracing", "/sys/kernel/debug/tracing")
	if err != nil {
		return 0, fmt.Errorf("find tracepoint %s: %w", name, err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read number of tracepoint %s: %w", name, err)
	}
	return id, nil
}

// readFrom reads a file of one of the kernel's file systems, which need not be mounted
// where it usually is.
func readFrom(system, path string, usual ...string) ([]byte, error) {
	for _, at := range usual {
		if b, err := os.ReadFile(filepath.Join(at, path)); err == nil {
			return b, nil
		}
	}
	fs, err := unix.Fsopen(system, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", system, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("configure %s: %w", system, err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", system, err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s: %w", path, system, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", path, system, err)
	}
	return b, nil
}
