package main

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxPodContainers that are told with a pod, the others are left out: a container that
// is restarted for ever leaves a new one each time.
const maxPodContainers = 512

// sandbox is one sandbox of a pod. A pod that was restarted may have several, of which
// at most one is ready.
type sandbox struct {
	id      string
	pod     *protov1.Pod // as this sandbox tells of it, without its containers
	created int64
	stage   stage            // early, started: it is ready, exited: not ready any more
	network *protov1.Network // nil: not told but for the addresses
}

// pod is what is known of a pod.
type pod struct {
	uid       string
	sandboxes map[string]*sandbox
	said      *protov1.Pod // nil: not told, or not since the last reset
	dirty     bool         // among the changed
}

// learnSandbox takes what an answer tells of a sandbox. A list tells little of it.
func (t *tracker) learnSandbox(s *sandbox) {
	known := t.sandboxes[s.id]
	if known != nil {
		if len(s.pod.Ips) == 0 {
			s.pod.Ips = known.pod.Ips // gone with the sandbox's network, but they were its
		}
		if s.pod.HostNetwork == nil {
			s.pod.HostNetwork = known.pod.HostNetwork
		}
		if s.network == nil {
			s.network = known.network
		}
		s.stage = max(s.stage, known.stage) // it is made ready once
		s.created = or(s.created, known.created)
	} else if len(t.sandboxes) >= maxContainers {
		t.refused++
		return
	}
	s.pod.Phase = phase(s.stage)
	t.sandboxes[s.id] = s
	if known == nil || !slices.Equal(known.pod.Ips, s.pod.Ips) || !proto.Equal(known.network, s.network) || known.pod.GetHostNetwork() != s.pod.GetHostNetwork() {
		t.rejoin = append(t.rejoin, s.id)
	}
	uid := s.pod.GetUid()
	if uid == "" {
		return // nobody could name it
	}
	p := t.pods[uid]
	if p == nil {
		p = &pod{uid: uid, sandboxes: map[string]*sandbox{}}
		t.pods[uid] = p
	}
	p.sandboxes[s.id] = s
	t.touch(p)
}

func (t *tracker) touch(p *pod) {
	if !p.dirty {
		p.dirty = true
		t.changed = append(t.changed, p)
	}
}

// expect notes a container of a sandbox, so that the pod can be told with it.
func (t *tracker) expect(id, sandboxID string) {
	if sandboxID == "" || id == sandboxID {
		return
	}
	all := t.inSandbox[sandboxID]
	if all == nil {
		all = map[string]struct{}{}
		t.inSandbox[sandboxID] = all
	}
	if _, ok := all[id]; !ok {
		all[id] = struct{}{}
		t.touchSandbox(sandboxID)
	}
}

// leave takes a container off its sandbox.
func (t *tracker) leave(id, sandboxID string) {
	if all := t.inSandbox[sandboxID]; all != nil {
		delete(all, id)
		if len(all) == 0 {
			delete(t.inSandbox, sandboxID)
		}
		t.touchSandbox(sandboxID)
	}
}

func (t *tracker) touchSandbox(id string) {
	if s := t.sandboxes[id]; s != nil {
		if p := t.pods[s.pod.GetUid()]; p != nil {
			t.touch(p)
		}
	}
}

// join completes the description of a container with what its sandbox tells: the pod,
// and the network that all of them share.
func (t *tracker) join(c *protov1.Container, sandboxID string) {
	if sandboxID == "" {
		return
	}
	c.SandboxId = describe.Cut(sandboxID, describe.MaxName)
	s := t.sandboxes[sandboxID]
	if s == nil {
		return
	}
	if uid := s.pod.GetUid(); uid != "" {
		c.PodUid = uid
	}
	mode, networks := "", []*protov1.Network(nil)
	switch {
	case s.pod.GetHostNetwork():
		mode = "host"
	case s.network != nil:
		networks = []*protov1.Network{proto.CloneOf(s.network)}
	case len(s.pod.Ips) > 0:
		networks = []*protov1.Network{{Ips: slices.Clone(s.pod.Ips)}}
	}
	if mode == "" && c.Id != sandboxID {
		mode = "container:" + c.SandboxId
	}
	if t.describe.filter.Wants("network_mode") && mode != "" {
		c.NetworkMode = mode
	}
	if t.describe.filter.Wants("networks") && networks != nil {
		c.Networks = networks
	}
}

// dropSandbox ends the memory of a sandbox, and of its pod with the last.
func (t *tracker) dropSandbox(id string) {
	s := t.sandboxes[id]
	if s == nil {
		return
	}
	delete(t.sandboxes, id)
	if p := t.pods[s.pod.GetUid()]; p != nil {
		delete(p.sandboxes, id)
		t.touch(p)
	}
}

// dropAbsentSandboxes forgets those that a list does not have.
func (t *tracker) dropAbsentSandboxes(there map[string]struct{}) {
	for id := range t.sandboxes {
		if _, ok := there[id]; ok {
			continue
		}
		if c := t.containers[id]; c != nil && (c.heard > t.listClock || !c.listed) {
			continue // the list is older, or does not have it yet
		}
		t.dropSandbox(id)
	}
}

// tellPods tells the pods that changed, and what that changes of their containers.
func (t *tracker) tellPods() error {
	for len(t.changed)+len(t.rejoin) > 0 {
		for _, p := range t.changed {
			p.dirty = false
			if err := t.tellPod(p); err != nil {
				return err
			}
		}
		t.changed = t.changed[:0]
		for _, id := range t.rejoin {
			if err := t.rejoinAll(id); err != nil {
				return err
			}
		}
		t.rejoin = t.rejoin[:0]
	}
	return nil
}

// rejoinAll describes the containers of a sandbox anew that were told before it was.
func (t *tracker) rejoinAll(sandboxID string) error {
	for id := range t.inSandbox[sandboxID] {
		c := t.containers[id]
		if c == nil || c.said == nil || id == sandboxID {
			continue
		}
		next := c.said.Container()
		t.join(next, sandboxID)
		if c.said.Is(next) {
			continue
		}
		if err := t.tell(c, next); err != nil {
			return err
		}
	}
	return nil
}

func (t *tracker) tellPod(p *pod) error {
	if len(p.sandboxes) == 0 {
		if t.pods[p.uid] == p {
			delete(t.pods, p.uid)
		}
		if p.said == nil {
			return nil
		}
		return t.inv.RemovePod(p.uid)
	}
	s := slices.MaxFunc(slices.Collect(maps.Values(p.sandboxes)), newer)
	next := proto.CloneOf(s.pod)
	for id := range p.sandboxes {
		next.ContainerIds = slices.AppendSeq(next.ContainerIds, maps.Keys(t.inSandbox[id]))
	}
	slices.Sort(next.ContainerIds)
	next.ContainerIds = next.ContainerIds[:min(len(next.ContainerIds), maxPodContainers)]
	if p.said != nil && proto.Equal(p.said, next) {
		return nil
	}
	p.said = next
	return t.inv.Pod(proto.CloneOf(next))
}

// newer orders the sandboxes of a pod: the last is the one that speaks for it.
func newer(a, b *sandbox) int {
	ready := func(s *sandbox) int {
		if s.stage == started {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(ready(a), ready(b)), cmp.Compare(a.created, b.created), cmp.Compare(a.id, b.id))
}

// phase of a pod as far as its sandbox tells: whether it succeeded or failed, its
// containers would have to.
func phase(s stage) string {
	switch s {
	case early:
		return "Pending"
	case started:
		return "Running"
	}
	return "Unknown"
}
