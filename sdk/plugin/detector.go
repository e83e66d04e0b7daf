package plugin

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// detectorServer serves an author's Detector.
type detectorServer struct {
	protov1.UnimplementedDetectorServer
	slot    slot
	process *process
	impl    mesh.Detector // written once, before process.configured is
}

var _ protov1.DetectorServer = (*detectorServer)(nil)

func (s *detectorServer) Detect(stream grpc.BidiStreamingServer[protov1.InventoryChanges, protov1.MeshChanges]) error {
	return s.process.stream(stream.Context(), s.slot, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		workloads := make(chan *protov1.InventoryChanges)
		// As in Discover: ends right after this handler.
		recv := received(&s.process.received, stream.Recv)
		go func() {
			defer close(workloads)
			for {
				w, err := recv()
				if err != nil {
					return // the stream has ended
				}
				select {
				case workloads <- w:
				case <-ctx.Done():
					return
				}
			}
		}()
		return s.impl.Detect(ctx, workloads, &facts{ctx: ctx, write: counted(&s.process.sent, stream.Send), degraded: s.process.setDegraded})
	})
}

// facts sends what a detector found.
type facts struct {
	ctx      context.Context
	degraded func(string)
	mu       sync.Mutex // one writer at a time
	write    func(*protov1.MeshChanges) error
}

var _ mesh.Facts = (*facts)(nil)

func (f *facts) Send(c *protov1.MeshChanges) error {
	if c == nil {
		return errors.New("send facts: they are nil")
	}
	if n := proto.Size(c); n > wire.MaxMessage {
		return fmt.Errorf("send facts in %d bytes: the daemon takes %d at a time; send them in parts", n, wire.MaxMessage)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.ctx.Err(); err != nil {
		return err
	}
	if err := f.write(c); err != nil {
		if f.ctx.Err() != nil {
			return f.ctx.Err()
		}
		return fmt.Errorf("send facts: %w", err)
	}
	return nil
}

func (f *facts) Degraded(reason string) { f.degraded(reason) }
