package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// mostFound is how many containers one word may mean; beyond it the user has to say
// more anyway.
const mostFound = 16

func (t *tracer) ListContainers(_ *protov1.ListContainersRequest, stream grpc.ServerStreamingServer[protov1.ListContainersResponse]) error {
	return pages(t.source.Containers(), stream.Send)
}

func (t *tracer) GetContainer(_ context.Context, r *protov1.GetContainerRequest) (*protov1.GetContainerResponse, error) {
	if r.GetId() == "" {
		return nil, status.Error(codes.InvalidArgument, "which container? give an id, the beginning of one, or a name")
	}
	out := &protov1.GetContainerResponse{}
	for _, c := range t.source.FindContainers(r.GetId(), mostFound) {
		c, _ = shown(c)
		out.Containers = append(out.Containers, c)
	}
	return out, nil
}

func (t *tracer) GetContainerByPID(_ context.Context, r *protov1.GetContainerByPIDRequest) (*protov1.GetContainerByPIDResponse, error) {
	pid := r.GetPid()
	if pid == 0 {
		return nil, status.Error(codes.InvalidArgument, "0 is no process")
	}
	if r.GetContainer() != "" {
		found := t.source.FindContainers(r.GetContainer(), mostFound)
		switch len(found) {
		case 0:
			return &protov1.GetContainerByPIDResponse{}, nil
		case 1:
		default:
			return nil, status.Error(codes.InvalidArgument, ambiguous(r.GetContainer(), found))
		}
		c := found[0].GetContainer()
		var err error
		pid, err = t.source.HostPID(&protov1.ContainerRef{Id: c.GetId(), Scope: c.GetScope()}, pid)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, status.Errorf(codes.NotFound, "container %s has no process %d", r.GetContainer(), r.GetPid())
		case err != nil:
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	process, c, err := t.source.Process(pid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, status.Errorf(codes.NotFound, "there is no process %d", pid)
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	out := &protov1.GetContainerByPIDResponse{Process: process}
	if c != nil {
		out.Found = true
		out.Container, _ = shown(c)
	}
	return out, nil
}

// ambiguous says which containers a word means.
func ambiguous(word string, found []*protov1.ContainerView) string {
	names := make([]string, len(found))
	for i, v := range found {
		c := v.GetContainer()
		id := c.GetId()
		if c.GetScope() != "" {
			id = c.GetScope() + "/" + id
		}
		names[i] = inLine(id)
		if c.GetName() != "" && c.GetName() != id {
			names[i] = fmt.Sprintf("%s (%s)", inLine(c.GetName()), inLine(id))
		}
	}
	if len(found) == mostFound {
		names = append(names, "...")
	}
	return fmt.Sprintf("%q could be any of %s", head(word), strings.Join(names, ", "))
}

// inLine is a name for a line of text: not too long, and on that line whatever is in it.
func inLine(name string) string { return strings.Trim(strconv.Quote(head(name)), `"`) }
