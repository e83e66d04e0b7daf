package main

import (
	"cmp"
	"slices"
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ref is a ContainerRef that can be a key.
type ref struct{ id, scope string }

func refOf(r *protov1.ContainerRef) ref { return ref{r.GetId(), r.GetScope()} }

func (r ref) proto() *protov1.ContainerRef { return &protov1.ContainerRef{Id: r.id, Scope: r.scope} }

// member is the extract of one container.
type member struct {
	looks
	group string
	alive bool
	told  bool // since the last reset
}

// pod is the extract of one pod.
type pod struct {
	marks map[string]string
	told  bool // since the last reset
}

// inventory is an extract of the daemon's: what rules ask for, and who belongs
// together. A group of containers is named by what they share.
type inventory struct {
	rules []Sidecar
	least float64
	keys  map[string]struct{} // of labels and annotations that rules ask for

	containers map[ref]*member
	pods       map[string]*pod
	groups     map[string]map[ref]struct{}
}

func newInventory(c Config) *inventory {
	v := &inventory{rules: c.rules(), least: c.MinConfidence, keys: map[string]struct{}{},
		containers: map[ref]*member{}, pods: map[string]*pod{}, groups: map[string]map[ref]struct{}{}}
	for _, r := range v.rules {
		for _, m := range []map[string]string{r.Labels, r.gateway} {
			for k := range m {
				v.keys[k] = struct{}{}
			}
		}
		for _, k := range r.service {
			v.keys[k] = struct{}{}
		}
	}
	return v
}

// maxMark is how many bytes of a label's value are looked at, and told.
const maxMark = 256

// marks copies what rules ask for out of labels.
func (v *inventory) marks(all ...map[string]string) map[string]string {
	var out map[string]string
	for _, labels := range all {
		for k := range v.keys {
			if s, ok := labels[k]; ok {
				if out == nil {
					out = map[string]string{}
				}
				out[k] = strings.ToValidUTF8(strings.Clone(s[:min(len(s), maxMark)]), "")
			}
		}
	}
	return out
}

// groupOf names what a container shares with others: its pod, else its sandbox,
// else the network namespace that it joined or that others may join.
func groupOf(c *protov1.Container) string {
	switch {
	case c.GetPodUid() != "":
		return podGroup + c.GetPodUid()
	case c.GetSandboxId() != "":
		return "sandbox " + c.GetScope() + " " + c.GetSandboxId()
	}
	owner := c.GetId()
	if to, ok := strings.CutPrefix(c.GetNetworkMode(), "container:"); ok {
		owner = to
	}
	return "netns " + c.GetScope() + " " + owner
}

const podGroup = "pod "

// put takes a container's description and names the groups it touched.
func (v *inventory) put(c *protov1.Container) (touched []string) {
	r := ref{c.GetId(), c.GetScope()}
	m := &member{group: groupOf(c), alive: alive(c.GetState()), told: true, looks: looks{
		name:  cmp.Or(c.GetKubernetesName(), c.GetName()),
		image: c.GetImage().GetName(), tag: c.GetImage().GetTag(),
		marks: v.marks(c.GetLabels(), c.GetAnnotations()),
	}}
	for _, p := range c.GetPorts() {
		if n := p.GetContainerPort(); len(m.ports) < maxPorts && !slices.Contains(m.ports, n) {
			m.ports = append(m.ports, n)
		}
	}
	touched = append(v.leave(r), m.group)
	v.containers[r] = m
	if v.groups[m.group] == nil {
		v.groups[m.group] = map[ref]struct{}{}
	}
	v.groups[m.group][r] = struct{}{}
	return touched
}

// maxPorts is how many ports of a container are looked at.
const maxPorts = 64

// alive tells a container that has, or may soon have, processes.
func alive(s protov1.Container_State) bool {
	switch s {
	case protov1.Container_STATE_EXITED, protov1.Container_STATE_DEAD, protov1.Container_STATE_REMOVING:
		return false
	}
	return true
}

// leave forgets a container and names the group it was in.
func (v *inventory) leave(r ref) []string {
	m := v.containers[r]
	if m == nil {
		return nil
	}
	delete(v.containers, r)
	delete(v.groups[m.group], r)
	if len(v.groups[m.group]) == 0 {
		delete(v.groups, m.group)
	}
	return []string{m.group}
}

func (v *inventory) putPod(p *protov1.Pod) []string {
	v.pods[p.GetUid()] = &pod{marks: v.marks(p.GetLabels(), p.GetAnnotations()), told: true}
	return []string{podGroup + p.GetUid()}
}

func (v *inventory) removePod(uid string) []string {
	delete(v.pods, uid)
	return []string{podGroup + uid}
}

// facts of one group, by the workload they are about.
func (v *inventory) facts(group string) map[subject]*protov1.MeshFact {
	members := v.groups[group]
	uid, isPod := strings.CutPrefix(group, podGroup)
	var podMarks map[string]string
	if p := v.pods[uid]; isPod && p != nil {
		podMarks = p.marks
	}
	out := map[subject]*protov1.MeshFact{}
	var side verdict
	var version string
	for r := range members {
		m := v.containers[r]
		if !m.alive {
			continue
		}
		judged, ok := judge(v.rules, &m.looks, podMarks, v.least)
		if !ok {
			continue
		}
		f := fact(judged, m.tag)
		f.Workload = subject{container: r}.proto()
		out[subject{container: r}] = f
		// Of two sidecars the surer speaks for the pod; of equals, the first by
		// name, so that it is always the same.
		if judged.role == protov1.MeshFact_ROLE_SIDECAR &&
			(judged.confidence > side.confidence || judged.confidence == side.confidence && judged.rule.Mesh < side.rule.Mesh) {
			side, version = judged, f.ProxyVersion
		}
	}
	if side.rule == nil {
		return out
	}
	workload := func(s subject) {
		f := fact(side, "")
		f.Workload, f.Role, f.ProxyVersion = s.proto(), protov1.MeshFact_ROLE_WORKLOAD, version
		out[s] = f
	}
	if isPod {
		workload(subject{pod: uid})
		return out
	}
	for r := range members {
		if v.containers[r].alive && out[subject{container: r}] == nil {
			workload(subject{container: r})
		}
	}
	return out
}

func fact(j verdict, tag string) *protov1.MeshFact {
	return &protov1.MeshFact{Mesh: j.rule.Mesh, Role: j.role, Proxy: j.rule.Proxy, ProxyVersion: version(tag), Service: j.service, Confidence: j.confidence}
}

// version of a proxy, by its image's tag; a tag without a digit tells none.
func version(tag string) string {
	if !strings.ContainsAny(tag, "0123456789") {
		return ""
	}
	return tag
}

// subject is a WorkloadRef that can be a key.
type subject struct {
	container ref
	pod       string
}

func (s subject) proto() *protov1.WorkloadRef {
	if s.pod != "" {
		return &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_PodUid{PodUid: s.pod}}
	}
	return &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{Container: s.container.proto()}}
}
