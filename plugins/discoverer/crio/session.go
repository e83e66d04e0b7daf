package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
)

// secondList is when everything is listed once more after the first list: an event that
// was sent while the stream was being opened may have reached neither.
const secondList = time.Second

// session is one connection's life: the stream of events first, then the list, then
// whatever comes, until the runtime goes away. One goroutine, run's, owns the tracker;
// workers ask, a lister lists, a pinger pings, and all of them end before run returns.
type session struct {
	conn    *connection
	tracker *tracker
	facts   *facts
	config  Config
	log     *slog.Logger

	stream   *stream
	requests chan request
	answers  chan answer
	lists    chan listResult
	pings    chan error
	workers  sync.WaitGroup

	busy     int  // workers at work
	listing  bool // a list is under way
	pinging  bool // a ping is under way
	heard    bool // something came since the last tick
	owed     bool // a list
	streamed bool // an event came
	lost     lostSoFar
}

type listResult struct {
	list     list
	err      error
	snapshot bool
}

// lostSoFar are the counts that were seen last.
type lostSoFar struct {
	events, facts, refused, unread uint64
}

// run returns why the session ended; never nil.
func (s *session) run(ctx context.Context) error {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	s.facts.forgetOld()
	s.lost.facts = s.facts.lost.Load()
	s.stream = s.conn.events(ctx)
	ended := false
	defer func() {
		cancel()
		if !ended {
			<-s.stream.done
		}
		s.workers.Wait()
		s.tracker.disconnected()
	}()
	s.sayHello(ctx)
	s.tracker.describe.runtime = s.conn.engine.name
	s.tracker.events, s.tracker.inspects = true, s.conn.inspect != nil
	if err := s.tracker.connected(); err != nil {
		return err
	}
	s.requests = make(chan request)
	s.answers = make(chan answer, s.config.InspectWorkers)
	s.lists, s.pings = make(chan listResult, 1), make(chan error, 1)
	for range s.config.InspectWorkers {
		s.workers.Go(func() { s.askAll(ctx) })
	}
	s.startList(ctx, true)
	err := s.loop(ctx, &ended)
	if caller.Err() != nil {
		return caller.Err() // and not what came of it first
	}
	return err
}

// sayHello logs what the runtime says of itself.
func (s *session) sayHello(ctx context.Context) {
	log := s.log.With("runtime", s.conn.engine.name, "version", s.conn.engine.version)
	if s.conn.inspect != nil {
		in, err := s.conn.inspect.info(ctx)
		if err != nil {
			log.Warn("CRI-O's own service does not answer: its containers are known later", "error", err)
		} else {
			log = log.With("storage_driver", describe.Cut(in.StorageDriver, describe.MaxName), "cgroup_driver", describe.Cut(in.CgroupDriver, describe.MaxName))
		}
	}
	log.Info("connected")
}

