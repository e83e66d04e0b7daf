package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// changeUser gives up the daemon's user and all capabilities but those granted. A
// daemon that is not root has nothing to give up.
func (r *run) changeUser() error {
	if unix.Geteuid() != 0 {
		r.notApplied("a user of its own", errors.New("the daemon is not root"))
		return nil
	}
	keep := r.plan.Capabilities
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more
		}
		if errors.Is(err, unix.EPERM) && r.plan.UID != 0 {
			// Nor can it get any back, without new privileges; root could.
			r.notApplied("no capability can ever be had", errors.New("the daemon lacks CAP_SETPCAP"))
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d for good: %w", c, err)
		}
	}
	if r.plan.UID != 0 && keep != 0 {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("keep capabilities: %w", err)
		}
	}
	if err := r.setIDs(); err != nil {
		return err
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if keep != 0 {
		r.applied("capabilities: %s only", strings.Join(capabilityNames(keep), ", "))
	} else {
		r.applied("no capabilities")
	}
	return nil
}

// setIDs changes user and groups of this thread. Go's own calls change all
// threads, of which only this one becomes the plugin.
func (r *run) setIDs() error {
	groups := r.plan.Supplement
	if r.plan.OnlyRoot {
		r.notApplied("a user of its own", errors.New("the daemon's user namespace has hardly another than root"))
	}
	if err := setGroups(groups); err != nil {
		return fmt.Errorf("set the groups: %w", err)
	}
	g, u := uintptr(r.plan.GID), uintptr(r.plan.UID)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, g, g, g); e != 0 {
		return fmt.Errorf("become group %d: %w", g, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, u, u, u); e != 0 {
		return fmt.Errorf("become user %d: %w", u, e)
	}
	if len(groups) > 0 {
		r.applied("user %d, with the groups %v of its sockets", u, groups)
	} else {
		r.applied("user %d", u)
	}
	return nil
}

// setCapabilities leaves this thread the capabilities in keep, over exec too.
func setCapabilities(keep uint64) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		w := uint32(keep >> (32 * i))
		data[i] = unix.CapUserData{Effective: w, Permitted: w, Inheritable: w}
	}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	for c := range capabilities {
		if keep&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return fmt.Errorf("grant %s: %w", capabilities[c], err)
		}
	}
	return nil
}

func capabilityNames(mask uint64) []string {
	var out []string
	for i, n := range capabilities {
		if mask&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// setGroups sets the supplementary groups of this thread.
func setGroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); e != 0 {
		return e
	}
	return nil
}
