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

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Spec says which plugin to run and how.
type Spec struct {
	Entry  Entry
	Config []byte // JSON that follows its schema
	Node   *protov1.Node
	// Memory, in bytes, that the plugin should stay within; 0: no limit.
	Memory       int64
	StartTimeout time.Duration // 0: the host's
}

// Plugin is one plugin under supervision. Whatever happens to its process, it is
// started again, at once and then more and more slowly, until it has failed too
// often. Its methods are safe for concurrent use.
type Plugin struct {
	host   *Host
	spec   Spec
	log    *slog.Logger
	out    *output
	kind   kind
	cancel context.CancelFunc
	done   chan struct{} // closed when supervision has ended

	refused atomic.Uint64

	again chan struct{} // a failed plugin is to be tried again

	mu        sync.Mutex
	state     State
	since     time.Time
	reason    string
	version   string
	restarts  uint64
	pastCPU   time.Duration
	inst      *instance
	first     error         // how the first start went, once begun is closed
	begun     chan struct{} // closed when the first start has been tried
	firstOnce sync.Once
}

// kind is what a kind of plugin does with a configured process.
type kind interface {
	// stream opens the kind's stream and serves it until it ends. open is
	// called once it is open.
	stream(ctx context.Context, i *instance, open func()) error
	// lost is called after each stream that was open.
	lost(reason string)
	// queued is the depth of the queue to the plugin and its dropped items.
	queued() (depth, dropped uint64)
}

// plugin makes a plugin that is not supervised yet.
func (h *Host) plugin(s Spec) *Plugin {
	log := h.log.With("plugin", s.Entry.String())
	return &Plugin{
		host: h, spec: s, log: log, out: &output{log: log},
		done: make(chan struct{}), again: make(chan struct{}, 1), begun: make(chan struct{}),
		state: Starting, since: time.Now(),
	}
}

// supervise starts supervision. It returns at once.
func (p *Plugin) supervise(ctx context.Context, k kind) error {
	h := p.host
	ctx, cancel := context.WithCancel(ctx)
	p.kind, p.cancel = k, cancel
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
		return fmt.Errorf("wait for plugin %s: %w", p.spec.Entry, ctx.Err())
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
		return fmt.Errorf("stop plugin %s: %w", p.spec.Entry, ctx.Err())
	}
}

// run is the plugin's life.
func (p *Plugin) run(ctx context.Context) {
	pace := p.host.pace
	wait := retry{min: pace.BackoffMin, max: pace.BackoffMax}
	left := budget{most: pace.Restarts, window: pace.RestartWindow}
	for {
		p.setState(Starting, "")
		since := time.Now()
		err := p.life(ctx)
		if ctx.Err() != nil {
			p.setState(Stopped, "")
			return
		}
		if time.Since(since) >= pace.StableAfter {
			wait.reset()
		}
		var refusal *diag.Refusal
		refused := errors.As(err, &refusal)
		p.started(err)
		reason := withLastWords(err, p.out).Error()
		if refused {
			reason = err.Error()
		}
		if refused || !left.spend(time.Now()) {
			if !refused {
				reason = fmt.Sprintf("it failed more than %d times in %s: %s", pace.Restarts, pace.RestartWindow, reason)
			}
			p.setState(Failed, reason)
			select {
			case <-p.again: // asked for before it had failed
			default:
			}
			select {
			case <-p.again:
			case <-ctx.Done():
				p.setState(Stopped, "")
				return
			}
			left.spent, wait.failures = nil, 0
		} else if pause := wait.next(); pause > 0 {
			p.setState(Backoff, reason)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				p.setState(Stopped, "")
				return
			}
		} else {
			p.log.Warn("plugin failed, starting it again", "reason", reason)
		}
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

// life is one process, from its start to its end. It always returns an error.
func (p *Plugin) life(ctx context.Context) error {
	timeout := p.spec.StartTimeout
	if timeout == 0 {
		timeout = p.host.pace.StartTimeout
	}
	i, err := p.host.launch(ctx, p.spec.Entry, p.out, p.spec.Memory, timeout)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p.mu.Lock()
	p.inst = i
	p.mu.Unlock()
	frozen, err := p.serve(ctx, i)
	i.stop(p.host.pace.StopTimeout, frozen)
	p.mu.Lock()
	p.inst = nil
	if !i.proc.alive() {
		p.pastCPU += i.proc.usage
	}
	p.mu.Unlock()
	return err
}

// serve configures a process and serves its streams until it ends, freezes, or ctx
// is done.
func (p *Plugin) serve(ctx context.Context, i *instance) (frozen bool, err error) {
	if err := p.configure(ctx, i); err != nil {
		return false, err
	}
	p.started(nil)
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.streams(ctx, i)
	}()
	frozen, err = p.watch(ctx, i)
	cancel(err)
	<-ended
	return frozen, err
}

