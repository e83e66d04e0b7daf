package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ListContainers lists the containers that are described now, in no order. Values
// of environment variables are left out.
func (c *Client) ListContainers(ctx context.Context) ([]*protov1.ContainerView, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.ListContainers(ctx, &protov1.ListContainersRequest{})
	if err != nil {
		return nil, c.explain(err)
	}
	var all []*protov1.ContainerView
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, c.explain(err)
		}
		all = append(all, page.GetContainers()...)
	}
}

// GetContainer finds a container by what a user calls it: its whole id, or SCOPE/ID;
// else its name; else the beginning of its id. The error is ErrNoContainer when there
// is none, and an *AmbiguousError when there are several.
func (c *Client) GetContainer(ctx context.Context, id string) (*protov1.ContainerView, error) {
	r, err := c.rpc.GetContainer(ctx, &protov1.GetContainerRequest{Id: id})
	if err != nil {
		return nil, c.explain(err)
	}
	switch found := r.GetContainers(); len(found) {
	case 0:
		return nil, noContainer(id)
	case 1:
		return found[0], nil
	default:
		return nil, &AmbiguousError{Word: id, Containers: found}
	}
}

func noContainer(word string) error {
	return &Error{fmt.Sprintf("no container is known by the id or name %q", word), ErrNoContainer, nil}
}

// AmbiguousError says that a word means several containers.
type AmbiguousError struct {
	Word       string
	Containers []*protov1.ContainerView // the first ones, in the order of their names and ids
}

// Error names the containers.
func (e *AmbiguousError) Error() string {
	names := make([]string, len(e.Containers))
	for i, v := range e.Containers {
		c := v.GetContainer()
		names[i] = c.GetId()
		if c.GetScope() != "" {
			names[i] = c.GetScope() + "/" + c.GetId()
		}
	}
	return fmt.Sprintf("%q means several containers: %s", e.Word, strings.Join(slices.Compact(names), ", "))
}

// GetContainerByPID is the container that a process belongs to, by its pid in the
// host's pid namespace. The error is ErrNoContainer when the process is the host's
// own or its container is not known, ErrNoProcess when there is no such process.
func (c *Client) GetContainerByPID(ctx context.Context, pid uint32) (*protov1.ContainerView, error) {
	_, container, err := c.GetProcess(ctx, pid)
	if err == nil && container == nil {
		err = fmt.Errorf("process %d: %w", pid, ErrNoContainer)
	}
	return container, err
}

// GetProcess tells what a process of the host is called in its own namespaces, and the
// container that it belongs to, nil when it is the host's own or its container is not
// known. The error is ErrNoProcess when there is no such process.
func (c *Client) GetProcess(ctx context.Context, pid uint32) (*protov1.ProcessView, *protov1.ContainerView, error) {
	return c.process(ctx, &protov1.GetContainerByPIDRequest{Pid: pid})
}

// GetContainerProcess is GetProcess by the pid that a process has in a container, which
// is given as to GetContainer. The error is ErrNoContainer when there is no such
// container, ErrNoProcess when there is no such process.
func (c *Client) GetContainerProcess(ctx context.Context, container string, pid uint32) (*protov1.ProcessView, *protov1.ContainerView, error) {
	process, view, err := c.process(ctx, &protov1.GetContainerByPIDRequest{Pid: pid, Container: container})
	if err == nil && process == nil {
		err = noContainer(container)
	}
	return process, view, err
}

func (c *Client) process(ctx context.Context, r *protov1.GetContainerByPIDRequest) (*protov1.ProcessView, *protov1.ContainerView, error) {
	answer, err := c.rpc.GetContainerByPID(ctx, r)
	if err != nil {
		return nil, nil, c.explain(err)
	}
	if !answer.GetFound() {
		return answer.GetProcess(), nil, nil
	}
	return answer.GetProcess(), answer.GetContainer(), nil
}
