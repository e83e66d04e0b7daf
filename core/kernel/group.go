package kernel

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// mostGroups is how many groups of cgroups can have rows of their own.
const mostGroups = 1024

// groupRows is the map that names the rows of each group's classes.
type groupRows struct {
	m        *ebpf.Map
	capacity int
	rows     map[uint32]*[promotedRow]uint16
}

// sizedGroups gives the map its number of entries, of which the first is no group.
func sizedGroups(groups *ebpf.MapSpec) { groups.MaxEntries = mostGroups + 1 }

func newGroupRows(m *ebpf.Map) *groupRows {
	return &groupRows{m: m, capacity: mostGroups, rows: map[uint32]*[promotedRow]uint16{}}
}

// set names the rows of classes; 0 is the pooled one.
func (g *groupRows) set(places map[Class]uint32) error {
	changed := map[uint32]bool{}
	for c, row := range places {
		rows := g.rows[c.Group]
		if rows == nil {
			rows = new([promotedRow]uint16)
			g.rows[c.Group] = rows
		}
		rows[event.Row(c.Kind, c.Priority)] = uint16(row)
		changed[c.Group] = true
	}
	for group := range changed {
		rows := g.rows[group]
		if err := g.m.Put(group, rows); err != nil {
			return fmt.Errorf("name the rows of group %d: %w", group, err)
		}
		if *rows == [promotedRow]uint16{} {
			delete(g.rows, group)
		}
	}
	return nil
}
