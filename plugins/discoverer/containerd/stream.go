package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
)

// maxEvents is how many events wait for the tracker. containerd keeps those of a slow
// reader without bound, so they are read at once and dropped here, where it is noticed.
const maxEvents = 2048

// stream is containerd's events, read as they come.
type stream struct {
	events    chan event
	lost      atomic.Uint64 // dropped since the stream began
	malformed atomic.Uint64 // not understood since it began
	done      chan error    // gets why the stream ended, once
}

// subscribe opens the stream. It ends with ctx, and then done must be read.
func (c *connection) subscribe(ctx context.Context, s scope) (*stream, error) {
	client, err := c.events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: s.filters()})
	if err != nil {
		return nil, fmt.Errorf("subscribe to events: %w", err)
	}
	out := &stream{events: make(chan event, maxEvents), done: make(chan error, 1)}
	go out.read(client, s)
	return out, nil
}

func (s *stream) read(from eventsapi.Events_SubscribeClient, wanted scope) {
	for {
		envelope, err := from.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("containerd closed the stream of events")
			}
			s.done <- fmt.Errorf("read events: %w", err)
			return
		}
		e, err := read(envelope)
		switch {
		case err != nil:
			s.malformed.Add(1)
			continue
		case e.action == noAction, !wanted.has(e.key.namespace):
			continue
		}
		select {
		case s.events <- e:
		default:
			s.lost.Add(1)
		}
	}
}
