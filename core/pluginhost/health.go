package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

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
