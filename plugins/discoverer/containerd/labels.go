package main

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"sync/atomic"
)

// labelRules chooses and bounds the labels of a container. It is safe for
// concurrent use.
type labelRules struct {
	include, exclude []string
	value, all       int

	shortened atomic.Uint64 // times that labels were cut or left out for their size
}

func newLabelRules(c Config) *labelRules {
	r := &labelRules{value: c.LabelSize, all: c.LabelsSize}
	for _, p := range c.LabelsInclude {
		r.include = append(r.include, crossSlashes(p))
	}
	for _, p := range c.LabelsExclude {
		r.exclude = append(r.exclude, crossSlashes(p))
	}
	return r
}

// crossSlashes lets path.Match's * match the slash of keys such as
// app.kubernetes.io/name, by leaving no slash for it to stop at.
func crossSlashes(s string) string { return strings.ReplaceAll(s, "/", "\x00") }

func matchAny(patterns []string, key string) bool {
	for _, p := range patterns {
		if p == "*" {
			return true
		}
		if ok, err := path.Match(p, key); err == nil && ok {
			return true
		}
	}
	return false
}

func (r *labelRules) wanted(key string) bool {
	k := crossSlashes(key)
	return matchAny(r.include, k) && !matchAny(r.exclude, k)
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
		if r.wanted(k) {
			keys = append(keys, k)
		}
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
	if len(keys) == 0 {
		return nil, room, false
	}
	out, left := make(map[string]string, min(len(keys), 64)), room
	for _, k := range keys {
		v := cut(labels[k], r.value)
		key := cut(k, maxName)
		if len(key)+len(v) > left {
			shortened = true
			continue
		}
		shortened = shortened || len(labels[k]) > r.value || len(k) > maxName
		left -= len(key) + len(v)
		out[key] = v
	}
	if shortened {
		r.shortened.Add(1)
	}
	return out, left, shortened
}
