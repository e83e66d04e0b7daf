package namespace

import (
	"fmt"
	"strconv"
	"strings"
)

// Extent says that Count ids from Inside on, in a user namespace, are those from
// Outside on, on the host.
type Extent struct{ Inside, Outside, Count uint32 }

// Map is how the user ids, or the group ids, of a user namespace are mapped to the
// host's. A namespace whose Map is empty has none.
type Map []Extent

// Host is the host's id for one inside; false: it has none.
func (m Map) Host(inside uint32) (uint32, bool) {
	for _, e := range m {
		if at := inside - e.Inside; inside >= e.Inside && at < e.Count {
			return e.Outside + at, true
		}
	}
	return 0, false
}

// Inside is what an id of the host is inside; false: it is not mapped there.
func (m Map) Inside(host uint32) (uint32, bool) {
	for _, e := range m {
		if at := host - e.Outside; host >= e.Outside && at < e.Count {
			return e.Inside + at, true
		}
	}
	return 0, false
}

// mostExtents is how many lines the kernel takes for one map.
const mostExtents = 340

// parseMap reads /proc/PID/uid_map and gid_map.
func parseMap(text string) (Map, error) {
	var m Map
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 || len(m) == mostExtents {
			return nil, fmt.Errorf("read a map of ids: unexpected line %q", line)
		}
		var n [3]uint32
		for i := range f {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("read a map of ids: %w", err)
			}
			n[i] = uint32(v)
		}
		m = append(m, Extent{n[0], n[1], n[2]})
	}
	return m, nil
}
