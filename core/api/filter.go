package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/filter"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Filterer is a Source whose filters can be listed, added and removed. Without it callers
// are told that the daemon does not know the question. An error that wraps a
// *diag.Refusal says what is wrong with a filter, filter.ErrNoRoom that there are too many.
type Filterer interface {
	Filters() ([]*protov1.FilterView, error)
	// AddFilters adds all, or none. They end after ttl; 0: never.
	AddFilters(filters []*protov1.Filter, ttl time.Duration) (*protov1.AddFiltersResponse, error)
	RemoveFilter(name string) (*protov1.RemoveFilterResponse, error)
}

// maxTTL of a filter that is added.
const maxTTL = 30 * 24 * time.Hour

func (t *tracer) ListFilters(r *protov1.ListFiltersRequest, stream grpc.ServerStreamingServer[protov1.ListFiltersResponse]) error {
	f, ok := t.source.(Filterer)
	if !ok {
		return t.UnimplementedTracerServer.ListFilters(r, stream)
	}
	all, err := f.Filters()
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	page, size := &protov1.ListFiltersResponse{}, 0
	for _, v := range all {
		n := proto.Size(v) + 8 // the field's tag and length
		if len(page.Filters) > 0 && size+n > maxPage {
			if err := stream.Send(page); err != nil {
				return err
			}
			page, size = &protov1.ListFiltersResponse{}, 0
		}
		page.Filters = append(page.Filters, v)
		size += n
	}
	return stream.Send(page)
}

// AddFilters is for whoever authorize lets in: root, and whom the daemon runs as.
func (t *tracer) AddFilters(ctx context.Context, r *protov1.AddFiltersRequest) (*protov1.AddFiltersResponse, error) {
	f, ok := t.source.(Filterer)
	if !ok {
		return t.UnimplementedTracerServer.AddFilters(ctx, r)
	}
	ttl := time.Duration(r.GetTtlNano())
	switch {
	case len(r.GetFilters()) == 0:
		return nil, status.Error(codes.InvalidArgument, "which filter? none was given")
	case ttl < 0 || ttl > maxTTL:
		return nil, status.Errorf(codes.InvalidArgument, "ttl: %v is not allowed: a filter ends within %v, or with 0 not by itself", ttl, maxTTL)
	}
	answer, err := f.AddFilters(r.GetFilters(), ttl)
	if err != nil {
		return nil, filterError(err)
	}
	return answer, nil
}

// RemoveFilter is for whoever authorize lets in: root, and whom the daemon runs as.
func (t *tracer) RemoveFilter(ctx context.Context, r *protov1.RemoveFilterRequest) (*protov1.RemoveFilterResponse, error) {
	f, ok := t.source.(Filterer)
	if !ok {
		return t.UnimplementedTracerServer.RemoveFilter(ctx, r)
	}
	if r.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "which filter? give its name")
	}
	answer, err := f.RemoveFilter(r.GetName())
	if err != nil {
		return nil, filterError(err)
	}
	return answer, nil
}

func filterError(err error) error {
	var refusal *diag.Refusal
	switch {
	case errors.As(err, &refusal):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, filter.ErrNoRoom):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}
