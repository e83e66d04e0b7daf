package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/contract"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// stream is the kind's own stream, judged as it comes.
type stream struct {
	cancel context.CancelFunc
	over   chan struct{} // closed when it has ended

	// begin sends what the daemon sends first, hostile what is allowed and
	// unlikely. Each returns when the plugin has taken, or answered, all of it.
	begin, hostile func(ctx context.Context) error
	// settled tells, with mu held, whether the plugin has told what it is to tell at
	// the beginning of a stream.
	settled func() bool

	mu      sync.Mutex
	wrong   []string
	heard   int // messages
	err     error
	changed chan struct{} // closed and replaced with each message
}

// open opens the kind's stream.
func (t *tester) open(ctx context.Context) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{cancel: cancel, over: make(chan struct{}), changed: make(chan struct{})}
	var recv func() ([]string, error)
	var err error
	switch t.entry.Manifest.Kind {
	case config.Discoverer:
		recv, err = s.discoverer(ctx, t)
	case config.Mesh:
		recv, err = s.detector(ctx, t)
	case config.Sampler:
		recv, err = s.sampler(ctx, t)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	go s.receive(recv)
	return s, nil
}

// receive takes messages until the stream ends.
func (s *stream) receive(recv func() ([]string, error)) {
	defer close(s.over)
	for {
		wrong, err := recv()
		s.mu.Lock()
		s.wrong = append(s.wrong, wrong...)
		s.err = err
		if err == nil {
			s.heard++
		}
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// close ends the stream and waits for its end.
func (s *stream) close() {
	s.cancel()
	<-s.over
}

// findings are what broke the contract so far.
func (s *stream) findings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.wrong...)
}

// ended waits for the end of the stream and says why it ended; nil: it did not.
func (s *stream) ended(ctx context.Context, within time.Duration) error {
	select {
	case <-s.over:
		return s.err
	case <-time.After(within):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await waits until ok, which is called with mu held.
func (s *stream) await(ctx context.Context, what string, within time.Duration, ok func() bool) error {
	late := time.NewTimer(within)
	defer late.Stop()
	for {
		s.mu.Lock()
		is, changed, err := ok(), s.changed, s.err
		s.mu.Unlock()
		switch {
		case is:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("the plugin ended the stream by itself: it goes on until it is cancelled")
		case err != nil:
			return fmt.Errorf("the stream ended: %w", text(err))
		}
		select {
		case <-changed:
		case <-late.C:
			return fmt.Errorf("there was no %s within %s", what, within)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *stream) discoverer(ctx context.Context, t *tester) (func() ([]string, error), error) {
	st, err := protov1.NewDiscovererClient(t.probe.Conn()).Discover(ctx)
	if err != nil {
		return nil, err
	}
	var judge contract.Inventory
	subscribed := false
	var sending sync.Mutex
	tell := func(missed uint64, facts ...*protov1.HostFact) error {
		sending.Lock()
		defer sending.Unlock()
		return st.Send(contract.Newer(&protov1.HostFacts{Facts: facts, Missed: missed}))
	}
	s.settled = judge.Synced
	s.begin = func(context.Context) error { return nil }
	s.hostile = func(context.Context) error {
		s.mu.Lock()
		asked := subscribed
		s.mu.Unlock()
		if !asked {
			return nil // the daemon tells it nothing
		}
		for range 3 {
			if err := tell(7, contract.HostileFacts()...); err != nil {
				return err
			}
		}
		return nil
	}
	return func() ([]string, error) {
		b, err := st.Recv()
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		first := !subscribed
		for _, c := range b.GetChanges() {
			subscribed = subscribed || c.GetSubscribe() != nil
		}
		first = first && subscribed
		wrong := judge.Batch(b)
		s.mu.Unlock()
		if first {
			// As the daemon does: a list of the host's facts, of which the plugin may
			// make its snapshot. Here it is empty. Why it can't be sent the next
			// message tells.
			_ = tell(0, &protov1.HostFact{Fact: &protov1.HostFact_Reset_{Reset_: &protov1.Reset{}}},
				&protov1.HostFact{Fact: &protov1.HostFact_Synced{Synced: &protov1.Synced{}}})
		}
		return wrong, nil
	}, nil
}

func (s *stream) detector(ctx context.Context, t *tester) (func() ([]string, error), error) {
	st, err := protov1.NewDetectorClient(t.probe.Conn()).Detect(ctx)
	if err != nil {
		return nil, err
	}
	var judge contract.Mesh
	s.settled = judge.Synced
	tell := func(described ...*protov1.InventoryChange) error {
		all := []*protov1.InventoryChange{{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}}}
		all = append(all, described...)
		all = append(all, &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}}})
		b := contract.Newer(&protov1.InventoryChanges{Changes: all})
		s.mu.Lock()
		judge.Told(b)
		s.mu.Unlock()
		return st.Send(b)
	}
	s.begin = func(context.Context) error {
		return tell(
			&protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: &protov1.Pod{Uid: "p", Name: "web-0", Namespace: "shop"}}},
			&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
				Id: "app", Name: "web", PodUid: "p", Image: &protov1.Image{Name: "nginx", Tag: "1"}, State: protov1.Container_STATE_RUNNING,
			}}},
			&protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
				Id: "side", Name: "istio-proxy", PodUid: "p", Image: &protov1.Image{Name: "istio/proxyv2", Tag: "1.20"}, State: protov1.Container_STATE_RUNNING,
			}}},
		)
	}
	s.hostile = func(context.Context) error { return tell(contract.HostileWorkloads()...) }
	return func() ([]string, error) {
		b, err := st.Recv()
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return judge.Batch(b), nil
	}, nil
}

