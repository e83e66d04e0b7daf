package inventory

import (
	"cmp"
	"strings"
)

// node is one path of the default hierarchy, from when a cgroup of it or below it
// is told until the last of them is forgotten.
type node struct {
	path     string // part of a cgroup's; "/": the root
	name     string
	hint     string
	parent   *node // nil: the root
	children map[string]*node
	cgroups  []*Cgroup  // of this path, by age: the last may be there, the others are gone
	owner    *container // the outermost known container of the path; nil: none
	marked   bool       // among the unsettled
}

// newest is the cgroup that the path stands for, nil when it was never told.
func (n *node) newest() *Cgroup {
	if len(n.cgroups) == 0 {
		return nil
	}
	return n.cgroups[len(n.cgroups)-1]
}

// tree finds cgroups by their paths. Containers take hold of it in three ways: a
// source names the path of a cgroup, or its id, or a path holds the container's
// id. All are under the inventory's lock.
type tree struct {
	root       *node
	byHint     map[string]map[*node]struct{}
	claimPaths map[string]map[*container]struct{}
	claimIDs   map[uint64]map[*container]struct{}
	unsettled  []*node // whose owner is to be looked for again
}

func newTree() tree {
	return tree{
		root:       &node{path: "/"},
		byHint:     map[string]map[*node]struct{}{},
		claimPaths: map[string]map[*container]struct{}{},
		claimIDs:   map[uint64]map[*container]struct{}{},
	}
}

// find gives the node of a path, or nil.
func (t *tree) find(path string) *node {
	n := t.root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// at gives the node of a path, and makes it and those above it where they are
// missing.
func (i *Inventory) at(path string) *node {
	n := i.tree.root
	for start := 0; start < len(path); {
		end := start
		for end < len(path) && path[end] != '/' {
			end++
		}
		if name := path[start:end]; name != "" {
			child := n.children[name]
			if child == nil {
				child = &node{path: path[:end], name: name, hint: hint(name), parent: n}
				if n.children == nil {
					n.children = map[string]*node{}
				}
				n.children[name] = child
				if child.hint != "" {
					insert(i.tree.byHint, child.hint, child)
				}
				i.settleNode(child)
			}
			n = child
		}
		start = end + 1
	}
	return n
}

// leave takes a cgroup out, and the nodes that only it needed.
func (t *tree) leave(g *Cgroup) {
	n := g.node
	for at, other := range n.cgroups {
		if other == g {
			n.cgroups = append(n.cgroups[:at], n.cgroups[at+1:]...)
			break
		}
	}
	for n.parent != nil && len(n.cgroups)+len(n.children) == 0 {
		delete(n.parent.children, n.name)
		if n.hint != "" {
			remove(t.byHint, n.hint, n)
		}
		n = n.parent
	}
}

// mark says that the owner of a path is to be looked for again, and with it that
// of the paths below.
func (t *tree) mark(n *node) {
	if n != nil && !n.marked {
		n.marked = true
		t.unsettled = append(t.unsettled, n)
	}
}

// settle looks for the owners of up to max marked paths.
func (i *Inventory) settle(max int) {
	t := &i.tree
	for ; max > 0 && len(t.unsettled) > 0; max-- {
		n := t.unsettled[len(t.unsettled)-1] // the last: depth first, so that few are marked at a time
		t.unsettled = t.unsettled[:len(t.unsettled)-1]
		n.marked = false
		i.settleNode(n)
	}
	if len(t.unsettled) == 0 {
		t.unsettled = nil
	}
}

// settleNode looks for the owner of one path: the outermost known container on
// the way from the root. So a container that is made inside another is the outer
// one's.
func (i *Inventory) settleNode(n *node) {
	var owner *container
	if n.parent != nil {
		owner = n.parent.owner
	}
	if owner == nil {
		owner = i.candidate(n)
	}
	if g := n.newest(); g != nil {
		i.give(g, owner)
	}
	if owner != n.owner {
		n.owner = owner
		for _, child := range n.children {
			i.tree.mark(child)
		}
	}
}

// candidate is the known container that takes hold of this very path. One that is
// there counts before one that is gone, what a runtime says of its own cgroup
// before what a name hints at, and then the rank of the sources.
func (i *Inventory) candidate(n *node) *container {
	var claimed, hinted *container
	if n.parent != nil { // nobody's is the whole host
		for c := range i.tree.claimPaths[n.path] {
			claimed = better(claimed, c)
		}
		if g := n.newest(); g != nil {
			for c := range i.tree.claimIDs[g.ID] {
				claimed = better(claimed, c)
			}
		}
	}
	if n.hint != "" {
		for c := range i.byID[n.hint] {
			hinted = better(hinted, c)
		}
	}
	if claimed == nil || hinted != nil && !claimed.removed.IsZero() && hinted.removed.IsZero() {
		return hinted
	}
	return claimed
}

// better is the one of two containers that owns what both take hold of. The
// answer does not depend on who came first.
func better(a, b *container) *container {
	if a == nil {
		return b
	}
	there := func(c *container) int {
		if c.removed.IsZero() {
			return 0
		}
		return 1
	}
	if cmp.Or(cmp.Compare(there(a), there(b)), cmp.Compare(a.rank, b.rank),
		cmp.Compare(a.key.scope, b.key.scope), cmp.Compare(a.key.id, b.key.id)) <= 0 {
		return a
	}
	return b
}

// give makes a container, or none, the owner of a cgroup. A cgroup that is gone
// keeps the owner that it had: a later one of the same path is another's.
func (i *Inventory) give(g *Cgroup, owner *container) {
	defer g.settled.Store(true)
	old := g.owner.Load()
	if old == owner {
		return
	}
	if old != nil {
		if !g.removed.IsZero() && old.into == nil {
			return
		}
		delete(old.cgroups, g)
		if owner != nil && old.into != owner {
			i.stats.Corrected++
		}
	}
	if owner != nil {
		owner.cgroups[g] = struct{}{}
	}
	g.owner.Store(owner)
}

// insert and remove keep an index of sets.
func insert[K, V comparable](index map[K]map[V]struct{}, k K, v V) {
	if index[k] == nil {
		index[k] = map[V]struct{}{}
	}
	index[k][v] = struct{}{}
}

func remove[K, V comparable](index map[K]map[V]struct{}, k K, v V) {
	delete(index[k], v)
	if len(index[k]) == 0 {
		delete(index, k)
	}
}
