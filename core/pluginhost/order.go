package pluginhost

import (
	"errors"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

var (
	errNoReset = errors.New("the plugin broke the contract: its first change must be a reset")
	errSynced  = errors.New("the plugin broke the contract: synced without a reset")
)

// changeOrder holds the changes of one stream against the order that the contract
// asks for.
type changeOrder struct {
	begun bool
	open  uint32 // the kinds whose snapshot is open, a bit each
}

// everyKind is what a reset or synced without kinds stands for.
const everyKind = 1<<protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER |
	1<<protov1.WorkloadKind_WORKLOAD_KIND_POD |
	1<<protov1.WorkloadKind_WORKLOAD_KIND_SERVICE

func kinds(ks []protov1.WorkloadKind) uint32 {
	if len(ks) == 0 {
		return everyKind
	}
	var bits uint32
	for _, k := range ks {
		bits |= 1 << (uint32(k) & 31) & everyKind
	}
	return bits
}

// check returns the changes that may be applied, and a subscription apart. What
// is too large is refused, and what is not known is left out: a newer plugin may
// say more. An error ends the stream.
func (o *changeOrder) check(in []*protov1.InventoryChange) (out []*protov1.InventoryChange, sub *protov1.Subscribe, refused uint64, err error) {
	out = in[:0]
	for _, change := range in {
		switch c := change.GetChange().(type) {
		case nil:
			continue
		case *protov1.InventoryChange_Subscribe:
			sub = c.Subscribe
			continue
		case *protov1.InventoryChange_Considered:
			out = append(out, change) // may stand before the reset
			continue
		case *protov1.InventoryChange_Reset_:
			o.begun = true
			o.open |= kinds(c.Reset_.GetKinds())
		case *protov1.InventoryChange_Synced:
			k := kinds(c.Synced.GetKinds())
			if o.open&k == 0 {
				return out, sub, refused, errSynced
			}
			o.open &^= k
		}
		if !o.begun {
			return out, sub, refused, errNoReset
		}
		if proto.Size(change) > wire.MaxChange {
			refused++
			continue
		}
		out = append(out, change)
	}
	return out, sub, refused, nil
}
