package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Spec says which plugin to run and how.
type Spec struct {
	Entry  Entry
	Config []byte // JSON that follows its schema
	// Explain says what the plugin finds wrong with Config in words and places of
	// the operator's file; nil: in the plugin's words and paths.
	Explain func(diag.Diagnostics) string
	Node    *protov1.Node
	// Grants are what the operator wrote that the plugin uses.
	Grants []config.Grant
	// Memory, in bytes, and Processes with their threads, that the plugin must stay
	// within; 0: no limit.
	Memory       int64
	Processes    int64
	StartTimeout time.Duration // 0: the host's
}

// Plugin is one plugin under supervision. Whatever happens to its process, it is
// started again, at once and then more and more slowly, until it has failed too
// often. Its methods are safe for concurrent use.
type Plugin struct {
	host   *Host
	id     string // kind and name, which stay the same
	log    *slog.Logger
	kind   kind
	ctx    context.Context // of its supervision, which Replace is bound to too
	cancel context.CancelFunc
	done   chan struct{} // closed when supervision has ended

	refused atomic.Uint64

	again     chan struct{}  // a failed plugin is to be tried again
	replacing chan struct{}  // holds one item while Replace is at work
	retiring  sync.WaitGroup // instances that were replaced and are being stopped
	owed      bool           // lost is due for a stream that was opened; the streams' goroutine's

	mu        sync.Mutex
	spec      Spec
	out       *output
	state     State
	since     time.Time
	reason    string
	version   string
	lastError string
	restarts  uint64
	replaced  uint64
	pastCPU   time.Duration
	inst      *instance
	retired   []*instance             // replaced, not gone yet
	next      *successor              // takes over in the next turn; nil: none
	yield     context.CancelCauseFunc // of this turn; nil before the first
	over      bool                    // no turn follows
	first     error                   // how the first start went, once begun is closed
	begun     chan struct{}           // closed when the first start has been tried
	firstOnce sync.Once
}

// kind is what a kind of plugin does with a configured process.
type kind interface {
	// stream opens the kind's stream and serves it until it ends. open is
	// called once it is open.
	stream(ctx context.Context, i *instance, open func()) error
	// lost is called after each stream that was open, unless a successor's
	// stream follows at once.
	lost(reason string)
	// queued is the depth of the queue to the plugin and its dropped items.
	queued() (depth, dropped uint64)
}

// plugin makes a plugin that is not supervised yet.
func (h *Host) plugin(s Spec) *Plugin {
	log := h.log.With("plugin", s.Entry.String())
	return &Plugin{
		host: h, id: s.Entry.String(), spec: s, log: log, out: &output{log: log},
		done: make(chan struct{}), again: make(chan struct{}, 1), begun: make(chan struct{}),
		replacing: make(chan struct{}, 1),
		state:     Starting, since: time.Now(),
	}
}

// supervise starts supervision. It returns at once.
func (p *Plugin) supervise(ctx context.Context, k kind) error {
	h := p.host
	ctx, cancel := context.WithCancel(ctx)
	p.kind, p.ctx, p.cancel = k, ctx, cancel
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		cancel()
		return errStopped
	}
	h.using.Add(1)
	h.plugins = append(h.plugins, p)
	go func() {
		defer h.using.Done()
		defer close(p.done)
		defer cancel()
		p.run(ctx)
		p.started(errStopped) // for who still waits for the first start
	}()
	return nil
}

func (p *Plugin) queue() (depth, dropped uint64) { return p.kind.queued() }

// started records how the first start went.
func (p *Plugin) started(err error) {
	p.firstOnce.Do(func() {
		p.first = err
		close(p.begun)
	})
}

// Started waits for the first start and says how it went. A *diag.Refusal is a
// configuration that the plugin refuses: it has failed. After any other error the
// plugin is being tried again.
func (p *Plugin) Started(ctx context.Context) error {
	select {
	case <-p.begun:
		return p.first
	case <-ctx.Done():
		return fmt.Errorf("wait for plugin %s: %w", p.id, ctx.Err())
	}
}

// Restart tries a failed plugin again; it does nothing in any other state.
func (p *Plugin) Restart() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// Stop ends the plugin and waits for its end, or for ctx. Once ended it no longer
// stands in the host's status.
func (p *Plugin) Stop(ctx context.Context) error {
	p.cancel()
	select {
	case <-p.done:
		p.host.mu.Lock()
		defer p.host.mu.Unlock()
		p.host.plugins = slices.DeleteFunc(p.host.plugins, func(o *Plugin) bool { return o == p })
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop plugin %s: %w", p.id, ctx.Err())
	}
}

// run is the plugin's life.
func (p *Plugin) run(ctx context.Context) {
	defer p.retire()
	pace := p.host.pace
	wait := retry{min: pace.BackoffMin, max: pace.BackoffMax}
	left := budget{most: pace.Restarts, window: pace.RestartWindow}
	for {
		turn, next := p.turn(ctx)
		p.setState(Starting, "")
		since := time.Now()
		err := p.life(turn, next)
		if ctx.Err() != nil {
			p.setState(Stopped, "")
			return
		}
		if yielded(turn) {
			wait.reset()
			left.spent = nil
			continue
		}
		if time.Since(since) >= pace.StableAfter {
			wait.reset()
		}
		if moved := (*movedError)(nil); errors.As(err, &moved) {
			p.log.Info("plugin is started again, so that it can use it", "reason", moved)
			p.mu.Lock()
			p.replaced++
			p.mu.Unlock()
			// It is not its fault and counts for no failure, but what comes and
			// goes all the time is not followed each time.
			if pause := wait.next(); pause > 0 {
				p.pause(turn, pause, moved.Error())
			}
			if ctx.Err() != nil {
				p.setState(Stopped, "")
				return
			}
			continue
		}
		reason, refused := p.failed(err)
		p.started(err)
		if refused || !left.spend(time.Now()) {
			if !refused {
				reason = fmt.Sprintf("it failed more than %d times in %s: %s", pace.Restarts, pace.RestartWindow, reason)
			}
			select {
			case <-p.again: // asked for before it had failed
			default:
			}
			p.setState(Failed, reason)
			select {
			case <-p.again:
			case <-turn.Done():
			}
			left.spent, wait.failures = nil, 0
		} else if pause := wait.next(); pause > 0 {
			p.pause(turn, pause, reason)
		} else {
			p.log.Warn("plugin failed, starting it again", "reason", reason)
		}
		if ctx.Err() != nil {
			p.setState(Stopped, "")
			return
		}
		if !yielded(turn) {
			p.mu.Lock()
			p.restarts++
			p.mu.Unlock()
		}
	}
}

