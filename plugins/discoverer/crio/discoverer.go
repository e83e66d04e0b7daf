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
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Between two tries to connect the pause doubles from the first to the last, with
// jitter; a socket that appears or is replaced ends it early.
const (
	firstPause  = 100 * time.Millisecond
	lastPause   = 5 * time.Second
	socketWatch = 100 * time.Millisecond
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
		if isAbsent(d.socket) {
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
	pause := firstPause
	said := ""
	for {
		sig := signature(d.socket)
		began := time.Now()
		err := d.session(ctx, t, f)
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

func (d *crioDiscoverer) session(ctx context.Context, t *tracker, f *facts) error {
	conn, err := dial(ctx, d.socket, d.config.Timeout)
	if err != nil {
		return err
	}
	s := &session{conn: conn, tracker: t, facts: f, config: d.config, log: d.log}
	return errors.Join(s.run(ctx), conn.close())
}

// wait pauses, but no longer than until the socket is another one. It tells whether to
// go on.
func (d *crioDiscoverer) wait(ctx context.Context, pause time.Duration, sig socketSignature) bool {
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

// socketSignature tells one socket from its successor at the same path; the zero value
// is none.
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

// reason makes a sentence for the operator of why there is no connection.
func reason(socket string, timeout time.Duration, err error) string {
	tried := tryConnect(socket)
	switch {
	case errors.Is(tried, fs.ErrNotExist), errors.Is(tried, syscall.ECONNREFUSED):
		return fmt.Sprintf("no container runtime at %s; start it, or set endpoint to its socket", socket)
	case errors.Is(tried, os.ErrPermission):
		return fmt.Sprintf("no permission to connect to %s; run the plugin as a user or group that may", socket)
	case isSilent(err):
		return fmt.Sprintf("the runtime at %s does not answer within %s; see its log, or raise timeout", socket, timeout)
	case status.Code(err) == codes.Unimplemented:
		return fmt.Sprintf("what listens at %s does not serve CRI v1; turn it on there (containerd: take cri out of disabled_plugins), or set endpoint to another socket", socket)
	case status.Code(err) == codes.ResourceExhausted:
		return fmt.Sprintf("the runtime at %s has more to tell than %d MiB in one answer: %v", socket, maxAnswer>>20, err)
	}
	return fmt.Sprintf("the runtime at %s went away: %v; trying again", socket, err)
}

// isAbsent tells that nothing listens at the socket. The client's errors don't keep
// their cause, so the socket is tried.
func isAbsent(socket string) bool {
	err := tryConnect(socket)
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func tryConnect(socket string) error {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

var _ discover.Discoverer = (*crioDiscoverer)(nil)
