package client

import (
	"context"
	"errors"
	"io"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// EventFilter says which events to watch.
type EventFilter struct {
	Kinds     []string // "process.exec", ...; empty: all that are not internal
	Container string   // an id's beginning, or a name; "": all, and the host's own
}

// Events is a batch of events.
type Events struct {
	// Lines are whole lines of JSON, one an event, each ended by \n.
	Lines []byte
	// Dropped is how many events this watch has missed since it began, because
	// it was read too slowly.
	Dropped uint64
}

// EventStream is a watch under way. It ends with the context of WatchEvents.
type EventStream struct {
	client *Client
	stream interface {
		Recv() (*protov1.EventLines, error)
	}
}

// WatchEvents shows events as they are released, from now on: when it has
// returned, the watch has begun. Cancel ctx to end it.
func (c *Client) WatchEvents(ctx context.Context, f EventFilter) (*EventStream, error) {
	stream, err := c.rpc.WatchEvents(ctx, &protov1.WatchEventsRequest{Kinds: f.Kinds, Container: f.Container})
	if err != nil {
		return nil, c.explain(err)
	}
	// A refusal comes without a header; Recv has its reason.
	header, err := stream.Header()
	if err != nil {
		return nil, c.explain(err)
	}
	if header == nil {
		_, err := stream.Recv()
		return nil, c.explain(err)
	}
	return &EventStream{client: c, stream: stream}, nil
}

// Recv waits for the next batch. When the daemon stops the error is ErrNotRunning.
// It is for one goroutine.
func (s *EventStream) Recv() (Events, error) {
	m, err := s.stream.Recv()
	if errors.Is(err, io.EOF) {
		return Events{}, ErrNotRunning
	}
	if err != nil {
		return Events{}, s.client.explain(err)
	}
	return Events{Lines: m.GetLines(), Dropped: m.GetDropped()}, nil
}
