package oci

import (
	"cmp"
	"path"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
)

// CgroupPath gives the path, from the root of a hierarchy, that a runtime makes of the
// cgroupsPath of a specification: itself when it is absolute, and of slice:prefix:name,
// which is for systemd, the directory of the slice with the unit prefix-name.scope. One
// that is relative to the runtime's own cgroup, or empty, is not known: "".
func CgroupPath(cgroupsPath string) string {
	if len(cgroupsPath) > describe.MaxName {
		return ""
	}
	if path.IsAbs(cgroupsPath) {
		return clean(cgroupsPath)
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 || parts[2] == "" || strings.ContainsRune(parts[1]+parts[2], '/') {
		return ""
	}
	dir, ok := describe.ExpandSlice(cmp.Or(parts[0], "system.slice"))
	if !ok {
		return ""
	}
	unit := parts[2]
	if !strings.HasSuffix(unit, ".slice") {
		if parts[1] != "" {
			unit = parts[1] + "-" + unit
		}
		unit += ".scope"
	}
	return clean(path.Join(dir, unit))
}

// clean is "" for a path that can be no container's, or that is no text.
func clean(p string) string {
	p = path.Clean(p)
	if p == "/" || len(p) > describe.MaxName || describe.Cut(p, describe.MaxName) != p {
		return ""
	}
	return p
}
