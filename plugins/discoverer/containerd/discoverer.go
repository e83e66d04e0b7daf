package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/backoff"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/socket"
)

// Between two tries to connect the pause doubles from the first to the last; a socket
// that appears or is replaced ends it early.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// containerdDiscoverer finds the containers of one containerd.
type containerdDiscoverer struct {
	config Config
	socket string
	log    *slog.Logger
}

func newDiscoverer(c Config, fromEnv string, node *protov1.Node, log *slog.Logger) (*containerdDiscoverer, error) {
	socket, err := findSocket(c.Address, fromEnv, node.GetHostRoot())
	if err != nil {
		return nil, err
	}
	return &containerdDiscoverer{config: c, socket: socket, log: log.With("socket", socket)}, nil
}

// Detect tells whether containerd answers at the socket.
func (d *containerdDiscoverer) Detect(ctx context.Context) (string, error) {
	conn, err := dial(ctx, d.socket, min(d.config.Timeout, 2*time.Second))
	if err != nil {
		if socket.Absent(d.socket, err) {
			return "no containerd at " + d.socket, discover.ErrAbsent
		}
		return "", fmt.Errorf("detect at %s: %w", d.socket, err)
	}
	return fmt.Sprintf("containerd %s at %s", conn.release, d.socket), conn.close()
}

// Discover follows containerd until ctx is done, through all its restarts. It answers for
// the host's cgroups at all times.
func (d *containerdDiscoverer) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) error {
	facts := host.Facts(&protov1.Subscribe{Cgroups: true, Claims: true})
	describe := newDescriber(d.config)
	t := newTracker(inv, d.config.scope(), describe.filter)
	pause := backoff.Backoff{Min: firstPause, Max: lastPause}
	said := ""
	for {
		was := socket.At(d.socket)
		began := time.Now()
		err := d.session(ctx, t, describe, facts)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.setAway(); err != nil {
			return err
		}
		why := reason(d.socket, d.config.Timeout, err)
		inv.Degraded(why)
		if time.Since(began) > 2*lastPause {
			pause.Reset()
			said = ""
		}
		if why != said {
			d.log.Warn("not connected", "reason", why, "error", err, "known_containers", len(t.containers))
			said = why
		}
		wait := pause.Next()
		if _, err := meanwhile(ctx, t, facts, func(ctx context.Context) error { return socket.Wait(ctx, d.socket, was, wait) }); err != nil {
			return err
		}
		if socket.At(d.socket) != was {
			pause.Reset()
		}
	}
}

// session connects and follows containerd while the connection lasts. It returns why it
// ended; never nil.
func (d *containerdDiscoverer) session(ctx context.Context, t *tracker, describe *describer, facts <-chan *protov1.HostFacts) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type opened struct {
		conn   *connection
		stream *stream
		err    error
	}
	o, err := meanwhile(ctx, t, facts, func(context.Context) (o opened) { // the stream outlives it
		o.conn, o.stream, o.err = connect(ctx, d.socket, d.config)
		return o
	})
	if o.conn == nil {
		return errors.Join(err, o.err)
	}
	if err == nil {
		s := &session{conn: o.conn, stream: o.stream, tracker: t, describe: describe, config: d.config, log: d.log}
		err = s.run(ctx, facts)
	}
	cancel()
	err = errors.Join(err, o.conn.close())
	<-o.stream.done
	return err
}

// meanwhile answers for the host's cgroups while something else is done, and returns what
// that came to. Its error is ctx's, or the inventory's.
func meanwhile[T any](ctx context.Context, t *tracker, facts <-chan *protov1.HostFacts, do func(context.Context) T) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan T, 1)
	go func() { done <- do(ctx) }()
	var expire <-chan time.Time
	if t.connecting { // else nobody waits
		ticker := time.NewTicker(claimPatience / 4)
		defer ticker.Stop()
		expire = ticker.C
	}
	var err error
	for {
		select {
		case out := <-done:
			if err == nil {
				err = ctx.Err()
			}
			return out, err
		case f, ok := <-facts:
			if !ok {
				facts = nil // and so the stream to the daemon has ended, and ctx with it
			} else if err == nil {
				err = t.facts(f)
			}
		case <-expire:
			if err == nil {
				err = t.expire()
			}
		}
		if err != nil {
			cancel() // and wait for what is done
		}
	}
}

var _ discover.Discoverer = (*containerdDiscoverer)(nil)
