package pluginhost

import (
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// batchItems is how many items go into one batch at most.
const batchItems = 500

// inBatches hands items to send in batches within the contract's bounds. An item
// that is itself too large is left out; refused says how many.
func inBatches[T proto.Message](items []T, send func([]T) error) (refused uint64, err error) {
	var batch []T
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := send(batch)
		batch, size = nil, 0
		return err
	}
	for _, it := range items {
		n := proto.Size(it)
		if n > wire.MaxChange {
			refused++
			continue
		}
		n += 8 // tag and length around it
		if len(batch) == batchItems || size+n > wire.MaxBatch {
			if err := flush(); err != nil {
				return refused, err
			}
		}
		batch = append(batch, it)
		size += n
	}
	return refused, flush()
}
