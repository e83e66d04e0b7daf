package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ociDiscoverer finds the containers in state directories.
type ociDiscoverer struct {
	config Config
	node   *protov1.Node
	log    *slog.Logger
}

var _ discover.Discoverer = (*ociDiscoverer)(nil)

func newDiscoverer(c Config, node *protov1.Node, log *slog.Logger) *ociDiscoverer {
	return &ociDiscoverer{config: c, node: node, log: log}
}

// Detect tells whether there is a container that no daemon manages, or a root that the
// operator named.
func (d *ociDiscoverer) Detect(context.Context) (string, error) {
	var seen, missing []string
	present := false
	look := func(r *root) {
		names, err := r.names(maxContainers)
		if err != nil {
			missing = append(missing, err.Error())
		}
		names = slices.DeleteFunc(names, func(name string) bool { return stamp(r.dir, name) == stateStamp{} || !r.holds(name) })
		if r.own || len(names) > 0 && (r.runtime == "" || d.config.Lifecycle == lifecycleAll) {
			present = true
		}
		seen = append(seen, fmt.Sprintf("%d containers in %s", len(names), r.path))
	}
	for _, p := range d.config.places(d.node.GetHostRoot()) {
		r := newRoot(p)
		err := r.open()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, "no "+p.path)
			continue
		case err != nil:
			missing = append(missing, err.Error())
			continue
		}
		if !r.parent {
			look(r)
		} else if names, err := r.names(maxContainers); err == nil {
			present = present || r.own
			for _, name := range names {
				in := r.namespace(name)
				if in.open() != nil {
					continue
				}
				look(in)
				if err := in.dir.Close(); err != nil {
					return "", fmt.Errorf("close %s: %w", in.path, err)
				}
			}
		}
		if err := r.dir.Close(); err != nil {
			return "", fmt.Errorf("close %s: %w", r.path, err)
		}
	}
	detail := strings.Join(append(seen, missing...), ", ")
	if !present {
		return detail, discover.ErrAbsent
	}
	return detail, nil
}

// Discover follows the state directories until ctx is done.
func (d *ociDiscoverer) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) (err error) {
	var facts <-chan *protov1.HostFacts
	if host != nil {
		facts = host.Facts(&protov1.Subscribe{Cgroups: true, Claims: true})
	}
	t := newTracker(inv, d.config, d.node, d.log)
	var waiter sync.WaitGroup
	stop := make(chan struct{})
	defer func() {
		close(stop)
		err = errors.Join(err, t.close())
		waiter.Wait()
	}()
	if d.config.Proc != "" && t.proc == "" {
		d.log.Warn("there is no other process than the plugin's own in what proc names; it is not used", "proc", d.config.Proc)
	}
	if err := t.begin(); err != nil {
		return err
	}
	ready := make(chan struct{})
	if t.watcher != nil {
		waiter.Go(func() { t.watcher.wait(ready, stop) })
	}
	return d.loop(ctx, t, facts, ready)
}

func (d *ociDiscoverer) loop(ctx context.Context, t *tracker, facts <-chan *protov1.HostFacts, ready <-chan struct{}) error {
	beats := time.NewTicker(beat)
	defer beats.Stop()
	var resync <-chan time.Time
	if d.config.Resync > 0 {
		r := time.NewTicker(d.config.Resync)
		defer r.Stop()
		resync = r.C
	}
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		if at := t.due(); at.IsZero() {
			due.Stop()
		} else {
			due.Reset(time.Until(at))
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, ok := <-facts:
			if !ok {
				facts = nil // the stream has ended, and ctx is about to
				continue
			}
			err = t.facts(batch)
		case <-ready:
			err = t.catchUp()
		case <-beats.C:
			err = t.beat()
		case <-resync:
			err = t.resync()
		case <-due.C:
			err = t.settle(time.Now())
		}
		if err == nil {
			err = t.work()
		}
		if err != nil {
			return err
		}
	}
}
