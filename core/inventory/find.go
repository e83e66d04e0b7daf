package inventory

import (
	"cmp"
	"slices"
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Handle stands for one container for as long as it is remembered. Handles of the
// same container are equal; that of a later container of the same id is another. The
// zero Handle is none's.
type Handle struct{ c *container }

// Workload is the container as it is described now, nil when the Handle is none's. It
// takes no lock and allocates nothing.
func (h Handle) Workload() *Workload {
	if h.c == nil {
		return nil
	}
	return h.c.workload.Load()
}

// Handle of the container.
func (v View) Handle() Handle { return v.handle }

// Handle of the container that the cgroup belongs to, the zero one when it is none's
// or not known.
func (c *Cgroup) Handle() Handle { return Handle{c.owner.Load()} }

// Get gives a container that is described now.
func (i *Inventory) Get(ref *protov1.ContainerRef) (View, bool) {
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	c := i.container(keyOf(ref))
	if c == nil || !c.removed.IsZero() {
		return View{}, false
	}
	return c.view(), true
}

// Find gives the containers, described now, that somebody means by a word: by their
// whole id, or SCOPE/ID; else by their name; else by the beginning of their id. At
// most so many are given, in the order of their names and ids.
func (i *Inventory) Find(word string, most int) []View {
	if word == "" {
		return nil
	}
	i.lock()
	defer i.mu.Unlock()
	i.finish()
	var byID, byName, byPrefix []View
	for k, c := range i.containers {
		if !c.removed.IsZero() {
			continue
		}
		switch name := c.workload.Load().Container.GetName(); {
		case k.is(word):
			byID = keepFew(append(byID, c.view()), most)
		case name == word:
			byName = keepFew(append(byName, c.view()), most)
		case strings.HasPrefix(k.id, word):
			byPrefix = keepFew(append(byPrefix, c.view()), most)
		}
		i.pause()
	}
	for _, found := range [][]View{byID, byName, byPrefix} {
		if len(found) > 0 {
			slices.SortFunc(found, compareViews)
			return found[:min(len(found), most)]
		}
	}
	return nil
}

// is tells whether a word is the container's id, or SCOPE/ID.
func (k key) is(word string) bool {
	scope, ok := strings.CutSuffix(word, k.id)
	return ok && (scope == "" || len(scope) == len(k.scope)+1 && scope[len(k.scope)] == '/' && scope[:len(k.scope)] == k.scope)
}

// keepFew leaves the first of those found, once there are many more.
func keepFew(found []View, most int) []View {
	if len(found) < 2*most+few {
		return found
	}
	slices.SortFunc(found, compareViews)
	return found[:most]
}

func compareViews(a, b View) int {
	return cmp.Or(cmp.Compare(a.Container.GetName(), b.Container.GetName()),
		cmp.Compare(a.Container.GetId(), b.Container.GetId()), cmp.Compare(a.Container.GetScope(), b.Container.GetScope()))
}
