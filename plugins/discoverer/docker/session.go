package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/socket"
)

// session is one connection's life: the stream of events first, then the list,
// then whatever comes, until the engine goes away. One goroutine, run's, owns
// the tracker; workers inspect, a lister lists, a pinger pings, and all of them
// end before run returns.
type session struct {
	conn    *connection
	tracker *tracker
	config  Config
	log     *slog.Logger

	stream    *stream
	requests  chan request
	inspected chan inspectResult
	lists     chan listResult
	pings     chan error
	workers   sync.WaitGroup

	busy     int    // workers at work
	listing  bool   // a list is under way
	pinging  bool   // a ping is under way
	heard    bool   // something came since the last tick
	owed     bool   // a list, because events were lost
	refused  uint64 // containers that were reported to be too many
	lostSeen uint64
}

type inspectResult struct {
	request   request
	container *protov1.Container
	outcome   outcome
}

type listResult struct {
	list     []container.Summary
	err      error
	snapshot bool
}

// run returns why the session ended; never nil.
func (s *session) run(ctx context.Context) (err error) {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	since := time.Now().Add(-time.Second)
	if last := s.tracker.replayed.last; last != 0 {
		// What happened while there was no connection, as far back as the engine
		// remembers.
		since = time.Unix(0, last).Add(-time.Second)
	}
	if err := s.conn.askDriver(ctx); err != nil {
		cancel()
		return err
	}
	s.stream, err = s.conn.events(ctx, since)
	defer func() {
		cancel()
		<-s.stream.done
		s.workers.Wait()
		s.tracker.disconnected()
	}()
	if err != nil {
		return err
	}
	s.tracker.describe.cgroups.engine = s.conn.engine
	if err := s.tracker.connected(); err != nil {
		return err
	}
	s.log.Info("connected", "engine", s.conn.engine.runtime, "version", s.conn.engine.version, "cgroup_driver", s.conn.engine.cgroupDriver)

	s.requests = make(chan request)
	s.inspected = make(chan inspectResult, s.config.InspectWorkers)
	s.lists, s.pings = make(chan listResult, 1), make(chan error, 1)
	for range s.config.InspectWorkers {
		s.workers.Go(func() { s.inspectAll(ctx) })
	}
	s.startList(ctx, true)
	err = s.loop(ctx)
	if caller.Err() != nil {
		return caller.Err() // and not what came of it first
	}
	return err
}

func (s *session) loop(ctx context.Context) error {
	var resync <-chan time.Time
	if s.config.Resync > 0 {
		t := time.NewTicker(s.config.Resync)
		defer t.Stop()
		resync = t.C
	}
	alive := time.NewTicker(max(s.config.Timeout, time.Second))
	defer alive.Stop()

	pending, have := request{}, false
	for {
		if s.owed && !s.listing {
			s.owed = false
			s.startList(ctx, false)
		}
		if !have && s.busy < s.config.InspectWorkers {
			pending, have = s.tracker.next()
		}
		var requests chan<- request
		if have {
			requests = s.requests
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.stream.done:
			s.stream.done <- err // for run, which waits for it
			return s.drain(err)
		case m := <-s.stream.messages:
			s.heard = true
			err = s.event(&m)
		case requests <- pending:
			have = false
			s.busy++
		case r := <-s.inspected:
			s.busy--
			s.heard = s.heard || r.outcome != inspectFailed
			err = s.tracker.inspected(r.request, r.container, r.outcome)
		case r := <-s.lists:
			s.listing = false
			if err = r.err; err != nil {
				s.tracker.listFailed()
				break
			}
			s.heard = true
			err = s.tracker.listed(r.list, r.snapshot)
		case <-resync:
			s.resync(ctx)
		case <-alive.C:
			s.ping(ctx)
		case err = <-s.pings:
			s.pinging = false
			if err != nil {
				err = fmt.Errorf("ping: %w", err)
			}
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) event(m *events.Message) error {
	if m.Type == events.ImageEventType {
		s.conn.forgetNames()
	}
	if err := s.tracker.event(m); err != nil {
		return err
	}
	if lost := s.stream.lost.Load(); lost != s.lostSeen && len(s.stream.messages) == 0 {
		s.log.Warn("events were dropped: they came faster than the tracker took them; listing all containers", "dropped", lost-s.lostSeen)
		s.lostSeen, s.owed = lost, true
	}
	return nil
}

// drain takes what the stream brought before it ended.
func (s *session) drain(why error) error {
	for {
		select {
		case m := <-s.stream.messages:
			if err := s.tracker.event(&m); err != nil {
				return err
			}
		default:
			return why
		}
	}
}

// inspectAll is a worker: it inspects what it is given until ctx is done.
func (s *session) inspectAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.requests:
			out := inspectResult{request: r}
			in, names, err := s.conn.inspect(ctx, r.id)
			switch {
			case err == nil:
				out.container = s.tracker.describe.inspected(in)
				names.Complete(out.container.Image)
			case isNotFound(err):
				out.outcome = inspectGone
			default:
				out.outcome = inspectFailed
				if ctx.Err() == nil {
					s.log.Warn("inspect a container", "container", r.id, "error", err)
				}
			}
			select {
			case s.inspected <- out:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *session) startList(ctx context.Context, snapshot bool) {
	s.listing = true
	s.tracker.beginList()
	s.workers.Go(func() {
		list, err := s.conn.list(ctx)
		s.lists <- listResult{list: list, err: err, snapshot: snapshot} // has room for the only one
	})
}

// resync compares the list with what is known, unless one is under way or the
// last is still being worked off.
func (s *session) resync(ctx context.Context) {
	if n := s.tracker.describe.filter.LabelsShortened(); n > 0 {
		s.log.Info("labels were cut or left out for their size; see label_size and labels_size", "descriptions", n)
	}
	if n := s.tracker.refused; n > s.refused {
		s.log.Warn("there are more containers than are followed", "most", maxContainers, "left_out", n-s.refused)
		s.refused = n
	}
	if !s.listing && s.tracker.settled() {
		s.startList(ctx, false)
	}
}

// ping asks a silent engine whether it is there. One that talks is.
func (s *session) ping(ctx context.Context) {
	heard := s.heard
	s.heard = false
	if heard || s.pinging {
		return
	}
	s.pinging = true
	s.workers.Go(func() { s.pings <- s.conn.ping(ctx) }) // has room for the only one
}

// reason makes a sentence for the operator of why there is no connection.
func reason(at string, timeout time.Duration, err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the Docker daemon at %s does not answer within %s; see its log, or raise timeout", at, timeout)
	case socket.Absent(at, err):
		return fmt.Sprintf("no Docker daemon at %s; start it, or set host to its socket", at)
	case socket.Forbidden(at, err):
		return fmt.Sprintf("no permission to connect to %s; run the plugin as a user or group that may", at)
	}
	return fmt.Sprintf("the Docker daemon at %s went away: %v; trying again", at, err)
}
