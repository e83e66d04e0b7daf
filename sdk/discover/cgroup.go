package discover

import (
	"path"
	"strings"
)

// CalledAfter tells whether a runtime would call the cgroup at a path so that is of the
// container with an id: by the id, or with systemd word-ID.scope. It is no more than a
// hint: anybody may name a cgroup like this.
func CalledAfter(cgroup, id string) bool {
	name, scope := strings.CutSuffix(path.Base(cgroup), ".scope")
	return name == id || scope && strings.HasSuffix(name, "-"+id)
}