// pause waits before the next start, or for the end of the turn.
func (p *Plugin) pause(turn context.Context, d time.Duration, reason string) {
	p.setState(Backoff, reason)
	select {
	case <-time.After(d):
	case <-turn.Done():
	}
}

// failed records why a process ended and says it in words, and whether the plugin
// refuses its configuration.
func (p *Plugin) failed(err error) (reason string, refused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refusal *diag.Refusal
	if refused = errors.As(err, &refusal); !refused {
		err = withLastWords(err, p.out)
	}
	p.lastError = err.Error()
	return p.lastError, refused
}

// life is one process, from its start, or from its taking over, to its end. It
// always returns an error.
func (p *Plugin) life(ctx context.Context, next *successor) error {
	if next != nil {
		p.takeOver(next)
		return p.serve(ctx, next.inst)
	}
	p.mu.Lock()
	spec, out := p.spec, p.out
	p.mu.Unlock()
	out.begin()
	i, err := p.launch(ctx, spec, out)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p.mu.Lock()
	p.inst = i
	p.mu.Unlock()
	version, err := p.configure(ctx, i, spec)
	if version != "" {
		p.mu.Lock()
		p.version = version
		p.mu.Unlock()
	}
	if err != nil {
		p.stop(ctx, i, false)
		return err
	}
	return p.serve(ctx, i)
}

func (p *Plugin) launch(ctx context.Context, spec Spec, out *output) (*instance, error) {
	timeout := spec.StartTimeout
	if timeout == 0 {
		timeout = p.host.pace.StartTimeout
	}
	s, err := p.host.working(spec)
	if err != nil {
		return nil, err
	}
	return p.host.launch(ctx, s, out, timeout)
}

// serve serves the streams of a configured process until it ends, freezes, or ctx
// is done, and stops it.
func (p *Plugin) serve(ctx context.Context, i *instance) error {
	p.started(nil)
	serving, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.streams(serving, i)
	}()
	frozen, err := p.watch(serving, i)
	cancel(err)
	<-ended
	p.stop(ctx, i, frozen)
	return err
}

// stop ends a process: in the background when a successor takes over, which waits
// for nothing.
func (p *Plugin) stop(ctx context.Context, i *instance, frozen bool) {
	end := func() {
		i.stop(p.host.pace.StopTimeout, frozen)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.inst == i {
			p.inst = nil
		}
		p.retired = slices.DeleteFunc(p.retired, func(o *instance) bool { return o == i })
		if !i.proc.alive() {
			p.pastCPU += i.proc.usage
		}
	}
	if !yielded(ctx) {
		end()
		return
	}
	p.mu.Lock()
	p.inst = nil
	p.retired = append(p.retired, i)
	p.mu.Unlock()
	p.retiring.Go(end)
}

// configure describes and configures a process. The version is told also when only
// that much went well.
func (p *Plugin) configure(ctx context.Context, i *instance, spec Spec) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.host.pace.ConfigureTimeout)
	defer cancel()
	d, _, err := i.describe(ctx)
	if err != nil {
		return "", err
	}
	i.interval, err = i.configure(ctx, spec)
	return d.Version, err
}

// streams serves one stream after the other until ctx is done or the process has
// ended.
func (p *Plugin) streams(ctx context.Context, i *instance) {
	wait := retry{min: p.host.pace.BackoffMin, max: p.host.pace.BackoffMax}
	for {
		since := time.Now()
		err := p.kind.stream(ctx, i, func() {
			p.owed = true
			i.mu.Lock()
			defer i.mu.Unlock()
			i.open, i.broken = true, ""
			i.told.Store(0)
			i.taken.before, i.taken.at = i.taken.received, time.Now()
			i.settle(p)
		})
		if yielded(ctx) {
			return // whoever follows tells everything anew, or owes the word
		}
		reason := i.streamEnd(ctx, err)
		if p.owed {
			p.owed = false
			p.kind.lost(reason)
		}
		if ctx.Err() != nil || !i.proc.alive() {
			return
		}
		i.mu.Lock()
		i.open, i.broken = false, reason
		i.settle(p)
		i.mu.Unlock()
		if time.Since(since) >= p.host.pace.StableAfter {
			wait.reset()
		}
		wait.failures = max(wait.failures, 1) // never at once: the plugin may return at once
		select {
		case <-time.After(wait.next()):
		case <-i.proc.exited:
			return
		case <-ctx.Done():
			return
		}
	}
}

// streamEnd says why a stream ended.
func (i *instance) streamEnd(ctx context.Context, err error) string {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled):
		return "it was stopped"
	case cause != nil:
		return cause.Error()
	case err == nil || errors.Is(err, io.EOF):
		return "its stream ended by itself"
	}
	// Mostly the process has ended when the connection has; its end says more.
	return i.rpcError(err).Error()
}
