package main

// grave is a container that was deleted.
type grave struct {
	key  key
	tick uint64 // of its deletion
	nano int64  // when that was
}

// graves remembers the last containers that were deleted: what their shims tell of them
// may arrive later than the deletion, which is told by another process.
type graves struct {
	ring [256]grave
	next int
}

func (g *graves) add(d grave) {
	if old := g.find(d.key); old != nil {
		*old = grave{}
	}
	g.ring[g.next] = d
	g.next = (g.next + 1) % len(g.ring)
}

func (g *graves) find(k key) *grave {
	if k.id == "" {
		return nil
	}
	for i := range g.ring {
		if g.ring[i].key == k {
			return &g.ring[i]
		}
	}
	return nil
}
