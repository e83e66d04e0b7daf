package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc"
)

// ErrStillRuns says that an author's method did not return when its context was
// done.
var ErrStillRuns = errors.New("a method of the plugin did not return when its context was done")

// ServeListener serves k on l, in this process, until a client asks for Shutdown or
// ctx is done. It is Serve without what makes a process of it: no handshake, no
// standard output, no watch over the daemon. It is for tests, which package sdktest
// makes easy.
//
// It closes l. The error is ErrStillRuns, or says why l could not be served.
func ServeListener(ctx context.Context, l net.Listener, k Kind, log *slog.Logger) error {
	p := newProcess(k.definition(), log, nil)
	ended := make(chan struct{})
	end := func() {
		p.endOnce.Do(p.end)
		close(ended)
	}
	p.register(p.newServer(nil))
	stop := context.AfterFunc(ctx, end)
	err := p.server.Serve(l)
	p.cancel() // also when l failed
	if !stop() {
		<-ended
	}
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the plugin: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.late {
		return ErrStillRuns
	}
	return nil
}
