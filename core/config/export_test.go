package config

import "github.com/ebpf-tracer/ebpf-tracer/sdk/schema"

// CoreSchemas are the core's own blocks by title, and the reserved one.
func CoreSchemas() map[string]schema.Block {
	all := map[string]schema.Block{hostBlock: hostSchema()}
	for _, b := range coreBlocks() {
		all[b.title()] = b.schema
	}
	return all
}

// Bounds is what a complaint says of Min and Max.
func Bounds(a schema.Attribute) string { return bounds(&a) }

// InUnit writes a default as it would stand in the file.
func InUnit(f float64, t schema.Type) string { return inUnit(f, t) }
