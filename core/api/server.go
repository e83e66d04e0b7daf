package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Source is what the API is read from. Its methods are called from several
// goroutines at a time; the messages that they return are not changed by anybody.
type Source interface {
	Version() *protov1.GetVersionResponse
	Containers() []*protov1.ContainerView
	// FindContainers gives those that a user means by a word, in order, and at most so
	// many.
	FindContainers(word string, most int) []*protov1.ContainerView
	// Process tells of a process of the host, and of the container that it belongs to;
	// nil: none's. The error wraps fs.ErrNotExist when there is no such process.
	Process(pid uint32) (*protov1.ProcessView, *protov1.ContainerView, error)
	// HostPID gives the pid on the host of a container's process, by its pid in the
	// container. The error wraps fs.ErrNotExist when there is no such process.
	HostPID(container *protov1.ContainerRef, pid uint32) (uint32, error)
	// Namespaces gives those of some types that containers are in, in order.
	Namespaces(types ...namespace.Type) []*protov1.Namespace
	// Namespace gives nil when no container is known to be in it.
	Namespace(id namespace.ID) *protov1.Namespace
	Plugins() []*protov1.PluginView
	Stats() (*protov1.Stats, error)
	// Reload takes over the configuration as it is now. An error says that it
	// could not be tried; what is wrong with the configuration is in the answer.
	Reload(context.Context) (*protov1.ReloadResponse, error)
}

// Decider is a Source that decides on events of programs. Without it they are told that
// the daemon does not know the question. An error says what is wrong with the question.
type Decider interface {
	ShouldSample(*protov1.ShouldSampleRequest) (*protov1.ShouldSampleResponse, error)
	ExchangeUserEvents(*protov1.UserReport) (*protov1.UserTable, error)
}

// Options of New.
type Options struct {
	Listener *Listener // becomes the server's
	Source   Source
	Live     *exporter.Live // what WatchEvents shows
	Log      *slog.Logger
}

const (
	maxRequest = 1 << 20 // bytes; the largest are of thousands of filters
	maxStreams = 64      // of one connection at a time
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
