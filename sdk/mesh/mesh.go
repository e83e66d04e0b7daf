// Package mesh is what the author of a service-mesh detector implements: the
// kind of plugin that tells which workloads are in a mesh, and as whom.
package mesh

import (
	"context"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Detector tells the mesh of workloads. Detect runs until ctx is done: it reads
// workloads and sends facts. It is never called twice at a time; after an error
// it is called again, and then hears every workload anew.
type Detector interface {
	Detect(ctx context.Context, workloads <-chan *protov1.InventoryChanges, facts Facts) error
}

// Facts takes what a detector found. Send blocks only while the daemon is
// slower than the detector, and returns ctx's error when Detect's context is
// done. It may be called from several goroutines.
type Facts interface {
	Send(*protov1.MeshChanges) error
	// Degraded says that something the detector depends on does not answer;
	// "" takes it back.
	Degraded(reason string)
}
