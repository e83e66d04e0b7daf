package inventory

import "time"

// sweep ends the memory of up to n cgroups and n containers that have been gone
// for the grace period, and tells whether there are more.
func (i *Inventory) sweep(n int) (more bool) {
	before := i.options.Now().Add(-grace)
	for range n {
		if len(i.leaving) == 0 || !i.leaving[0].removed.Before(before) {
			break
		}
		i.forgetCgroup(i.leaving[0])
		i.leaving = i.leaving[1:]
	}
	for range n {
		if len(i.gone) == 0 || !i.gone[0].at.Before(before) {
			break
		}
		c := i.gone[0].container
		i.gone = i.gone[1:]
		for c.into != nil {
			c = c.into
		}
		if i.containers[c.key] == c {
			i.sweepContainer(c, before)
		}
	}
	return len(i.leaving) > 0 && i.leaving[0].removed.Before(before) ||
		len(i.gone) > 0 && i.gone[0].at.Before(before)
}

func (i *Inventory) sweepContainer(c *container, before time.Time) {
	switch {
	case c.removed.IsZero(): // it came back, by another's word perhaps
		facets := len(c.facets)
		for o, f := range c.facets {
			if !f.gone.IsZero() && f.gone.Before(before) {
				delete(c.facets, o)
			}
		}
		if len(c.facets) != facets {
			i.changed(c)
		}
	case !c.removed.Before(before): // it came back and went again
	case len(c.cgroups) > 0 && !c.expired:
		// Its cgroup is there, and so its events may be; or the news of the
		// cgroup's end was lost. One that was told of is forgotten in its own time.
		i.gone = append(i.gone, departure{c, i.options.Now()})
		if c.there() {
			i.options.Rescan()
		}
	default:
		i.drop(c)
	}
}

// there tells whether a cgroup of the container is there, as far as was told.
func (c *container) there() bool {
	for g := range c.cgroups {
		if g.removed.IsZero() {
			return true
		}
	}
	return false
}
