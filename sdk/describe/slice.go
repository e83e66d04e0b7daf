package describe

import (
	"path"
	"strings"
)

// ExpandSlice gives the directory, in the tree of cgroups, of a systemd slice:
// a-b.slice is in a.slice, so its is /a.slice/a-b.slice. Of a path the last element
// counts. False: it is no slice's name.
func ExpandSlice(slice string) (string, bool) {
	const longest = 255 // bytes of a unit's name
	slice = path.Base(slice)
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || len(slice) > longest {
		return "", false
	}
	if name == "-" {
		return "/", true
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", false
		}
		dir = path.Join(dir, prefix+part+".slice")
		prefix += part + "-"
	}
	return dir, true
}