// loop takes whatever comes. ended is set when the end of the stream was taken.
func (s *session) loop(ctx context.Context, ended *bool) error {
	resync, stop := ticker(s.config.Resync)
	defer stop()
	alive := time.NewTicker(max(s.config.Timeout, time.Second))
	defer alive.Stop()
	again := time.NewTimer(secondList)
	defer again.Stop()
	probing := time.NewTimer(time.Hour)
	defer probing.Stop()
	var poll <-chan time.Time // nil: the runtime sends events
	streamDone := s.stream.done

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
		} else if d, ok := s.tracker.probes.wait(time.Now()); ok && s.busy < s.config.InspectWorkers {
			probing.Reset(d)
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case why := <-streamDone:
			*ended = true
			if err = s.drain(); err != nil {
				return err
			}
			if !isEnd(why) || s.streamed {
				return why
			}
			streamDone = nil
			s.log.Info("the runtime sends no events: its containers are listed instead", "every", s.config.Poll.String(), "advice", eventsFrom(s.conn.engine.name))
			s.tracker.events = false
			t := time.NewTicker(s.config.Poll)
			defer t.Stop()
			poll = t.C
		case h := <-s.stream.events:
			s.heard, s.streamed = true, true
			err = s.event(h)
		case n := <-s.facts.news:
			if n.concerns(s.conn.engine.name) {
				s.tracker.cgroup(n)
			}
			s.noteLost()
		case <-probing.C:
		case requests <- pending:
			have = false
			s.busy++
		case a := <-s.answers:
			s.busy--
			s.heard = s.heard || a.outcome != failed
			err = s.tracker.answer(a)
		case r := <-s.lists:
			s.listing = false
			if err = r.err; err != nil {
				s.tracker.listFailed()
				break
			}
			s.heard = true
			err = s.tracker.listed(r.list, r.snapshot)
		case <-again.C:
			if s.tracker.inSnapshot {
				again.Reset(secondList) // it is still being worked off
			} else {
				s.owed = true
			}
		case <-poll:
			s.owed = true
		case <-resync:
			s.resync()
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

// eventsFrom says when a runtime sends events.
func eventsFrom(runtime string) string {
	switch runtime {
	case runtimeCRIO:
		return "CRI-O sends them with enable_pod_events = true in crio.conf"
	case runtimeContainerd:
		return "containerd sends them from version 1.7 on"
	}
	return "the runtime does not implement GetContainerEvents, or it is turned off there"
}

func ticker(every time.Duration) (<-chan time.Time, func()) {
	if every <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(every)
	return t.C, t.Stop
}

func (s *session) event(h happening) error {
	s.stream.taken(h)
	if err := s.tracker.event(h); err != nil {
		return err
	}
	s.noteLost()
	return nil
}

// noteLost has everything listed once what came too fast has been worked off.
func (s *session) noteLost() {
	if len(s.stream.events)+len(s.facts.news) > 0 {
		return
	}
	if n := s.stream.lost.Load(); n != s.lost.events {
		s.log.Warn("events were dropped: they came faster than they were taken; listing all containers", "dropped", n-s.lost.events)
		s.lost.events, s.owed = n, true
	}
	if n := s.facts.lost.Load(); n != s.lost.facts {
		s.log.Info("news of cgroups were dropped: they came faster than they were taken; listing all containers", "dropped", n-s.lost.facts)
		s.lost.facts, s.owed = n, true
	}
}

// drain takes what the stream brought before it ended.
func (s *session) drain() error {
	for {
		select {
		case h := <-s.stream.events:
			s.streamed = true
			if err := s.tracker.event(h); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// askAll is a worker: it asks what it is given until ctx is done.
func (s *session) askAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.requests:
			a := answer{request: r}
			err := s.ask(ctx, &a)
			switch {
			case err == nil:
			case isNotFound(err):
				a.outcome = notThere
			default:
				a.outcome = failed
				if ctx.Err() == nil {
					s.log.Warn("ask for a container", "container", r.id, "error", err)
				}
			}
			select {
			case s.answers <- a:
			case <-ctx.Done():
				return
			}
		}
	}
}

// ask asks the runtime. What is not known to be there is looked for in its lists first:
// some runtimes write an error into their log for each status that they can't tell.
func (s *session) ask(ctx context.Context, a *answer) error {
	r, d := a.request, s.tracker.describe
	if r.probe != nil {
		if s.conn.inspect != nil && !r.known && !r.probe.removed {
			in, err := s.conn.inspect.container(ctx, r.id)
			if err == nil {
				a.container, a.sandbox = d.inspected(r.id, in)
				a.glimpse = true
			}
			return err
		}
		var err error
		if a.request.want, err = s.conn.find(ctx, r.id, r.want); err != nil {
			return err
		}
	}
	if a.request.want == wantSandbox {
		st, err := s.conn.sandbox(ctx, r.id)
		if err != nil {
			return err
		}
		a.container, a.sandbox = d.wholeSandbox(st)
		return nil
	}
	st, err := s.conn.container(ctx, r.id)
	if err != nil {
		return err
	}
	a.container = d.whole(st)
	return nil
}

func (s *session) startList(ctx context.Context, snapshot bool) {
	s.listing = true
	s.tracker.beginList()
	s.workers.Go(func() {
		l, err := s.conn.list(ctx)
		s.lists <- listResult{list: l, err: err, snapshot: snapshot} // has room for the only one
	})
}

// resync compares the list with what is known, unless one is under way or the last is
// still being worked off.
func (s *session) resync() {
	s.sayLosses()
	if !s.listing && s.tracker.settled() {
		s.owed = true
		s.tracker.refresh()
	}
}

// sayLosses logs what was left out since it was last said.
func (s *session) sayLosses() {
	if n := s.tracker.refused; n > s.lost.refused {
		s.log.Warn("containers or questions about them were left out: there are too many", "count", n-s.lost.refused)
		s.lost.refused = n
	}
	if n := s.tracker.describe.filter.LabelsShortened(); n > 0 {
		s.log.Info("labels or annotations were cut or left out for their size; see label_size and labels_size", "descriptions", n)
	}
	if n := s.tracker.describe.unread.Load(); n > s.lost.unread {
		s.log.Warn("what the runtime says of some containers can't be read: they are known by their status alone", "count", n-s.lost.unread)
		s.lost.unread = n
	}
}

// ping asks a silent runtime whether it is there. One that talks is.
func (s *session) ping(ctx context.Context) {
	s.noteLost()
	heard := s.heard
	s.heard = false
	if heard || s.pinging {
		return
	}
	s.pinging = true
	s.workers.Go(func() { s.pings <- s.conn.ping(ctx) }) // has room for the only one
}
