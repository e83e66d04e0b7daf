// Package mesh is what the author of a service-mesh detector implements: the
// kind of plugin that tells which workloads are in a mesh, and as whom.
package mesh

import (
	"context"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Detector tells the mesh of workloads. Its life:
//
//  1. It is built by New, which waits for nothing outside the process.
//  2. Detect is called and runs until ctx is done. It reads workloads: a reset, what
//     there is, synced, and then each change. A second reset, at any time, starts the
//     list over: what it does not tell again is gone.
//  3. Detect sends facts by the same rules: a reset first, then facts, and synced
//     once every workload of the list was looked at, also when there is no fact.
//  4. Then it sends a fact whenever one changes, and a removal when a workload has
//     none any more. It tells only of workloads that it was told of.
//  5. When what it depends on does not answer, Detect does not return: it says so
//     with facts.Degraded and tries again by itself (package backoff).
//  6. When ctx is done, or workloads is closed, Detect returns, at once; half a second
//     later its process is ended.
//  7. After an error, or a stream that broke, Detect is called again, and hears every
//     workload anew. It is never called twice at a time.
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
