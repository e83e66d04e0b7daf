package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/backoff"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/socket"
)

// Between two tries to connect the pause doubles from the first to the last,
// with jitter; a socket that appears or is replaced ends it early.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// dockerDiscoverer finds the containers of one engine.
type dockerDiscoverer struct {
	service service
	config  Config
	socket  string
	node    *protov1.Node
	log     *slog.Logger
}

func newDiscoverer(s service, c Config, fromEnv string, node *protov1.Node, log *slog.Logger) (*dockerDiscoverer, error) {
	socket, err := findSocket(s, c.Host, fromEnv, node.GetHostRoot())
	if err != nil {
		return nil, err
	}
	return &dockerDiscoverer{service: s, config: c, socket: socket, node: node, log: log.With("socket", socket)}, nil
}

// Detect tells whether an engine answers at the socket. Unless the operator named that,
// it must be of the service's own kind: Podman can be told to answer at Docker's socket
// too, and its containers are not to be told by two.
func (d *dockerDiscoverer) Detect(ctx context.Context) (string, error) {
	conn, err := dial(ctx, d.socket, min(d.config.Timeout, 2*time.Second))
	if err != nil {
		if socket.Absent(d.socket, err) {
			return "no engine at " + d.socket, discover.ErrAbsent
		}
		return "", fmt.Errorf("detect at %s: %w", d.socket, err)
	}
	detail := fmt.Sprintf("%s %s at %s", conn.engine.runtime, conn.engine.version, d.socket)
	if err := conn.close(); err != nil {
		return "", err
	}
	if d.config.Host == "" && conn.engine.runtime != d.service.name {
		return fmt.Sprintf("no %s, but %s, which is for discoverer %q", d.service.name, detail, conn.engine.runtime), discover.ErrAbsent
	}
	return detail, nil
}

// Discover follows the engine until ctx is done, through all its restarts.
func (d *dockerDiscoverer) Discover(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
	t := newTracker(inv)
	t.describe = &describer{filter: describe.NewFilter(d.config.FilterConfig), cgroups: cgroups{root: d.node.GetCgroupRoot()}}
	pause := backoff.Backoff{Min: firstPause, Max: lastPause}
	said := ""
	for {
		was := socket.At(d.socket)
		began := time.Now()
		err := d.session(ctx, t)
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

func (d *dockerDiscoverer) session(ctx context.Context, t *tracker) error {
	conn, err := dial(ctx, d.socket, d.config.Timeout)
	if err != nil {
		return err
	}
	s := &session{conn: conn, tracker: t, config: d.config, log: d.log}
	return errors.Join(s.run(ctx), conn.close())
}

var _ discover.Discoverer = (*dockerDiscoverer)(nil)
