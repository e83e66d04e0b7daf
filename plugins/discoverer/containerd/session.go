package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/socket"
)

const (
	askers   = 4 // goroutines that ask for containers with news
	doubters = 2 // goroutines that ask for those that cgroups are named like
	listRoom = 64
)

// session is one connection's life: the stream of events first, then the list, then
// whatever comes, until containerd goes away. One goroutine, run's, owns the tracker;
// others ask, list and ping, and all of them end before run returns.
type session struct {
	conn     *connection
	tracker  *tracker
	describe *describer
	config   Config
	log      *slog.Logger

	stream    *stream
	questions chan question
	doubts    chan question
	answers   chan answer
	list      chan found
	listed    chan error
	pings     chan error
	workers   sync.WaitGroup

	asking   int  // questions under way
	doubting int  // the same, of claims
	listing  bool // a list is under way
	pinging  bool // a ping is under way
	heard    bool // something came since the last tick
	owed     bool // a list, because events were lost
	lostSeen uint64
	refused  uint64 // that were reported
}

type answer struct {
	question  question
	container *protov1.Container
	outcome   outcome
}

// connect opens a connection and its stream of events.
func connect(ctx context.Context, socket string, c Config) (*connection, *stream, error) {
	conn, err := dial(ctx, socket, c.Timeout)
	if err != nil {
		return nil, nil, err
	}
	stream, err := conn.subscribe(ctx, c.scope())
	if err == nil {
		// containerd says nothing until there is an event. What it answers now it
		// answers after it took the subscription.
		_, err = conn.ping(ctx)
	}
	if err != nil {
		err = errors.Join(err, conn.close()) // ends the stream
		if stream != nil {
			<-stream.done
		}
		return nil, nil, err
	}
	return conn, stream, nil
}

// run returns why the session ended; never nil.
func (s *session) run(ctx context.Context, facts <-chan *protov1.HostFacts) error {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	s.questions, s.doubts = make(chan question), make(chan question)
	s.answers = make(chan answer, askers+doubters)
	s.list, s.listed = make(chan found, listRoom), make(chan error, 1)
	s.pings = make(chan error, 1)
	defer func() {
		cancel()
		s.workers.Wait()
		s.tracker.disconnected()
	}()
	if err := s.tracker.connected(); err != nil {
		return err
	}
	s.log.Info("connected", "version", s.conn.release)
	for range askers {
		s.workers.Go(func() { s.ask(ctx, s.questions, s.config.Timeout) })
	}
	for range doubters {
		s.workers.Go(func() { s.ask(ctx, s.doubts, min(s.config.Timeout, claimPatience)) })
	}
	s.startList(ctx, true)
	err := s.loop(ctx, facts)
	if caller.Err() != nil {
		return caller.Err() // and not what came of it first
	}
	return err
}

