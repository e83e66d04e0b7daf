package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types/task"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
)

const (
	// maxMessage is the largest answer that is read, and that containerd sends.
	maxMessage = 16 << 20
	// A list is sent no faster than it is read; so much of it may be on its way.
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
	buffers          = 16 << 10
)

// connection is a client of one containerd, from connect to close. Every request but the
// stream of events ends within its timeout. It is safe for concurrent use.
type connection struct {
	conn    *grpc.ClientConn
	timeout time.Duration
	release string // containerd's version

	containers containersapi.ContainersClient
	events     eventsapi.EventsClient
	images     imagesapi.ImagesClient
	namespaces namespacesapi.NamespacesClient
	tasks      tasksapi.TasksClient
	version    versionapi.VersionClient

	mu        sync.Mutex
	digests   map[image]string // of images, "" for those that the store has not
	forgotten uint64           // times that any was forgotten
}

type image struct{ namespace, name string }

// maxDigests bounds the memory of images' digests: beyond it, it starts anew.
const maxDigests = 2048

// dial connects to containerd and asks for its version.
func dial(ctx context.Context, socket string, timeout time.Duration) (*connection, error) {
	conn, err := grpc.NewClient("passthrough:///containerd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return quiet.Dial(ctx, socket, timeout)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(buffers), grpc.WithWriteBufferSize(buffers),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
	)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", socket, err)
	}
	c := &connection{
		conn: conn, timeout: timeout, digests: map[image]string{},
		containers: containersapi.NewContainersClient(conn), events: eventsapi.NewEventsClient(conn),
		images: imagesapi.NewImagesClient(conn), namespaces: namespacesapi.NewNamespacesClient(conn),
		tasks: tasksapi.NewTasksClient(conn), version: versionapi.NewVersionClient(conn),
	}
	if c.release, err = c.ping(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *connection) close() error { return c.conn.Close() }

// ping asks for the version, and so whether containerd still answers.
func (c *connection) ping(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	v, err := c.version.Version(ctx, &emptypb.Empty{})
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	return describe.Cut(v.GetVersion(), 64), nil
}

// within puts a request into a namespace.
func within(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// listNamespaces of those that are followed.
func (c *connection) listNamespaces(ctx context.Context, s scope) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := c.namespaces.List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the namespaces: %w", err)
	}
	var out []string
	for _, n := range r.GetNamespaces() {
		if s.has(n.GetName()) {
			out = append(out, n.GetName())
		}
	}
	return out, nil
}

// listTasks of a namespace, by the container's id. containerd asks each container's shim
// in turn, and waits two seconds for one that hangs, so it may take four times as long as
// another request.
func (c *connection) listTasks(ctx context.Context, namespace string) (map[string]*task.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*c.timeout)
	defer cancel()
	r, err := c.tasks.List(within(ctx, namespace), &tasksapi.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the tasks of namespace %q: %w", namespace, err)
	}
	out := make(map[string]*task.Process, len(r.GetTasks()))
	for _, p := range r.GetTasks() {
		out[p.GetID()] = p
	}
	return out, nil
}

// eachContainer calls f with the containers of a namespace, one at a time: together they
// may be larger than a message, and than what should be held. However many there are, the
// next has to come within the timeout.
func (c *connection) eachContainer(ctx context.Context, namespace string, f func(*containersapi.Container) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	defer late.Stop()
	stream, err := c.containers.ListStream(within(ctx, namespace), &containersapi.ListContainersRequest{})
	for err == nil {
		var m *containersapi.ListContainerMessage
		if m, err = stream.Recv(); err == nil {
			late.Stop()
			err = f(m.GetContainer())
			late.Reset(c.timeout)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("list the containers of namespace %q: %w", namespace, err)
}

// get a container.
func (c *connection) get(ctx context.Context, k key) (*containersapi.Container, error) {
	r, err := c.containers.Get(within(ctx, k.namespace), &containersapi.GetContainerRequest{ID: k.id})
	if err != nil {
		return nil, err
	}
	return r.GetContainer(), nil
}

// digest of an image's manifest, or of its index where it is for several platforms. The
// store is asked once per image; "": it is gone, or did not answer.
func (c *connection) digest(ctx context.Context, i image) string {
	if i.name == "" {
		return ""
	}
	c.mu.Lock()
	d, ok := c.digests[i]
	asked := c.forgotten
	c.mu.Unlock()
	if ok {
		return d
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := c.images.Get(within(ctx, i.namespace), &imagesapi.GetImageRequest{Name: i.name})
	if err != nil && !isNotFound(err) {
		return "" // not remembered: asked again with the next container
	}
	d = describe.Cut(r.GetImage().GetTarget().GetDigest(), describe.MaxName)
	c.mu.Lock()
	defer c.mu.Unlock()
	if asked != c.forgotten {
		return d // it may have changed since
	}
	if len(c.digests) >= maxDigests {
		clear(c.digests)
	}
	c.digests[i] = d
	return d
}

// forget an image's digest; without a name, of all in the namespace.
func (c *connection) forget(i image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten++
	if i.name != "" {
		delete(c.digests, i)
		return
	}
	for other := range c.digests {
		if other.namespace == i.namespace {
			delete(c.digests, other)
		}
	}
}

func isNotFound(err error) bool { return grpcstatus.Code(err) == codes.NotFound }

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || grpcstatus.Code(err) == codes.DeadlineExceeded
}
