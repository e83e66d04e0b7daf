package pluginhost

import (
	"context"
	"errors"
	"fmt"
)

// Try confines a process as the plugin's would be, by the same program and with the
// same rights, and ends it before it becomes the plugin: nothing of the plugin runs.
// It tells what this host can do.
func (h *Host) Try(ctx context.Context, s Spec) (Confinement, error) {
	how, err := h.working(s)
	if err != nil {
		return Confinement{}, err
	}
	if err := h.use(); err != nil {
		return Confinement{}, err
	}
	defer h.using.Done()
	c, err := h.try(ctx, s, how)
	if again, err := h.without(err); !again {
		return c, err
	}
	return h.try(ctx, s, how)
}

func (h *Host) try(ctx context.Context, s Spec, how start) (Confinement, error) {
	i, err := h.newInstance(ctx, how, &output{log: h.log.With("plugin", s.Entry.String())})
	if err != nil {
		return Confinement{}, fmt.Errorf("plugin %s: %w", s.Entry, err)
	}
	defer i.end()
	i.run.prog.plan.Trial = true
	ctx, cancel := context.WithTimeoutCause(ctx, h.pace.StartTimeout, fmt.Errorf("it was not confined after %s", h.pace.StartTimeout))
	defer cancel()
	p, err := i.run.spawn()
	if err != nil {
		return Confinement{}, fmt.Errorf("plugin %s: %w", s.Entry, err)
	}
	select {
	case <-p.confined:
	case <-ctx.Done():
		return Confinement{}, fmt.Errorf("plugin %s: %w", s.Entry, context.Cause(ctx))
	}
	if p.refused != nil {
		return Confinement{}, fmt.Errorf("plugin %s: %w", s.Entry, p.refused)
	}
	<-p.exited
	if p.ended != exitedWell {
		return Confinement{}, errors.New(p.ended)
	}
	return i.confinement(), nil
}
