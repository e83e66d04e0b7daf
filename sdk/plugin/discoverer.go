package plugin

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// discovererServer serves an author's Discoverer.
type discovererServer struct {
	protov1.UnimplementedDiscovererServer
	slot    slot
	process *process
	// impl and node are written once, before process.configured is.
	impl discover.Discoverer
	node *protov1.Node
}

var _ protov1.DiscovererServer = (*discovererServer)(nil)

func (s *discovererServer) Detect(ctx context.Context, _ *protov1.DetectRequest) (*protov1.DetectResponse, error) {
	if !s.process.isConfigured() {
		return nil, status.Error(codes.FailedPrecondition, "the plugin is not configured yet")
	}
	detail, err := s.impl.Detect(ctx)
	switch {
	case errors.Is(err, discover.ErrAbsent):
		if detail == "" {
			detail = err.Error()
		}
		return &protov1.DetectResponse{Detail: detail}, nil
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &protov1.DetectResponse{Present: true, Detail: detail}, nil
}

func (s *discovererServer) Discover(stream grpc.BidiStreamingServer[protov1.HostFacts, protov1.InventoryChanges]) error {
	return s.process.stream(stream.Context(), s.slot, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		inv := newInventory(ctx, s.process.setDegraded)
		sent := make(chan error, 1)
		go func() {
			err := inv.send(counted(&s.process.sent, stream.Send))
			if err != nil {
				cancel() // the author's calls must not wait for a dead stream
			}
			sent <- err
		}()
		host := &host{node: s.node, subscribe: inv.subscribe, facts: make(chan *protov1.HostFacts)}
		// Recv returns only after this handler has, so its goroutine can't be
		// waited for here; with ctx done it delivers nothing more and ends.
		go host.receive(ctx, received(&s.process.received, stream.Recv))
		err := s.impl.Discover(ctx, host, inv)
		inv.close()
		sendErr := <-sent
		return errors.Join(err, sendErr)
	})
}

// host is what a discoverer hears of the daemon.
type host struct {
	node      *protov1.Node
	subscribe func(*protov1.Subscribe) error
	facts     chan *protov1.HostFacts
	once      sync.Once
}

var _ discover.Host = (*host)(nil)

func (h *host) Node() *protov1.Node { return h.node }

func (h *host) Facts(s *protov1.Subscribe) <-chan *protov1.HostFacts {
	h.once.Do(func() {
		// It fails only with Discover's context, and then the channel closes.
		_ = h.subscribe(s)
	})
	return h.facts
}

// receive delivers facts. A discoverer that reads slowly holds up the stream:
// the daemon's queue is the one that is bounded and counted.
func (h *host) receive(ctx context.Context, recv func() (*protov1.HostFacts, error)) {
	defer close(h.facts)
	for {
		f, err := recv()
		if err != nil {
			return // the stream has ended, and with it ctx
		}
		select {
		case h.facts <- f:
		case <-ctx.Done():
			return
		}
	}
}