func (s *stream) sampler(ctx context.Context, t *tester) (func() ([]string, error), error) {
	st, err := protov1.NewSamplerClient(t.probe.Conn()).Sample(ctx)
	if err != nil {
		return nil, err
	}
	var judge contract.Sampling
	var sequence uint64
	s.settled = func() bool { return s.heard > 0 }
	report := func(ctx context.Context, r *protov1.Report) error {
		sequence++
		r.Sequence = sequence
		if err := st.Send(r); err != nil {
			return err
		}
		return s.await(ctx, fmt.Sprintf("answer to report %d", sequence), answerWithin, func() bool { return uint64(s.heard) > sequence })
	}
	s.begin = func(ctx context.Context) error {
		if err := s.await(ctx, "answer of the start", settleWithin, s.settled); err != nil {
			return err
		}
		for n := uint64(1); n < 1<<30; n <<= 3 {
			if err := report(ctx, &protov1.Report{IntervalNano: 500_000_000, Classes: []*protov1.ClassLoad{
				{Class: &protov1.Class{Kind: "process.exec", Priority: "info"}, Seen: n, Kept: n, Probability: 1},
				{Class: &protov1.Class{Kind: "network.connect_failed", Priority: "error"}, Seen: n / 2, Kept: n / 2, Probability: 1},
			}}); err != nil {
				return err
			}
		}
		return nil
	}
	s.hostile = func(ctx context.Context) error {
		for _, r := range contract.HostileReports() {
			if err := report(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}
	return func() ([]string, error) {
		a, err := st.Recv()
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return judge.Answer(uint64(s.heard), a), nil
	}, nil
}

// settle brings a stream to where the plugin is at work: it told its snapshot, or that
// what it depends on is away.
func (t *tester) settle(ctx context.Context, s *stream) (away string, err error) {
	if err := s.begin(ctx); err != nil {
		return "", s.cause(err)
	}
	for until := time.Now().Add(settleWithin); time.Now().Before(until); {
		if err = s.await(ctx, "snapshot (a reset, what there is, synced)", 100*time.Millisecond, s.settled); err == nil {
			return "", nil
		}
		s.mu.Lock()
		over := s.err != nil
		s.mu.Unlock()
		if over || ctx.Err() != nil {
			return "", err
		}
		asking, cancel := context.WithTimeout(ctx, healthWithin)
		h, herr := t.rpc().Health(asking, &protov1.HealthRequest{})
		cancel()
		if herr == nil && h.GetDegraded() {
			return h.GetReason(), nil
		}
	}
	return "", fmt.Errorf("within %s there was neither a snapshot (a reset, what there is, synced) nor a word in Health that it is degraded", settleWithin)
}

// cause is why a stream ended, in place of what a send on it says.
func (s *stream) cause(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	select {
	case <-s.over:
		if errors.Is(s.err, io.EOF) {
			return errors.New("the plugin ended the stream by itself: it goes on until it is cancelled")
		}
		return fmt.Errorf("the stream ended: %w", text(s.err))
	case <-time.After(time.Second):
		return err
	}
}

// cancelled tells whether a stream ended as one that was cancelled.
func cancelled(err error) bool { return status.Code(err) == codes.Canceled }
