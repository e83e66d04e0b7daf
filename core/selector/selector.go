// Package selector finds the control groups that somebody means by container, pod, image,
// label or path, and follows as they come and go.
package selector

import (
	"cmp"
	"path"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Selector means the control groups that have, of everything that is not empty, what one
// of the patterns asks for. Patterns are as path.Match has them.
type Selector struct {
	Containers []string // of names; or of ids, by their beginning
	Namespaces []string // of the pod's namespace
	Images     []string // of names, with or without a tag
	Cgroups    []string // of paths from the hierarchy's root, or of what they are below
	Labels     map[string]string
}

// Empty tells whether it asks for nothing, and so means every control group.
func (s *Selector) Empty() bool { return len(s.Cgroups) == 0 && !s.ofContainer() }

// ofContainer tells whether it asks for what only a container has.
func (s *Selector) ofContainer() bool {
	return len(s.Containers)+len(s.Namespaces)+len(s.Images)+len(s.Labels) > 0
}

// Covers tells whether it means a control group, by its path. w is nil for one of no
// container.
func (s *Selector) Covers(cgroup string, w *inventory.Workload) bool {
	if len(s.Cgroups) > 0 && !below(s.Cgroups, cgroup) {
		return false
	}
	if !s.ofContainer() {
		return true
	}
	if w == nil {
		return false
	}
	c := w.Container
	if len(s.Containers) > 0 && !anyMatch(s.Containers, c.GetName()) && !anyBegins(s.Containers, c.GetId()) {
		return false
	}
	if n := namespaceOf(w); len(s.Namespaces) > 0 && (n == "" || !anyMatch(s.Namespaces, n)) {
		return false
	}
	if len(s.Images) > 0 && !imageMatches(s.Images, c.GetImage()) {
		return false
	}
	for key, pattern := range s.Labels {
		value, there := c.GetLabels()[key]
		if ok, err := path.Match(pattern, value); !there || !ok || err != nil {
			return false
		}
	}
	return true
}

// namespaceOf gives the namespace of a container's pod; "": it is in none. Until the pod is
// told, or where nobody tells of pods, it is what the kubelet has written on the container.
func namespaceOf(w *inventory.Workload) string {
	return cmp.Or(w.Pod.GetNamespace(), w.Container.GetLabels()["io.kubernetes.pod.namespace"])
}

func anyMatch(patterns []string, s string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, s); ok && err == nil {
			return true
		}
	}
	return false
}

// anyBegins tells whether one of the patterns is the beginning of an id, of at least as
// many digits as the short form has.
func anyBegins(patterns []string, id string) bool {
	const short = 12
	for _, p := range patterns {
		if len(p) >= short && strings.HasPrefix(id, p) {
			return true
		}
	}
	return false
}

func imageMatches(patterns []string, i *protov1.Image) bool {
	return anyMatch(patterns, i.GetName()) || anyMatch(patterns, i.GetName()+":"+i.GetTag())
}

// below tells whether a path, or one that it is below, matches.
func below(patterns []string, at string) bool {
	for at = path.Clean("/" + at); ; at = path.Dir(at) {
		for _, p := range patterns {
			if ok, err := path.Match(path.Clean("/"+p), at); ok && err == nil {
				return true
			}
		}
		if at == "/" {
			return false
		}
	}
}
