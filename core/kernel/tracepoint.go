package kernel

import (
	"fmt"
	"io"
	"os"
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
	path := "events/" + name + "/id"
	for _, root := range []string{"/sys/kernel/tracing/", "/sys/kernel/debug/tracing/"} {
		if b, err := os.ReadFile(root + path); err == nil {
			return parseID(name, b)
		}
	}
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("open tracefs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, fmt.Errorf("configure tracefs: %w", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return 0, fmt.Errorf("mount tracefs: %w", err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("find tracepoint %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, fmt.Errorf("read tracepoint %s: %w", name, err)
	}
	return parseID(name, b)
}

func parseID(name string, b []byte) (uint64, error) {
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read number of tracepoint %s: %w", name, err)
	}
	return id, nil
}