func (p *Plugin) configure(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, p.host.pace.ConfigureTimeout)
	defer cancel()
	d, err := i.describe(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.version = d.Version
	p.mu.Unlock()
	state, err := p.host.stateDir(p.spec.Entry)
	if err != nil {
		return err
	}
	asked, err := i.configure(ctx, p.spec, state)
	if err != nil {
		return err
	}
	i.interval = asked
	return nil
}

// watch asks for the process's health until it ends, freezes or ctx is done.
func (p *Plugin) watch(ctx context.Context, i *instance) (frozen bool, err error) {
	pace := p.host.pace
	next := time.NewTimer(pace.HealthInterval)
	defer next.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-i.proc.exited:
			return false, errors.New(i.proc.ended)
		case err := <-i.hung:
			return true, err
		case <-next.C:
		}
		asked := time.Now()
		health, cancel := context.WithTimeout(ctx, pace.HealthTimeout)
		r, err := i.rpc.Health(health, &protov1.HealthRequest{})
		cancel()
		if err == nil {
			misses = 0
			i.healthy(p, r)
		} else if ctx.Err() == nil && i.proc.alive() {
			misses++
			if misses >= pace.HealthMisses {
				return true, fmt.Errorf("it is frozen or broken: %d health checks of %s in a row went wrong: %w", misses, pace.HealthTimeout, rpcText(err))
			}
		}
		// After a miss at once, but not in a tight loop when calls fail at once.
		pause := pace.HealthInterval
		if misses > 0 {
			pause = max(0, pace.HealthTimeout-time.Since(asked))
		}
		next.Reset(pause)
	}
}

// healthy takes a health answer into the state. A stream that is down has a reason
// of its own, which goes before.
func (i *instance) healthy(p *Plugin, r *protov1.HealthResponse) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.degraded = ""
	if r.GetDegraded() {
		i.degraded = r.GetReason()
		if i.degraded == "" {
			i.degraded = "it says so, but not why"
		}
	}
	i.settle(p)
}

// settle sets the state that stream and health add up to. i.mu is held.
func (i *instance) settle(p *Plugin) {
	switch {
	case i.broken != "":
		p.setState(Degraded, i.broken)
	case !i.open:
		// starting, until its stream is open
	case i.degraded != "":
		p.setState(Degraded, i.degraded)
	default:
		p.setState(Running, "")
	}
}

// streams serves one stream after the other until ctx is done or the process has
// ended.
func (p *Plugin) streams(ctx context.Context, i *instance) {
	wait := retry{min: p.host.pace.BackoffMin, max: p.host.pace.BackoffMax}
	for {
		opened := false
		since := time.Now()
		err := p.kind.stream(ctx, i, func() {
			opened = true
			i.mu.Lock()
			defer i.mu.Unlock()
			i.open, i.broken = true, ""
			i.settle(p)
		})
		reason := i.streamEnd(ctx, err)
		if opened {
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
