package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// DefaultSocket is where a daemon listens unless it is told otherwise.
const DefaultSocket = "/run/ebpf-tracer/api.sock"

// maxMessage is the largest answer that is taken, in bytes. Containers and events
// come in parts of about 1 MiB.
const maxMessage = 16 << 20

// Client is a connection to a daemon. It is safe for use by several goroutines,
// connects again by itself when the daemon was restarted, and must be closed.
type Client struct {
	socket string
	conn   *grpc.ClientConn
	rpc    protov1.TracerClient
}

// Dial connects to the daemon that listens on a unix socket. The error is
// ErrNotRunning or ErrPermission, with what to do, or ctx's.
func Dial(ctx context.Context, socket string) (*Client, error) {
	// One connection is tried right away, for its error: gRPC's own would come
	// with the first call, wrapped up.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err == nil {
		err = conn.Close()
	}
	if err != nil {
		return nil, dialError(socket, err)
	}
	c := &Client{socket: socket}
	c.conn, err = grpc.NewClient("passthrough:///ebpf-tracer",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket of this host
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	c.rpc = protov1.NewTracerClient(c.conn)
	return c, nil
}

// Close ends the connection, and with it every stream.
func (c *Client) Close() error { return c.conn.Close() }

// Version tells what the daemon was built from and the kernel it runs on.
func (c *Client) Version(ctx context.Context) (*protov1.GetVersionResponse, error) {
	v, err := c.rpc.GetVersion(ctx, &protov1.GetVersionRequest{})
	return v, c.explain(err)
}

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

// GetContainerByPID is the container that a process belongs to, by its pid in the
// host's pid namespace. The error is ErrNoContainer when the process is the host's
// own or its container is not known, ErrNoProcess when there is no such process.
func (c *Client) GetContainerByPID(ctx context.Context, pid uint32) (*protov1.ContainerView, error) {
	r, err := c.rpc.GetContainerByPID(ctx, &protov1.GetContainerByPIDRequest{Pid: pid})
	if err != nil {
		return nil, c.explain(err)
	}
	if !r.GetFound() {
		return nil, fmt.Errorf("process %d: %w", pid, ErrNoContainer)
	}
	return r.GetContainer(), nil
}

// ListPlugins lists the plugins and how they are.
func (c *Client) ListPlugins(ctx context.Context) ([]*protov1.PluginView, error) {
	r, err := c.rpc.ListPlugins(ctx, &protov1.ListPluginsRequest{})
	return r.GetPlugins(), c.explain(err)
}

// GetStats gives the ledger and the rest of the daemon's numbers: totals since it
// started, but for those that say otherwise.
func (c *Client) GetStats(ctx context.Context) (*protov1.Stats, error) {
	s, err := c.rpc.GetStats(ctx, &protov1.GetStatsRequest{})
	return s, c.explain(err)
}

// Reload has the daemon read its configuration again and take over what changed.
// A configuration with mistakes is refused as a whole: that is no error here, the
// answer says so. It waits for another reload that is under way, and for plugins to
// start. A reload that has begun to take things over goes on when ctx is done.
func (c *Client) Reload(ctx context.Context) (*protov1.ReloadResponse, error) {
	r, err := c.rpc.Reload(ctx, &protov1.ReloadRequest{})
	return r, c.explain(err)
}
