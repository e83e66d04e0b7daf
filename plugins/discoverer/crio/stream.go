package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What waits for the tracker. A runtime sends its events to one client after the other
// and waits for each, the kubelet too, so they are read at once and dropped here, where
// it is noticed.
const (
	maxEvents     = 4096
	maxEventBytes = 8 << 20
)

// happening is one event of the runtime, without what it tells of other containers of
// the pod.
type happening struct {
	kind    cri.ContainerEventType
	id      string
	at      int64                 // ns
	sandbox *cri.PodSandboxStatus // nil: not told
	status  *cri.ContainerStatus  // nil: not told, as of a sandbox's own container
	bytes   int64
}

// stream is the runtime's events, read as they come.
type stream struct {
	events chan happening
	bytes  atomic.Int64  // of those that wait
	lost   atomic.Uint64 // dropped since the stream began
	done   chan error    // gets why the stream ended, once
}

// events opens the stream. It ends with ctx, and then done must be read. That the
// runtime has begun to send can't be known before the first event.
func (c *connection) events(ctx context.Context) *stream {
	s := &stream{events: make(chan happening, maxEvents), done: make(chan error, 1)}
	go func() { s.done <- s.read(ctx, c) }()
	return s
}

func (s *stream) read(ctx context.Context, c *connection) error {
	from, err := c.runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return fmt.Errorf("open the stream of events: %w", err)
	}
	for {
		e, err := from.Recv()
		if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
		h := happened(e)
		if s.bytes.Add(h.bytes) > maxEventBytes && len(s.events) > 0 {
			s.drop(h)
			continue
		}
		select {
		case s.events <- h:
		default:
			s.drop(h)
		}
	}
}

func (s *stream) drop(h happening) {
	s.bytes.Add(-h.bytes)
	s.lost.Add(1)
}

// taken says that an event does not wait any longer.
func (s *stream) taken(h happening) { s.bytes.Add(-h.bytes) }

func happened(e *cri.ContainerEventResponse) happening {
	h := happening{kind: e.GetContainerEventType(), id: e.GetContainerId(), at: e.GetCreatedAt(), sandbox: e.GetPodSandboxStatus()}
	for _, s := range e.GetContainersStatuses() {
		if s.GetId() == h.id { // one that went meanwhile is there without an id
			h.status = s
		}
	}
	h.bytes = int64(len(h.id) + 64 + proto.Size(h.sandbox) + proto.Size(h.status))
	return h
}
