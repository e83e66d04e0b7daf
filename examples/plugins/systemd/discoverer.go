package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// booted is a directory that is there when systemd is the host's init, as sd_booted(3)
// has it.
const booted = "/run/systemd/system"

// systemd is a Discoverer.
type systemd struct {
	config Config
	node   *protov1.Node
	log    *slog.Logger
}

var _ discover.Discoverer = (*systemd)(nil)

// Detect tells whether systemd runs the host.
func (s *systemd) Detect(context.Context) (string, error) {
	dir := filepath.Join(s.node.GetHostRoot(), booted)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return fmt.Sprintf("%s is not there", dir), discover.ErrAbsent
	}
	return dir, nil
}

// Discover follows the control groups until ctx is done.
func (s *systemd) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) error {
	if s.node.GetCgroupRoot() == "" {
		inv.Degraded("this host has no cgroup2 hierarchy, by whose names units are known: mount one")
		<-ctx.Done()
		return ctx.Err()
	}
	known := newUnits(s.config, inv, time.Now)
	facts := host.Facts(&protov1.Subscribe{Cgroups: true})
	sweep := time.NewTicker(max(time.Second, s.config.Keep/16))
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sweep.C:
			if err := known.sweep(); err != nil {
				return err
			}
		case batch, ok := <-facts:
			if !ok { // the stream has ended
				return ctx.Err()
			}
			for _, f := range batch.GetFacts() {
				if err := known.take(f); err != nil {
					return err
				}
			}
			if missed := batch.GetMissed(); missed > known.missed {
				s.log.Warn("news of control groups was missed; a list of all follows", "missed", missed-known.missed)
				known.missed = missed
			}
		}
	}
}
