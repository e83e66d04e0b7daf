package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// successor is a configured process that is to take over.
type successor struct {
	inst    *instance
	spec    Spec
	version string
	since   time.Time // when its start began
	out     *output
	taken   chan struct{} // closed once it has taken over
}

// errYield ends a turn of supervision in favour of a successor.
var errYield = errors.New("it was replaced")

func yielded(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errYield) }

// Replace puts a new process, run as s says, in the place of the one that runs:
//
//  1. A process is started beside the old one, described and configured, and asked
//     for its health. For a while two processes of the plugin run, which share its
//     state directory.
//  2. When any of that goes wrong the new process is ended, the error returned, and
//     the old one goes on as if nothing had been. A configuration that the plugin
//     refuses is a *diag.Refusal.
//  3. The old process's stream is ended and the new one's opened. What the old one
//     told is not marked stale, for the new stream begins with telling everything
//     anew: Lost is called only when that stream then fails to open.
//  4. The old process is asked to end, and killed when it does not, in the
//     background.
//
// Replace returns once the new process has taken over; Status is the new one's
// then. That is no restart: restarts and their budget are those of failures. A
// plugin that has failed, or waits to be started again, is started by Replace in
// the same way, and when the new process is no good stays as it was.
//
// s must be of the same kind and name. Calls take their turns. Stop, and the end of
// ctx, end a Replace that has not reached step 3.
func (p *Plugin) Replace(ctx context.Context, s Spec) error {
	if s.Entry.String() != p.id {
		return fmt.Errorf("replace plugin %s: %s is another", p.id, s.Entry)
	}
	if err := p.host.use(); err != nil {
		return fmt.Errorf("replace plugin %s: %w", p.id, err)
	}
	defer p.host.using.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(errStopped) })()
	select {
	case p.replacing <- struct{}{}:
		defer func() { <-p.replacing }()
	case <-ctx.Done():
		return fmt.Errorf("replace plugin %s: %w", p.id, context.Cause(ctx))
	}
	next, err := p.prepare(ctx, s)
	if err == nil {
		err = p.handOver(next)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // that its calls failed then says nothing
		}
		return fmt.Errorf("replace plugin %s: %w", p.id, err)
	}
	return nil
}

// prepare starts a process that can take over. When it fails nothing is left
// running.
func (p *Plugin) prepare(ctx context.Context, s Spec) (*successor, error) {
	next := &successor{spec: s, since: time.Now(), out: &output{log: p.log}, taken: make(chan struct{})}
	var err error
	if next.inst, err = p.launch(ctx, s, next.out); err != nil {
		return nil, withLastWords(fmt.Errorf("start: %w", err), next.out)
	}
	if next.version, err = p.configure(ctx, next.inst, s); err == nil {
		err = p.ask(ctx, next.inst)
	}
	if err != nil {
		if refusal := (*diag.Refusal)(nil); !errors.As(err, &refusal) {
			err = withLastWords(err, next.out)
		}
		next.inst.stop(p.host.pace.StopTimeout, false)
		return nil, err
	}
	return next, nil
}

// ask asks for a process's health once. One that is degraded is as good as it can
// be: what it depends on may be away for the old one too.
func (p *Plugin) ask(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, p.host.pace.ConfigureTimeout)
	defer cancel()
	if _, err := i.rpc.Health(ctx, &protov1.HealthRequest{}); err != nil {
		return fmt.Errorf("ask for its health: %w", i.rpcError(err))
	}
	return nil
}

// handOver ends the turn of supervision that is under way, whatever it does, and
// waits until the successor has taken over. When supervision has ended it ends the
// successor.
func (p *Plugin) handOver(next *successor) error {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		next.inst.stop(p.host.pace.StopTimeout, false)
		return errStopped
	}
	p.next = next
	if p.yield != nil {
		p.yield(errYield)
	}
	p.mu.Unlock()
	select {
	case <-next.taken:
		return nil
	case <-p.done:
		select {
		case <-next.taken: // and has ended with the rest since
			return nil
		default:
			return errStopped
		}
	}
}

// turn begins the next turn of supervision: one process, and what follows its end.
// It is done when ctx is, or when a successor waits, which is the next turn's.
func (p *Plugin) turn(ctx context.Context) (context.Context, *successor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.yield != nil {
		p.yield(nil) // the last turn's: it has ended
	}
	next := p.next
	p.next = nil
	ctx, p.yield = context.WithCancelCause(ctx)
	return ctx, next
}

// takeOver makes a successor the plugin.
func (p *Plugin) takeOver(next *successor) {
	p.mu.Lock()
	next.out.after(p.out)
	p.inst, p.spec, p.version, p.out = next.inst, next.spec, next.version, next.out
	p.replaced++
	p.mu.Unlock()
	p.log.Info("plugin was replaced", "version", next.version, "pid", next.inst.proc.pid(), "took", time.Since(next.since))
	close(next.taken)
}

// retire ends what supervision leaves at its end.
func (p *Plugin) retire() {
	p.mu.Lock()
	p.over = true
	next := p.next
	p.next = nil
	p.yield(nil)
	p.mu.Unlock()
	if next != nil {
		next.inst.stop(p.host.pace.StopTimeout, false)
	}
	p.retiring.Wait()
}
