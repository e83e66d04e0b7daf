package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
)

// maxAnswer bounds what is read of one answer: twice what a kubelet takes.
const maxAnswer = 32 << 20

// engine is what the runtime says of itself.
type engine struct {
	name    string // cri-o, containerd, ...
	version string
}

// connection is a client of one runtime, from connect to close. Every request but the
// stream of events ends within its timeout. It is safe for concurrent use.
type connection struct {
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	timeout time.Duration
	engine  engine
	inspect *inspector // CRI-O's own service; nil: another runtime
}

// dial connects to the runtime and asks who it is.
func dial(ctx context.Context, socket string, timeout time.Duration) (*connection, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return quiet.Dial(ctx, socket, timeout)
		}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
		// Fixed, so that no message is followed by a ping to measure the connection.
		grpc.WithInitialWindowSize(256<<10), grpc.WithInitialConnWindowSize(1<<20),
		grpc.WithReadBufferSize(8<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", socket, err)
	}
	c := &connection{conn: conn, runtime: cri.NewRuntimeServiceClient(conn), timeout: timeout}
	if err := c.hello(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if c.engine.name == runtimeCRIO {
		c.inspect = newInspector(socket, timeout)
	}
	return c, nil
}

// What runtimes call themselves.
const (
	runtimeCRIO       = "cri-o"
	runtimeContainerd = "containerd"
)

func (c *connection) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	v, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	if err != nil {
		return fmt.Errorf("ask for the version: %w", err)
	}
	c.engine = engine{name: strings.ToLower(describe.Cut(v.GetRuntimeName(), describe.MaxName)), version: describe.Cut(v.GetRuntimeVersion(), describe.MaxName)}
	return nil
}

func (c *connection) close() error {
	c.inspect.close()
	return c.conn.Close()
}

// ping tells whether the runtime still answers.
func (c *connection) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	return err
}

// list is all that the runtime has. A container that is younger than the answer's
// beginning may be in it without its sandbox, or the other way round.
type list struct {
	containers []*cri.Container
	sandboxes  []*cri.PodSandbox
}

// list may take four times as long as another request: it is as long as there are
// containers.
func (c *connection) list(ctx context.Context) (list, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*c.timeout)
	defer cancel()
	containers, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return list{}, fmt.Errorf("list the containers: %w", err)
	}
	sandboxes, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return list{}, fmt.Errorf("list the pod sandboxes: %w", err)
	}
	return list{containers.GetContainers(), sandboxes.GetItems()}, nil
}

// container asks for all that is known of a container. What a runtime adds to the status
// may be gone before the container is; then the status alone is asked for.
func (c *connection) container(ctx context.Context, id string) (*cri.ContainerStatusResponse, error) {
	r, err := c.containerStatus(ctx, id, true)
	if isBroken(err) {
		r, err = c.containerStatus(ctx, id, false)
	}
	if err == nil && r.GetStatus().GetId() != id {
		err = fmt.Errorf("ask for the container %s: %w", id, errAnother)
	}
	return r, err
}

func (c *connection) containerStatus(ctx context.Context, id string, verbose bool) (*cri.ContainerStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: verbose})
}

// sandbox asks for all that is known of a pod sandbox.
func (c *connection) sandbox(ctx context.Context, id string) (*cri.PodSandboxStatusResponse, error) {
	r, err := c.sandboxStatus(ctx, id, true)
	if isBroken(err) {
		r, err = c.sandboxStatus(ctx, id, false)
	}
	if err == nil && r.GetStatus().GetId() != id {
		err = fmt.Errorf("ask for the pod sandbox %s: %w", id, errAnother)
	}
	return r, err
}

func (c *connection) sandboxStatus(ctx context.Context, id string, verbose bool) (*cri.PodSandboxStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: id, Verbose: verbose})
}

// find tells what has an id, by lists that are short: an id that nothing has is no
// error to the runtime then. It returns errNotFound for it.
func (c *connection) find(ctx context.Context, id string, w want) (want, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if w != wantSandbox {
		r, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{Id: id}})
		if err != nil {
			return w, fmt.Errorf("look for the container %s: %w", id, err)
		}
		if len(r.GetContainers()) > 0 {
			return wantContainer, nil
		}
	}
	if w != wantContainer {
		r, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{Id: id}})
		if err != nil {
			return w, fmt.Errorf("look for the pod sandbox %s: %w", id, err)
		}
		if len(r.GetItems()) > 0 {
			return wantSandbox, nil
		}
	}
	return w, errNotFound
}

// errNotFound is that the runtime has nothing of an id.
var errNotFound = errors.New("nothing has this id")

var errAnother = errors.New("the answer is about another")

// isNotFound tells that the runtime knows no such thing.
func isNotFound(err error) bool {
	return errors.Is(err, errNotFound) || status.Code(err) == codes.NotFound
}

// isBroken tells that the runtime answered, and could not say what it was asked for.
func isBroken(err error) bool {
	c := status.Code(err)
	return c == codes.Unknown || c == codes.Internal
}

// isSilent tells that no answer came in time.
func isSilent(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
}

// isEnd tells that a stream ended without an error, or was never there: runtimes that
// send no events do the one or the other.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || status.Code(err) == codes.Unimplemented
}
