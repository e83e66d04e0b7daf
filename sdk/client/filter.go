package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ListFilters lists the filters and priority blocks in force, of the configuration, of
// callers and of the sampler, in the order in which they decide.
func (c *Client) ListFilters(ctx context.Context) ([]*protov1.FilterView, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.ListFilters(ctx, &protov1.ListFiltersRequest{})
	if err != nil {
		return nil, c.explain(err)
	}
	var all []*protov1.FilterView
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, c.explain(err)
		}
		all = append(all, page.GetFilters()...)
	}
}

// AddFilters puts filters into force, all of them or none, until their time is up, they
// are removed or the daemon ends. ttl is at most 30 days; 0: until they are removed. One
// whose name was added before takes the place of that, with ttl anew. Those of the
// configuration come first: what one of them keeps is not filtered.
//
// There is room for 32 together with those of the configuration and its priority blocks,
// and beside them for 4096 that drop by one value alone: a name of a process, an address
// or prefix, a pid, uid, port, error or call. Of these it is much faster to add many with
// one call, of at most 1 MiB. The error is ErrNoRoom when there are too many; what is
// wrong with one names its field.
func (c *Client) AddFilters(ctx context.Context, ttl time.Duration, filters ...*protov1.Filter) (*protov1.AddFiltersResponse, error) {
	r, err := c.rpc.AddFilters(ctx, &protov1.AddFiltersRequest{Filters: filters, TtlNano: int64(ttl)})
	if status.Code(err) == codes.ResourceExhausted {
		return nil, &Error{status.Convert(err).Message(), ErrNoRoom, err}
	}
	if err != nil {
		return nil, c.explain(err)
	}
	return r, nil
}

// RemoveFilter takes out a filter that was added, and gives how many events it has
// filtered, or given another priority. The error is ErrNoFilter when none of that name
// was added.
func (c *Client) RemoveFilter(ctx context.Context, name string) (events uint64, err error) {
	r, err := c.rpc.RemoveFilter(ctx, &protov1.RemoveFilterRequest{Name: name})
	switch {
	case err != nil:
		return 0, c.explain(err)
	case r.GetFound():
		return r.GetEvents(), nil
	}
	switch r.GetSource() {
	case "config":
		return 0, &Error{fmt.Sprintf("filter %q is of the configuration: take it out there, and run 'ebpf-tracer reload'", name), ErrNoFilter, nil}
	case "sampler":
		return 0, &Error{fmt.Sprintf("filter %q is of the sampler, and holds as long as its policy", name), ErrNoFilter, nil}
	}
	return 0, &Error{fmt.Sprintf("no filter %q was added: 'ebpf-tracer get filters' lists those that are in force", name), ErrNoFilter, nil}
}
