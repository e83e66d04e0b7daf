package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/backoff"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/socket"
)

// Between two tries to connect the pause doubles from the first to the last, with
// jitter; a socket that appears or is replaced ends it early.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// crioDiscoverer finds the containers and pods of one runtime.
type crioDiscoverer struct {
	config Config
	socket string
	node   *protov1.Node
	log    *slog.Logger
}

func newDiscoverer(c Config, fromEnv string, node *protov1.Node, log *slog.Logger) (*crioDiscoverer, error) {
	socket, err := findSocket(c.Endpoint, fromEnv, node.GetHostRoot())
	if err != nil {
		return nil, err
	}
	return &crioDiscoverer{config: c, socket: socket, node: node, log: log.With("socket", socket)}, nil
}

// Detect tells whether a runtime answers at the socket.
func (d *crioDiscoverer) Detect(ctx context.Context) (string, error) {
	conn, err := dial(ctx, d.socket, min(d.config.Timeout, 1500*time.Millisecond))
	if err != nil {
		if socket.Absent(d.socket, nil) {
			return "no runtime at " + d.socket, discover.ErrAbsent
		}
		if status.Code(err) == codes.Unimplemented {
			return "what listens at " + d.socket + " does not serve CRI", discover.ErrAbsent
		}
		return "", fmt.Errorf("detect at %s: %w", d.socket, err)
	}
	detail := fmt.Sprintf("%s %s at %s", conn.engine.name, conn.engine.version, d.socket)
	return detail, conn.close()
}

// Discover follows the runtime until ctx is done, through all its restarts.
func (d *crioDiscoverer) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &facts{news: make(chan cgroupNews, maxFacts)}
	var following sync.WaitGroup
	following.Go(func() { f.follow(ctx, host) })
	defer following.Wait()
	defer cancel()

	t := newTracker(inv)
	t.describe = newDescriber(d.config, d.node)
	pause := backoff.Backoff{Min: firstPause, Max: lastPause}
	said := ""
	for {
		was := socket.At(d.socket)
		began := time.Now()
		err := d.session(ctx, t, f)
		if ctx.Err() != nil {
			return ctx.Err()
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
		if err := socket.Wait(ctx, d.socket, was, pause.Next()); err != nil {
			return err
		}
		if socket.At(d.socket) != was {
			pause.Reset()
		}
	}
}

func (d *crioDiscoverer) session(ctx context.Context, t *tracker, f *facts) error {
	conn, err := dial(ctx, d.socket, d.config.Timeout)
	if err != nil {
		return err
	}
	s := &session{conn: conn, tracker: t, facts: f, config: d.config, log: d.log}
	return errors.Join(s.run(ctx), conn.close())
}

// reason makes a sentence for the operator of why there is no connection.
func reason(at string, timeout time.Duration, err error) string {
	switch {
	case socket.Absent(at, nil):
		return fmt.Sprintf("no container runtime at %s; start it, or set endpoint to its socket", at)
	case socket.Forbidden(at, nil):
		return fmt.Sprintf("no permission to connect to %s; run the plugin as a user or group that may", at)
	case isSilent(err):
		return fmt.Sprintf("the runtime at %s does not answer within %s; see its log, or raise timeout", at, timeout)
	case status.Code(err) == codes.Unimplemented:
		return fmt.Sprintf("what listens at %s does not serve CRI v1; turn it on there (containerd: take cri out of disabled_plugins), or set endpoint to another socket", at)
	case status.Code(err) == codes.ResourceExhausted:
		return fmt.Sprintf("the runtime at %s has more to tell than %d MiB in one answer: %v", at, maxAnswer>>20, err)
	}
	return fmt.Sprintf("the runtime at %s went away: %v; trying again", at, err)
}

var _ discover.Discoverer = (*crioDiscoverer)(nil)
