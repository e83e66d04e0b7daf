package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Between two tries to connect the pause doubles from the first to the last,
// with jitter; a socket that appears or is replaced ends it early.
const (
	firstPause  = 100 * time.Millisecond
	lastPause   = 5 * time.Second
	socketWatch = 100 * time.Millisecond
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
		if isAbsent(d.socket, err) {
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
	pause := firstPause
	said := ""
	for {
		sig := signature(d.socket)
		began := time.Now()
		err := d.session(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		why := reason(d.socket, d.config.Timeout, err)
		inv.Degraded(why)
		if time.Since(began) > 2*lastPause {
			pause, said = firstPause, ""
		}
		if why != said {
			d.log.Warn("not connected", "reason", why, "error", err, "known_containers", len(t.containers))
			said = why
		}
		if !d.wait(ctx, pause, sig) {
			return ctx.Err()
		}
		pause = min(2*pause, lastPause)
		if signature(d.socket) != sig {
			pause = firstPause
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

// wait pauses, but no longer than until the socket is another one. It tells
// whether to go on.
func (d *dockerDiscoverer) wait(ctx context.Context, pause time.Duration, sig socketSignature) bool {
	end := time.NewTimer(pause/2 + rand.N(pause/2+1))
	defer end.Stop()
	look := time.NewTicker(socketWatch)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-look.C:
			if now := signature(d.socket); now != sig && now != (socketSignature{}) {
				return true
			}
		}
	}
}

// socketSignature tells one socket from its successor at the same path; the
// zero value is none.
type socketSignature struct {
	dev, ino uint64
	changed  int64
}

func signature(socket string) socketSignature {
	var st syscall.Stat_t
	if err := syscall.Stat(socket, &st); err != nil {
		return socketSignature{}
	}
	return socketSignature{dev: uint64(st.Dev), ino: st.Ino, changed: st.Ctim.Nano()}
}

// isAbsent tells that nothing listens at the socket. The client's errors don't
// always keep their cause, so the socket is tried.
func isAbsent(socket string, err error) bool {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return true
	}
	return errors.Is(tryConnect(socket), fs.ErrNotExist) || errors.Is(tryConnect(socket), syscall.ECONNREFUSED)
}

func isForbidden(socket string, err error) bool {
	return errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "permission denied") || errors.Is(tryConnect(socket), os.ErrPermission)
}

func tryConnect(socket string) error {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

var _ discover.Discoverer = (*dockerDiscoverer)(nil)
