package config

import "github.com/ebpf-tracer/ebpf-tracer/sdk/schema"

// CoreSchemas are the core's own blocks by title, and the reserved one.
func CoreSchemas() map[string]schema.Block {
	all := map[string]schema.Block{hostBlock: hostSchema()}
	for _, b := range append(coreBlocks(), autoBlock()) {
		all[b.title()] = b.schema
	}
	return all
}

// InUnit writes a default as it would stand in the file.
func InUnit(f float64, t schema.Type) string { return inUnit(f, t) }