func (s *session) loop(ctx context.Context, facts <-chan *protov1.HostFacts) error {
	var resync <-chan time.Time
	if s.config.Resync > 0 {
		t := time.NewTicker(s.config.Resync)
		defer t.Stop()
		resync = t.C
	}
	alive := time.NewTicker(max(s.config.Timeout, time.Second))
	defer alive.Stop()
	expire := time.NewTimer(claimPatience)
	defer expire.Stop()
	expiring := true

	var next, doubt question
	var have, haveDoubt bool
	for {
		if s.owed && !s.listing {
			s.owed = false
			s.startList(ctx, false)
		}
		var questions, doubts chan<- question
		if !have && s.asking < askers {
			next, have = s.tracker.next()
		}
		if have {
			questions = s.questions
		}
		if !haveDoubt && s.doubting < doubters {
			doubt, haveDoubt = s.tracker.nextDoubt()
		}
		if haveDoubt {
			doubts = s.doubts
		}
		if waits := len(s.tracker.unanswered)+len(s.tracker.leaving) > 0; waits && !expiring {
			expire.Reset(claimPatience / 8)
			expiring = true
		} else if !waits && expiring { // else it wakes up for nothing
			expire.Stop()
			expiring = false
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.stream.done:
			s.stream.done <- err // for the one who opened it, and waits for it
			return s.drain(err)
		case e := <-s.stream.events:
			s.heard = true
			err = s.event(&e)
		case f, ok := <-facts:
			if !ok {
				facts = nil // and so the stream to the daemon has ended, and ctx with it
				break
			}
			err = s.tracker.facts(f)
		case questions <- next:
			have = false
			s.asking++
		case doubts <- doubt:
			haveDoubt = false
			s.doubting++
		case a := <-s.answers:
			err = s.answered(a)
		case f := <-s.list:
			s.heard = true
			err = s.tracker.list(&f)
		case listErr := <-s.listed:
			s.listing = false
			err = errors.Join(s.takeRest(listErr), listErr)
		case <-resync:
			s.resync(ctx)
		case <-alive.C:
			s.ping(ctx)
		case <-expire.C:
			expiring = false
			err = errors.Join(s.tracker.expire(), s.tracker.leaveLate())
		case err = <-s.pings:
			s.pinging = false
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) event(e *event) error {
	switch e.action {
	case imageCreated, imageUpdated, imageDeleted, namespaceDeleted:
		s.conn.forget(image{e.key.namespace, e.image})
	}
	if err := s.tracker.event(e); err != nil {
		return err
	}
	if lost := s.stream.lost.Load(); lost != s.lostSeen && len(s.stream.events) == 0 {
		s.log.Warn("events were dropped: they came faster than the tracker took them; listing all containers", "dropped", lost-s.lostSeen)
		s.lostSeen, s.owed = lost, true
	}
	return nil
}

// drain takes what the stream brought before it ended.
func (s *session) drain(why error) error {
	for {
		select {
		case e := <-s.stream.events:
			if err := s.tracker.event(&e); err != nil {
				return err
			}
		default:
			return why
		}
	}
}

// ask is a worker: it asks for the containers it is given until ctx is done.
func (s *session) ask(ctx context.Context, questions <-chan question, timeout time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-questions:
			a := answer{question: q}
			a.container, a.outcome = s.get(ctx, q.key, timeout)
			select {
			case s.answers <- a:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *session) get(ctx context.Context, k key, timeout time.Duration) (*protov1.Container, outcome) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := s.conn.get(ctx, k)
	switch {
	case isNotFound(err):
		return nil, answerGone
	case err != nil:
		if !errors.Is(ctx.Err(), context.Canceled) {
			s.log.Warn("ask for a container", "namespace", k.namespace, "container", k.id, "error", err)
		}
		return nil, answerFailed
	}
	return s.described(ctx, k.namespace, c), answerOK
}

// described is a container of the store, in the contract's words.
func (s *session) described(ctx context.Context, namespace string, c *containersapi.Container) *protov1.Container {
	out := s.describe.container(namespace, c)
	if out.GetImage().GetDigest() == "" && out.GetImage() != nil {
		out.Image.Digest = s.conn.digest(ctx, image{namespace, c.GetImage()})
	}
	return out
}

func (s *session) answered(a answer) error {
	s.heard = s.heard || a.outcome != answerFailed
	if a.question.of == nil {
		s.doubting--
		return s.tracker.answerDoubt(a.question, a.container, a.outcome)
	}
	s.asking--
	return s.tracker.answer(a.question, a.container, a.outcome)
}

func (s *session) startList(ctx context.Context, snapshot bool) {
	s.listing = true
	s.tracker.beginList(snapshot)
	s.workers.Go(func() { s.listed <- s.listAll(ctx) }) // has room for the only one
}

// listAll lists the containers of all namespaces that are followed.
func (s *session) listAll(ctx context.Context) error {
	namespaces, err := s.conn.listNamespaces(ctx, s.config.scope())
	if err != nil {
		return err
	}
	for _, namespace := range namespaces {
		if err := s.listNamespace(ctx, namespace); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) listNamespace(ctx context.Context, namespace string) error {
	tasks, err := s.conn.listTasks(ctx, namespace)
	if err != nil {
		if ctx.Err() != nil || !isTimeout(err) {
			return err
		}
		// Too many shims hang. Their containers are there all the same.
		s.log.Warn("the states of containers are not known", "error", err)
	}
	known := err == nil
	return s.conn.eachContainer(ctx, namespace, func(c *containersapi.Container) error {
		f := found{
			key:       key{namespace, c.GetID()},
			container: s.described(ctx, namespace, c), task: tasks[c.GetID()], tasks: known,
		}
		select {
		case s.list <- f:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// takeRest takes what a list that has ended has brought and was not taken yet.
func (s *session) takeRest(err error) error {
	for {
		select {
		case f := <-s.list:
			if err := s.tracker.list(&f); err != nil {
				return err
			}
		default:
			return s.tracker.endList(err)
		}
	}
}

// resync compares a list with what is known, unless one is under way or the last is
// still being worked off.
func (s *session) resync(ctx context.Context) {
	if n := s.describe.filter.LabelsShortened(); n > 0 {
		s.log.Info("labels were cut or left out for their size; see label_size and labels_size", "descriptions", n)
	}
	if n := s.describe.unread.Swap(0); n > 0 {
		s.log.Info("specifications or metadata of containers could not be read whole", "descriptions", n)
	}
	if n := s.stream.malformed.Swap(0); n > 0 {
		s.log.Warn("events were not understood", "events", n)
	}
	if n := s.tracker.refused; n > s.refused {
		s.log.Warn("there are more containers than are followed", "most", maxContainers, "left_out", n-s.refused)
		s.refused = n
	}
	if !s.listing && s.tracker.settled() {
		s.startList(ctx, false)
	}
}

// ping asks a silent containerd whether it is there. One that talks is.
func (s *session) ping(ctx context.Context) {
	heard := s.heard
	s.heard = false
	if heard || s.pinging {
		return
	}
	s.pinging = true
	s.workers.Go(func() { // the channel has room for the only one
		_, err := s.conn.ping(ctx)
		s.pings <- err
	})
}

// reason makes a sentence for the operator of why there is no connection.
func reason(at string, timeout time.Duration, err error) string {
	switch {
	case isTimeout(err):
		return fmt.Sprintf("containerd at %s does not answer within %s; see its log, or raise timeout", at, timeout)
	case socket.Absent(at, err):
		return fmt.Sprintf("no containerd at %s; start it, or set address to its socket", at)
	case socket.Forbidden(at, err):
		return fmt.Sprintf("no permission to connect to %s; run the plugin as a user or group that may", at)
	}
	return fmt.Sprintf("containerd at %s went away: %v; trying again", at, err)
}
