package client

import (
	"context"
	"fmt"
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

// ListPlugins lists the plugins and how they are.
func (c *Client) ListPlugins(ctx context.Context) ([]*protov1.PluginView, error) {
	r, err := c.rpc.ListPlugins(ctx, &protov1.ListPluginsRequest{})
	return r.GetPlugins(), c.explain(err)
}

// Reload has the daemon read its configuration again and take over what changed.
// A configuration with mistakes is refused as a whole: that is no error here, the
// answer says so. It waits for another reload that is under way, and for plugins to
// start. A reload that has begun to take things over goes on when ctx is done.
func (c *Client) Reload(ctx context.Context) (*protov1.ReloadResponse, error) {
	r, err := c.rpc.Reload(ctx, &protov1.ReloadRequest{})
	return r, c.explain(err)
}
