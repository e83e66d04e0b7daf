package main

import (
	"cmp"
	"path"
	"slices"
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// What evidence is worth. An image or a name, or all of the ports, or the labels
// of the proxy itself, are enough by themselves for the default min_confidence.
const (
	imageWeight  = 0.8
	sharedWeight = 0.25
	nameWeight   = 0.6
	labelsWeight = 0.5
	portsWeight  = 0.5
	// podWeight is for what marks a workload: it says that there is a sidecar,
	// not that this container is it.
	podWeight = 0.2
)

// evidence adds up independent hints: each takes its share of the doubt.
type evidence struct{ certain float64 }

func (e *evidence) add(weight float64) { e.certain += (1 - e.certain) * weight }

func (e *evidence) confidence() float64 { return e.certain }

// looks are what a container is judged by: no more of it is kept.
type looks struct {
	name  string // in the pod's specification where there is one
	image string
	tag   string
	ports []uint32
	marks map[string]string // its labels, of the keys that rules ask for
}

// verdict says which sidecar a container is.
type verdict struct {
	rule       *Sidecar
	confidence float64
	role       protov1.MeshFact_Role
	service    string
}

// judge finds the rule that fits best; of equals, the first. podMarks are the
// labels and annotations of the container's pod.
func judge(rules []Sidecar, l *looks, podMarks map[string]string, least float64) (verdict, bool) {
	var best verdict
	for i := range rules {
		if c := confidence(&rules[i], l, podMarks); c > best.confidence {
			best = verdict{rule: &rules[i], confidence: c}
		}
	}
	if best.rule == nil || best.confidence < least {
		return verdict{}, false
	}
	best.role = protov1.MeshFact_ROLE_SIDECAR
	for key, value := range best.rule.gateway {
		if has(l.marks, key, value) || has(podMarks, key, value) {
			best.role = protov1.MeshFact_ROLE_GATEWAY
		}
	}
	if best.rule.node {
		best.role = protov1.MeshFact_ROLE_GATEWAY
	}
	for _, key := range best.rule.service {
		if best.service = cmp.Or(l.marks[key], podMarks[key]); best.service != "" {
			break
		}
	}
	return best, true
}

func confidence(s *Sidecar, l *looks, podMarks map[string]string) float64 {
	var own evidence
	switch {
	case slices.ContainsFunc(s.Images, func(p string) bool { return matchImage(p, l.image) }):
		own.add(imageWeight)
	case slices.ContainsFunc(s.sharedImages, func(p string) bool { return matchImage(p, l.image) }):
		own.add(sharedWeight)
	}
	if slices.ContainsFunc(s.Names, func(p string) bool { return match(p, l.name) }) {
		own.add(nameWeight)
	}
	if slices.ContainsFunc(s.sharedNames, func(p string) bool { return match(p, l.name) }) {
		own.add(sharedWeight)
	}
	if len(s.Ports) > 0 {
		n := 0
		for _, p := range s.Ports {
			if slices.Contains(l.ports, p) {
				n++
			}
		}
		own.add(portsWeight * float64(n) / float64(len(s.Ports)))
	}
	switch {
	case s.ownLabels && marked(s.Labels, l.marks):
		own.add(labelsWeight)
	case own.certain > 0 && (marked(s.Labels, l.marks) || marked(s.Labels, podMarks)):
		own.add(podWeight)
	}
	return own.confidence()
}

// marked tells whether there are marks to look for and all of them are there.
func marked(want, have map[string]string) bool {
	for key, value := range want {
		if !has(have, key, value) {
			return false
		}
	}
	return len(want) > 0
}

func has(marks map[string]string, key, pattern string) bool {
	v, ok := marks[key]
	return ok && (pattern == "*" || match(pattern, v))
}

func match(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return err == nil && ok && s != ""
}

// matchImage matches the end of an image's name, from a slash on.
func matchImage(pattern, name string) bool {
	for parts := strings.Count(name, "/") - strings.Count(pattern, "/"); parts > 0; parts-- {
		_, name, _ = strings.Cut(name, "/")
	}
	return match(pattern, name)
}
