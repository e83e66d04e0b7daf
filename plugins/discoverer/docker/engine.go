package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
)

// maxAnswer bounds what is read of one answer: a list of 10,000 containers is
// 20 MB, one with a megabyte of labels each would be 10 GB.
const maxAnswer = 512 << 20

var errAnswerTooLarge = fmt.Errorf("read an answer of more than %d MiB", maxAnswer>>20)

// connection is a client of one engine, from connect to close. Every request
// but the stream of events ends within its timeout. It is safe for concurrent
// use.
type connection struct {
	api     *client.Client
	timeout time.Duration
	engine  engine
	libpod  atomic.Pointer[string] // the version that Podman says of itself with every answer; nil: another engine

	mu    sync.Mutex
	names map[string]describe.RepoNames // by image id; what the store calls it
}

// maxNames bounds the memory of image names: beyond it, it starts anew.
const maxNames = 2048

// dial connects to the engine and asks who it is.
func dial(ctx context.Context, socket string, timeout time.Duration) (*connection, error) {
	c := &connection{timeout: timeout, names: map[string]describe.RepoNames{}}
	api, err := client.New(client.WithHost("unix://"+socket), client.WithHTTPResponseHook(c.answered),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			return quiet.Dial(ctx, socket, timeout)
		}))
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", socket, err)
	}
	c.api = api
	if err := c.hello(ctx); err != nil {
		return nil, errors.Join(err, api.Close())
	}
	return c, nil
}

func (c *connection) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if _, err := c.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	// A Podman that was just started answers all but a ping only after seconds.
	if version := c.libpod.Load(); version != nil {
		c.engine = engine{runtime: "podman", version: *version}
		return nil
	}
	v, err := c.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return fmt.Errorf("ask for the version: %w", err)
	}
	c.engine = engine{runtime: "docker", version: v.Version}
	for _, part := range v.Components {
		if strings.HasPrefix(part.Name, "Podman") {
			c.engine.runtime = "podman"
		}
	}
	return nil
}

// askDriver completes the engine with its cgroup driver. It may take four times as long
// as another request: it is the first that Podman has to think about.
func (c *connection) askDriver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*c.timeout)
	defer cancel()
	info, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return fmt.Errorf("ask for the cgroup driver: %w", err)
	}
	c.engine.cgroupDriver = info.Info.CgroupDriver
	return nil
}

func (c *connection) close() error { return c.api.Close() }

// ping tells whether the engine still answers.
func (c *connection) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.api.Ping(ctx, client.PingOptions{})
	return err
}

// list of all containers, running or not. It may take four times as long as
// another request: it is as long as there are containers.
func (c *connection) list(ctx context.Context) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*c.timeout)
	defer cancel()
	r, err := c.api.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list the containers: %w", err)
	}
	return r.Items, nil
}

// inspect a container, and the image's names in the store.
func (c *connection) inspect(ctx context.Context, id string) (*container.InspectResponse, describe.RepoNames, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, describe.RepoNames{}, err
	}
	return &r.Container, c.imageNames(ctx, r.Container.Image), nil
}

// imageNames asks the store once per image; one that is gone has none.
func (c *connection) imageNames(ctx context.Context, id string) describe.RepoNames {
	if id == "" {
		return describe.RepoNames{}
	}
	c.mu.Lock()
	n, ok := c.names[id]
	c.mu.Unlock()
	if ok {
		return n
	}
	r, err := c.api.ImageInspect(ctx, id)
	switch {
	case err == nil:
		const few = 64
		n.Tags, n.Digests = r.RepoTags[:min(few, len(r.RepoTags))], r.RepoDigests[:min(few, len(r.RepoDigests))]
	case isNotFound(err):
	default:
		return n // not remembered: asked again with the next container
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.names) >= maxNames {
		clear(c.names)
	}
	c.names[id] = n
	return n
}

// forgetNames makes the images' names be asked for again.
func (c *connection) forgetNames() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.names)
}

// isNotFound tells that the engine knows no such thing. Docker answers 500 for
// one that is being removed, with the words of a 404.
func isNotFound(err error) bool {
	return cerrdefs.IsNotFound(err) || cerrdefs.IsInternal(err) && strings.Contains(err.Error(), "No such ")
}

// answered looks at every answer before it is read.
func (c *connection) answered(r *http.Response) {
	const longest = 64
	if v := r.Header.Get("Libpod-Api-Version"); v != "" && c.libpod.Load() == nil {
		v = strings.ToValidUTF8(v[:min(len(v), longest)], "")
		c.libpod.Store(&v)
	}
	boundBody(r)
}

// boundBody stops reading an answer that would fill the memory.
func boundBody(r *http.Response) {
	if r.Body != nil && !strings.HasSuffix(r.Request.URL.Path, "/events") {
		r.Body = &boundedBody{ReadCloser: r.Body, left: maxAnswer}
	}
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errAnswerTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// maxEvents is how many messages wait for the tracker. The engine drops those
// of a slow reader without a word, so they are read at once and dropped here,
// where it is noticed.
const maxEvents = 8192

// stream is the engine's events, read as they come.
type stream struct {
	messages chan events.Message
	lost     atomic.Uint64 // dropped since the stream began
	done     chan error    // gets why the stream ended, once
}

// events opens the stream: messages since a moment, then those that come.
// It ends with ctx, and then done must be read.
func (c *connection) events(ctx context.Context, since time.Time) (*stream, error) {
	filters := client.Filters{}.Add("type", "container", "image", "network")
	podman := c.engine.runtime == "podman"
	if podman { // has other names for some actions, and refuses the network's
		filters = client.Filters{}.Add("type", "container", "image")
	} else {
		// The others, such as the exec of every health check, never reach us.
		filters.Add("event", "create", "start", "die", "oom", "pause", "unpause", "rename", "update", "destroy", "kill", "pull", "connect", "disconnect")
	}
	s := &stream{messages: make(chan events.Message, maxEvents), done: make(chan error, 1)}
	opened := make(chan struct{})
	go s.read(ctx, c, client.EventsListOptions{Since: since.UTC().Format(time.RFC3339Nano), Filters: filters}, opened)
	if podman {
		return s, nil // it answers with the first message, however long that takes
	}
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case <-opened:
		return s, nil
	case <-timer.C:
		return s, fmt.Errorf("open the stream of events: no answer within %s", c.timeout)
	case <-ctx.Done():
		return s, ctx.Err()
	}
}

func (s *stream) read(ctx context.Context, c *connection, options client.EventsListOptions, opened chan<- struct{}) {
	r := c.api.Events(ctx, options)
	close(opened)
	for {
		select {
		case m := <-r.Messages:
			select {
			case s.messages <- m:
			default:
				s.lost.Add(1)
			}
		case err := <-r.Err:
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.New("the engine closed the stream of events")
			}
			s.done <- err
			return
		}
	}
}
