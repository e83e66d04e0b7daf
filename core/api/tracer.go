package api

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// tracer answers the calls.
type tracer struct {
	protov1.UnimplementedTracerServer
	source  Source
	live    *exporter.Live
	closing context.Context // done: the server closes
}

func (t *tracer) GetVersion(context.Context, *protov1.GetVersionRequest) (*protov1.GetVersionResponse, error) {
	return t.source.Version(), nil
}

func (t *tracer) ListPlugins(context.Context, *protov1.ListPluginsRequest) (*protov1.ListPluginsResponse, error) {
	return &protov1.ListPluginsResponse{Plugins: t.source.Plugins()}, nil
}

func (t *tracer) GetStats(context.Context, *protov1.GetStatsRequest) (*protov1.Stats, error) {
	s, err := t.source.Stats()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return s, nil
}

// Reload is for whoever authorize lets in: root, and whom the daemon runs as.
func (t *tracer) Reload(ctx context.Context, _ *protov1.ReloadRequest) (*protov1.ReloadResponse, error) {
	r, err := t.source.Reload(ctx)
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return nil, status.Error(codes.Unavailable, err.Error())
}

// ShouldSample decides on one event of whoever authorize lets in.
func (t *tracer) ShouldSample(ctx context.Context, r *protov1.ShouldSampleRequest) (*protov1.ShouldSampleResponse, error) {
	d, ok := t.source.(Decider)
	if !ok {
		return t.UnimplementedTracerServer.ShouldSample(ctx, r)
	}
	answer, err := d.ShouldSample(r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return answer, nil
}

// ExchangeUserEvents takes a program's counts.
func (t *tracer) ExchangeUserEvents(ctx context.Context, r *protov1.UserReport) (*protov1.UserTable, error) {
	d, ok := t.source.(Decider)
	if !ok {
		return t.UnimplementedTracerServer.ExchangeUserEvents(ctx, r)
	}
	answer, err := d.ExchangeUserEvents(r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return answer, nil
}

// lastBatches is how many batches a watch still gets when the server closes while
// events go on coming.
const lastBatches = 16

func (t *tracer) WatchEvents(r *protov1.WatchEventsRequest, stream grpc.ServerStreamingServer[protov1.EventLines]) error {
	filter := exporter.WatchFilter{Container: r.GetContainer()}
	for _, name := range r.GetKinds() {
		kind, ok := event.ParseKind(name)
		if !ok {
			return status.Errorf(codes.InvalidArgument, "no kind of event is named %q: there are %s", name, kindNames())
		}
		filter.Kinds = append(filter.Kinds, kind)
	}
	watch, err := t.live.Watch(filter)
	if err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	defer watch.Close()
	// What tells the reader that the watch has begun.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(t.closing, cancel)()
	stopped := status.Error(codes.Unavailable, "the daemon has stopped")
	for last := lastBatches; last > 0; {
		if t.closing.Err() != nil {
			last--
		}
		lines, dropped, err := watch.Next(ctx)
		switch {
		case errors.Is(err, io.EOF) || err != nil && t.closing.Err() != nil:
			return stopped
		case err != nil:
			return status.FromContextError(err).Err()
		}
		if err := stream.Send(&protov1.EventLines{Lines: lines, Dropped: dropped}); err != nil {
			return err
		}
	}
	return stopped
}

func kindNames() string {
	var names []string
	for k := range event.Kinds {
		names = append(names, k.String())
	}
	return strings.Join(names, ", ")
}
