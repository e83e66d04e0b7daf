package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/watch"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// What a health check that is not answered in time weighs, by what the process did
// meanwhile. A process whose doubts add up to Pace.HealthDoubts is given up, and so
// is one that is stopped at once: nothing on this host is so busy that a process
// without an obstacle does not get to run, but a process that runs, or waits for a
// CPU, may still answer.
const (
	doubtAsleep = 3
	doubtBusy   = 1
	doubtWrong  = 3 // it answered, with an error
)

// watch asks for the process's health until it ends, freezes, hangs or ctx is done.
// A process that is frozen can't be asked to end.
func (p *Plugin) watch(ctx context.Context, i *instance) (frozen bool, err error) {
	pace := p.host.pace
	next := time.NewTimer(pace.HealthInterval)
	defer next.Stop()
	changed := make(chan struct{}, 1)
	changed <- struct{}{} // what happened before it was watched
	defer p.host.watcher.Watch(i.reach.places, func(c watch.Change) {
		if !c.Another {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}).Close()
	doubts := 0
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-i.proc.exited:
			return false, errors.New(i.proc.ended)
		case err := <-i.hung:
			return true, err
		case <-changed:
			if err := i.reach.moved(); err != nil {
				return false, err
			}
			continue
		case <-next.C:
		}
		r, err := p.check(ctx, i)
		switch {
		case ctx.Err() != nil || !i.proc.alive():
			// the next turn of the loop says which
		case err == nil:
			doubts = 0
			i.healthy(p, r)
			if err := i.stalled(r, time.Now(), pace.StallAfter); err != nil {
				return false, err
			}
		case errors.Is(err, errSilent):
			return true, err
		default:
			if doubts += doubtWrong; doubts >= pace.HealthDoubts {
				return true, fmt.Errorf("it is broken: its health can't be asked for: %w", rpcText(err))
			}
		}
		next.Reset(pace.HealthInterval)
	}
}

// errSilent is wrapped by what says of a process that it is given up.
var errSilent = errors.New("it has not answered a health check")

// check asks for a process's health once, and waits as long as there is hope for
// an answer. Looks at the process are only taken while it keeps the host waiting.
func (p *Plugin) check(ctx context.Context, i *instance) (*protov1.HealthResponse, error) {
	pace := p.host.pace
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		health *protov1.HealthResponse
		err    error
	}
	answer := make(chan result, 1)
	answered := false
	go func() {
		r, err := i.rpc.Health(ctx, &protov1.HealthRequest{})
		answer <- result{r, err}
	}()
	defer func() {
		cancel()
		if !answered {
			<-answer
		}
	}()
	asked := time.Now()
	wait := pace.HealthTimeout / 6 // then to the first look
	tick := time.NewTimer(wait)
	defer tick.Stop()
	due := asked.Add(wait)
	var before look
	doubts := 0
	for {
		select {
		case r := <-answer:
			answered = true
			return r.health, r.err
		case <-i.proc.exited:
			return nil, errors.New(i.proc.ended)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		late := time.Since(due)
		now, err := lookAt(i.proc.pid())
		if err != nil {
			return nil, err // it is gone
		}
		if before.threads != nil {
			what, words := now.since(before)
			switch {
			case what == stopped:
				doubts = pace.HealthDoubts
			case late > pace.HealthTimeout/6:
				// The daemon itself has had no CPU: an answer may be on its way.
			case what == asleep:
				doubts += doubtAsleep
			case what == busy:
				doubts += doubtBusy
			}
			if silent := time.Since(asked); doubts >= pace.HealthDoubts || silent >= pace.SilentAfter {
				return nil, fmt.Errorf("it is frozen: %w for %s: %s", errSilent, silent.Round(10*time.Millisecond), words)
			}
			wait = pace.HealthTimeout
		} else {
			wait = pace.HealthTimeout - wait
		}
		before = now
		tick.Reset(wait)
		due = time.Now().Add(wait)
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

// progress is how far a plugin has come with what its stream is told.
type progress struct {
	before   uint64    // messages that it had received when the stream was opened
	received uint64    // by its last health answer
	at       time.Time // it received one, or had nothing more to receive
}

// stalled says that a plugin has stopped reading its stream while it is healthy
// otherwise: for a while it was told more than it has received. One that does not
// count its messages is not judged.
func (i *instance) stalled(r *protov1.HealthResponse, now time.Time, after time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	told, was := i.told.Load(), i.taken
	i.taken.received = r.GetReceived()
	counts := r.GetReceived()+r.GetSent() > 0
	if !i.open || !counts || r.GetReceived() != was.received || r.GetReceived() >= was.before+told {
		i.taken.at = now
		return nil
	}
	if idle := now.Sub(was.at); idle >= after {
		return fmt.Errorf("its stream has stopped: of %d messages it has read %d, and none for %s",
			told, r.GetReceived()-was.before, idle.Round(time.Second))
	}
	return nil
}
