package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Source is what the API is read from. Its methods are called from several
// goroutines at a time; the messages that they return are not changed by anybody.
type Source interface {
	Version() *protov1.GetVersionResponse
	Containers() []*protov1.ContainerView
	// ContainerByPID gives nil when the process is no container's. The error
	// wraps fs.ErrNotExist when there is no such process.
	ContainerByPID(pid uint32) (*protov1.ContainerView, error)
	Plugins() []*protov1.PluginView
	Stats() (*protov1.Stats, error)
	// Reload takes over the configuration as it is now. An error says that it
	// could not be tried; what is wrong with the configuration is in the answer.
	Reload(context.Context) (*protov1.ReloadResponse, error)
}

// Options of New.
type Options struct {
	Listener *Listener // becomes the server's
	Source   Source
	Live     *exporter.Live // what WatchEvents shows
	Log      *slog.Logger
}

const (
	maxRequest = 64 << 10 // bytes; requests are small
	maxStreams = 64       // of one connection at a time
	handshake  = 5 * time.Second
)

// Server answers on the socket until Close.
type Server struct {
	grpc     *grpc.Server
	listener *Listener
	serving  sync.WaitGroup
	stop     context.CancelFunc
}

// New serves.
func New(o Options) *Server {
	// ctx ends with Close, and with it whoever watches events.
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{stop: stop, listener: o.Listener, grpc: grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.UnaryInterceptor(authorizeCall),
		grpc.StreamInterceptor(authorizeStream),
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshake),
		grpc.WaitForHandlers(true), // none asks a source that is gone
	)}
	protov1.RegisterTracerServer(s.grpc, &tracer{source: o.Source, live: o.Live, closing: ctx})
	s.serving.Go(func() {
		if err := s.grpc.Serve(o.Listener.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			o.Log.Error("the local API does not answer any more", "socket", o.Listener.path, "error", err)
		}
	})
	return s
}

// Close stops listening, ends those who watch once they have what is at hand, lets
// other calls end until ctx is done, cuts them off then, and removes the socket. It
// may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	graceful := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(graceful)
	}()
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop()
		<-graceful
	}
	s.serving.Wait()
	return s.listener.Close()
}
