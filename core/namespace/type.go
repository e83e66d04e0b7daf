package namespace

import (
	"fmt"
	"strconv"
	"strings"
)

// Type of a namespace.
type Type uint8

// The types that Linux has. Cgroup is there since 4.6, Time since 5.6.
const (
	PID Type = iota
	Net
	Mount
	User
	UTS
	IPC
	Cgroup
	Time
	// Types is how many there are.
	Types
)

var typeNames = [Types]string{"pid", "net", "mnt", "user", "uts", "ipc", "cgroup", "time"}

// String is the type's name in /proc/PID/ns.
func (t Type) String() string {
	if t < Types {
		return typeNames[t]
	}
	return "unknown"
}

// ParseType is the inverse of Type.String.
func ParseType(name string) (Type, bool) {
	for t, n := range typeNames {
		if n == name {
			return Type(t), true
		}
	}
	return 0, false
}

// TypeNames are the names of all types.
func TypeNames() []string { return typeNames[:] }

// ID names a namespace while it is there. Numbers are given again afterwards.
type ID struct {
	Type  Type
	Inode uint64
}

// String is TYPE:INODE.
func (id ID) String() string { return fmt.Sprintf("%v:%d", id.Type, id.Inode) }

// Set is the namespaces of one process by their types; 0: not known, or this kernel
// has none of the type.
type Set [Types]uint64

// parseLink takes what the links in /proc/PID/ns read: "net:[4026531840]".
func parseLink(text string, t Type) (uint64, error) {
	inner, ok := strings.CutPrefix(text, t.String()+":[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !ok || !closed {
		return 0, fmt.Errorf("read a namespace of type %v: unexpected %q", t, text)
	}
	n, err := strconv.ParseUint(inner, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read a namespace of type %v: %w", t, err)
	}
	return n, nil
}
