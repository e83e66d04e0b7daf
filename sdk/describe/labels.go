package describe

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// matcher is a list of patterns, with no slash left in them.
type matcher []string

func newMatcher(patterns []string) matcher {
	var m matcher
	for _, p := range patterns {
		m = append(m, crossSlashes(p))
	}
	return m
}

// crossSlashes lets path.Match's * match the slash of keys such as
// app.kubernetes.io/name, by leaving no slash for it to stop at.
func crossSlashes(s string) string { return strings.ReplaceAll(s, "/", "\x00") }

// any tells whether one of the patterns matches.
func (m matcher) any(s string) bool {
	s = crossSlashes(s)
	for _, p := range m {
		if p == "*" {
			return true
		}
		if ok, err := path.Match(p, s); err == nil && ok {
			return true
		}
	}
	return false
}

// choice is what an operator wants of something: what is included and not excluded.
type choice struct{ include, exclude matcher }

func (c choice) wants(s string) bool { return c.include.any(s) && !c.exclude.any(s) }

// labelRules chooses and bounds the labels of a container.
type labelRules struct {
	keys       choice
	value, all int // bytes of a value, and of everything
}

// orchestrated tells the labels that other parts of the tracer join by.
func orchestrated(key string) bool {
	return strings.HasPrefix(key, "io.kubernetes.") || strings.HasPrefix(key, "com.docker.compose.")
}

// apply returns the labels to send, as a map of its own, what of the room for
// them is left, and whether size took something away.
func (r *labelRules) apply(labels map[string]string, room int) (kept map[string]string, left int, shortened bool) {
	keys := make([]string, 0, len(labels))
	for k := range labels {
		if r.keys.wants(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, room, false
	}
	slices.SortFunc(keys, func(a, b string) int {
		if oa, ob := orchestrated(a), orchestrated(b); oa != ob {
			if oa {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	out, left := make(map[string]string, min(len(keys), 64)), room
	for _, k := range keys {
		v := Cut(labels[k], r.value)
		key := Cut(k, MaxName)
		if len(key)+len(v) > left {
			shortened = true
			continue
		}
		shortened = shortened || len(labels[k]) > r.value || len(k) > MaxName
		left -= len(key) + len(v)
		out[key] = v
	}
	return out, left, shortened
}
