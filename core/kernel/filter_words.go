package kernel

import (
	"math/bits"
	"net/netip"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// compiled is a set as the maps take it.
type compiled struct {
	set     filterSet
	comms   map[[16]byte]filterValue
	numbers map[Number]filterValue
	peers   map[filterPrefix]filterValue
	shift   uint
}

// compileFilters gives the words of a set, in the upper or the lower half.
func compileFilters(next Filters, upper bool) *compiled {
	c := &compiled{
		comms: map[[16]byte]filterValue{}, numbers: map[Number]filterValue{}, peers: map[filterPrefix]filterValue{},
	}
	c.shift = uint(32 * half(upper))
	for i, f := range next.Filters {
		c.add(f, 1<<(uint(i)+c.shift))
	}
	for i, q := range next.Quick {
		n := uint32(half(upper)*MaxQuick + i + 1)
		switch {
		case q.Comm != "":
			quicken(c.comms, comm(q.Comm), n)
		case q.Peer.IsValid():
			quicken(c.peers, prefix(q.Peer), n)
		default:
			quicken(c.numbers, q.Number, n)
		}
		c.set.Asks |= 1 << q.ask()
	}
	c.cover()
	return c
}

// quicken gives a value the number of a quick filter, unless one before it has it.
func quicken[K comparable](values map[K]filterValue, key K, n uint32) {
	if v := values[key]; v.Quick == 0 {
		v.Quick = n
		values[key] = v
	}
}

func (q Quick) ask() Ask {
	switch {
	case q.Comm != "":
		return askComm
	case q.Peer.IsValid():
		return askPeer
	}
	return q.Number.Ask
}

// add takes one filter, whose bit is given.
func (c *compiled) add(f Filter, bit uint64) {
	for kind := range event.KernelKinds {
		if f.looksAt(kind) {
			c.set.Kinds[kind] |= bit
		}
	}
	switch f.Action {
	case Drop:
		c.set.Drop |= bit
	case Keep:
		c.set.Keep |= bit
	case Only:
		c.set.Only |= bit
	case Rank:
		c.set.Ranks |= bit
		c.set.Rank[bits.TrailingZeros64(bit)] = uint8(f.Priority)
	}
	for p := range event.Priorities {
		if len(f.Priorities) == 0 || slices.Contains(f.Priorities, p) {
			c.set.Priorities[p] |= bit
		}
	}
	asked := [asks]bool{askCgroup: f.InCgroup}
	for _, name := range f.Comms {
		asked[askComm] = true
		v := c.comms[comm(name)]
		v.Filters |= bit
		c.comms[comm(name)] = v
	}
	for _, p := range f.Peers {
		asked[askPeer] = true
		v := c.peers[prefix(p)]
		v.Filters |= bit
		c.peers[prefix(p)] = v
	}
	number := func(ask Ask, value uint32) {
		asked[ask] = true
		n := Number{ask, value}
		v := c.numbers[n]
		v.Filters |= bit
		c.numbers[n] = v
	}
	for _, v := range f.PIDs {
		number(AskPID, v)
	}
	for _, v := range f.UIDs {
		number(AskUID, v)
	}
	for _, v := range f.Ports {
		number(AskPort, uint32(v))
	}
	for _, v := range f.Errors {
		number(AskError, uint32(v))
	}
	for _, v := range f.Calls {
		number(AskCall, uint32(v))
	}
	for ask, yes := range asked {
		if yes {
			c.set.Asks |= 1 << ask
		} else {
			c.set.Without[ask] |= bit
		}
	}
}

// cover gives each prefix what those around it have: the kernel finds the longest alone.
func (c *compiled) cover() {
	out := make(map[filterPrefix]filterValue, len(c.peers))
	for p, v := range c.peers {
		inner := netip.PrefixFrom(netip.AddrFrom16(p.Address), int(p.Bits))
		for length := range p.Bits {
			around, err := inner.Addr().Prefix(int(length))
			if err != nil {
				continue
			}
			w, there := c.peers[filterPrefix{Bits: length, Address: around.Addr().As16()}]
			if !there {
				continue
			}
			v.Filters |= w.Filters
			if v.Quick == 0 {
				v.Quick = w.Quick
			}
		}
		out[p] = v
	}
	c.peers = out
}

// prefix as the kernel has it: IPv4 is mapped into IPv6.
func prefix(p netip.Prefix) filterPrefix {
	p = p.Masked()
	length := p.Bits()
	if p.Addr().Is4() {
		length += 96
	}
	return filterPrefix{Bits: uint32(length), Address: p.Addr().As16()}
}

// comm as the kernel has it: cut, and ended by zeros.
func comm(name string) (out [16]byte) {
	copy(out[:15], name)
	return out
}
