package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// containers measures discovery: how soon a container is known, what many of
// them cost, and what all discoverers hold together.
func (b *bench) containers(ctx context.Context) error {
	for _, part := range []func(context.Context) error{b.lookups, b.crowd, b.everyDiscoverer} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return b.goBench(ctx, "./core/inventory", true)
}

// lookups measures how long after the runtime's own time of a start a lookup by the
// container's cgroup answers.
func (b *bench) lookups(ctx context.Context) (err error) {
	starts := 100
	if b.Quick {
		starts = 5
	}
	d, err := b.start(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, err != nil)) }()
	daemon, err := client.Dial(ctx, filepath.Join(d.dir, "api.sock"))
	if err != nil {
		return err
	}
	defer daemon.Close()

	watch := b.docker.Command(ctx, "events", "--filter", "event=start", "--format", "{{.TimeNano}} {{.ID}}")
	out, err := watch.StdoutPipe()
	if err != nil {
		return err
	}
	if err := watch.Start(); err != nil {
		return fmt.Errorf("watch dockerd's events: %w", err)
	}
	lines := bufio.NewScanner(out)
	defer func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
	}()
	var waits []time.Duration
	trip := series{experiment: "containers", name: "a call of the daemon's API", unit: "ms"}
	for i := range starts {
		b.say("look up container %d of %d as it starts", i+1, starts)
		name := fmt.Sprintf("bench-%d-%d", os.Getpid(), i)
		started := make(chan error, 1)
		go func() {
			_, err := b.docker.CLI(ctx, "run", "--detach", "--network", "none", "--name", name, env.BusyboxImage, "sleep", "1000")
			started <- err
		}()
		if !lines.Scan() {
			return errors.Join(errors.New("dockerd told no more events"), lines.Err(), <-started)
		}
		nano, id, _ := strings.Cut(lines.Text(), " ")
		at, err := strconv.ParseInt(nano, 10, 64)
		if err != nil {
			return errors.Join(fmt.Errorf("read dockerd's event: %w", err), <-started)
		}
		for {
			before := time.Now()
			list, err := daemon.ListContainers(ctx)
			if err != nil {
				return errors.Join(err, <-started)
			}
			trip.add(float64(time.Since(before).Microseconds()) / 1e3)
			if slices.ContainsFunc(list, func(c *protov1.ContainerView) bool {
				return c.GetContainer().GetId() == id && c.GetContainer().GetName() == name && len(c.GetCgroupIds()) > 0
			}) {
				break
			}
		}
		waits = append(waits, time.Since(time.Unix(0, at)))
		if err := <-started; err != nil {
			return err
		}
		if _, err := b.docker.CLI(ctx, "rm", "--force", name); err != nil {
			return err
		}
	}
	slices.Sort(waits)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		s := series{experiment: "containers", name: "from dockerd's start event to a lookup, " + q.name, unit: "ms", baselineOf: trip.name}
		s.beside(float64(waits[int(q.at*float64(len(waits)-1))].Microseconds())/1e3, median(trip.values))
		b.report.figure(&s)
	}
	b.report.note("A lookup counts once the daemon's API tells the container by its cgroup; the time begins at the time in dockerd's own start event, and includes the way of that event to the bench and at least one call. A container is known by its create event, before it starts.")
	return nil
}

const crowdConfig = `
node { name = "bench" }
probe "process" {}
%s
sampler "threshold" {}
exporter "json" {
  path     = %q
  max_size = "64GiB"
}
budget { events_per_second = 10000000 }
load { cpu_threshold = 0 }
api { socket = %q }
`

// crowd measures a host of many containers, of which ten start and end a second: a
// daemon that discovers them, and beside it one that is to discover nothing.
func (b *bench) crowd(ctx context.Context) (err error) {
	c, err := env.NewContainerd(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	h, err := b.newHerd(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close(context.WithoutCancel(ctx))) }()
	with, err := b.amongCrowd(ctx, h, fmt.Sprintf("discoverer \"containerd\" { address = \"unix://%s\" }", c.Socket))
	if err != nil {
		return err
	}
	without, err := b.amongCrowd(ctx, h, "")
	if err != nil {
		return err
	}

	all := fmt.Sprintf("with %d containers", b.crowdSize())
	seconds, rate := b.pace()
	churn := fmt.Sprintf("%s, %d start and end a second", all, rate)
	share := func(c cost) float64 { return 100 * (c.daemon + c.plugins).Seconds() / float64(seconds) }
	plugins := func(c cost) float64 { return 100 * c.plugins.Seconds() / float64(seconds) }
	for _, f := range []struct {
		name, unit string
		value      float64
		baseline   *float64
		of         string
	}{
		{"CPU of daemon and plugins " + all + ", nothing happens", "% of a CPU", share(with.idle), new(share(without.idle)), "without a discoverer"},
		{"CPU of daemon and plugins " + churn, "% of a CPU", share(with.busy), new(share(without.busy)), "without a discoverer"},
		{"of that the plugins", "% of a CPU", plugins(with.busy), new(plugins(without.busy)), "without a discoverer"},
		{"CPU of discovery " + churn, "% of a CPU", share(with.busy) - share(without.busy), nil, ""},
		{"memory of daemon and discoverer " + all, "MiB", with.full, new(with.empty), "without containers"},
		{"growth of it", "MiB", with.full - with.empty, nil, ""},
	} {
		s := series{experiment: "containers", name: f.name, unit: f.unit, baselineOf: f.of}
		if f.baseline != nil {
			s.beside(f.value, *f.baseline)
		} else {
			s.add(f.value)
		}
		b.report.figure(&s)
	}
	b.report.note("The containers of a crowd are records of a real containerd, each with a control group and a process; the events of their tasks are published through its own service, since a thousand shims would measure containerd. CPU of discovery is what a daemon with a discoverer took more than one without, of which the events of the same containers are nobody's.")
	return nil
}

// crowdSize is how many containers a crowd has.
func (b *bench) crowdSize() int {
	if b.Quick {
		return 50
	}
	return b.Containers
}

// pace is for how long a crowd is watched, and how many containers start and end a second.
func (b *bench) pace() (seconds, rate int) {
	if b.Quick {
		return 1, 10
	}
	return 30, 10
}

// crowdCost is what a daemon cost among a crowd.
type crowdCost struct {
	empty, full float64 // memory of daemon and discoverer, MiB, without and with the crowd
	idle, busy  cost
}

// amongCrowd runs a daemon among a herd, which it makes if there is none yet.
func (b *bench) amongCrowd(ctx context.Context, h *herd, discoverer string) (c crowdCost, err error) {
	d, err := b.spawnText(func(d *daemon) string {
		return fmt.Sprintf(crowdConfig, discoverer, d.events, filepath.Join(d.dir, "api.sock"))
	})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, d.end(ctx, err != nil)) }()
	if err := d.isReady(ctx); err != nil {
		return c, err
	}
	daemon, err := client.Dial(ctx, filepath.Join(d.dir, "api.sock"))
	if err != nil {
		return c, err
	}
	defer daemon.Close()

	seconds, rate := b.pace()
	pause := func(of time.Duration) func() error {
		return func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(of):
				return nil
			}
		}
	}
	settled := 15 * time.Second // plugins give back memory some seconds after their start
	if b.Quick {
		settled = time.Second
	}
	if err := errors.Join(b.known(ctx, daemon, 0), pause(settled)()); err != nil {
		return c, err
	}
	if c.empty, err = b.held(d); err != nil {
		return c, err
	}
	if many := b.crowdSize(); h.size() == 0 {
		b.say("make %d containers", many)
		for i := range many {
			m, err := h.create(ctx, fmt.Sprintf("herd-%d-%04d", os.Getpid(), i))
			if err == nil {
				err = h.start(ctx, m, "/bin/busybox", "sleep", "1000000")
			}
			if err != nil {
				return c, err
			}
		}
		if err := errors.Join(b.known(ctx, daemon, many), pause(settled)()); err != nil {
			return c, err
		}
	}
	if c.full, err = b.held(d); err != nil {
		return c, err
	}
	if c.idle, err = b.costOf(ctx, d, pause(time.Duration(seconds)*time.Second)); err != nil {
		return c, err
	}
	mine := fmt.Sprintf("churn-%d-%d-", os.Getpid(), d.pid())
	b.say("start and end %d containers a second for %d s", rate, seconds)
	if c.busy, err = b.costOf(ctx, d, func() error { return b.churn(ctx, h, mine, rate, seconds) }); err != nil {
		return c, err
	}
	named, err := linesWith(d.events, []byte(`"kind":"process.exec"`))
	if err != nil {
		return c, err
	}
	execs := func(line []byte) bool { return bytes.Contains(line, []byte(filepath.Base(b.loads.Noop))) }
	if discoverer != "" {
		named = slices.DeleteFunc(named, func(line []byte) bool {
			return !execs(line) || !bytes.Contains(line, []byte(`"name":"`+mine))
		})
		b.report.check("containers", "first execs that carry their container's name", int64(len(named)), int64(rate*seconds))
		return c, nil
	}
	named = slices.DeleteFunc(named, func(line []byte) bool { return !execs(line) })
	b.report.check("containers", "execs of the same containers without a discoverer", int64(len(named)), int64(rate*seconds))
	return c, nil
}

// churn starts and ends containers at a rate.
func (b *bench) churn(ctx context.Context, h *herd, prefix string, rate, seconds int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := range rate * seconds {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		m, err := h.create(ctx, fmt.Sprintf("%s%04d", prefix, i))
		if err == nil {
			err = h.start(ctx, m, b.loads.Noop)
		}
		if err == nil {
			err = h.finish(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// known waits until the daemon knows at least so many containers, and its plugins are
// at work.
func (b *bench) known(ctx context.Context, daemon *client.Client, many int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		s, err := daemon.GetStats(ctx)
		if err != nil {
			return err
		}
		plugins, err := daemon.ListPlugins(ctx)
		if err != nil {
			return err
		}
		ready := !slices.ContainsFunc(plugins, func(p *protov1.PluginView) bool { return p.GetState() != "running" })
		if ready && s.GetAttribution().GetContainers() >= uint64(many) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the daemon knows %d of %d containers: %w; its plugins are %v", s.GetAttribution().GetContainers(), many, ctx.Err(), plugins)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// held is the memory of a daemon and its discoverers in MiB: PSS, which counts what
// several processes share by its part.
func (b *bench) held(d *daemon) (float64, error) {
	groups, err := b.groups.plugins(d.pid())
	if err != nil {
		return 0, err
	}
	pids := []int{d.pid()}
	for name, group := range groups {
		if strings.HasPrefix(name, "sampler") {
			continue
		}
		of, err := groupPIDs(group)
		if err != nil {
			return 0, err
		}
		pids = append(pids, of...)
	}
	var sum float64
	for _, pid := range pids {
		m, err := kib(pid, "smaps_rollup", "Pss")
		if err != nil {
			return 0, err
		}
		sum += m[0]
	}
	return sum, nil
}

const everyConfig = `
node { name = "bench" }
probe "process" {}
discoverer "docker" { host = "unix://%s" }
discoverer "containerd" { address = "unix://%s" }
discoverer "crio" { endpoint = "unix://%s" }
discoverer "podman" {}
discoverer "oci" {}
sampler "threshold" {}
exporter "json" {
  path     = %q
  max_size = "64GiB"
}
budget { events_per_second = 10000000 }
load { cpu_threshold = 0 }
api { socket = %q }
`

// everyDiscoverer measures what the discoverers of a host of several runtimes, and a
// sampler, hold together.
func (b *bench) everyDiscoverer(ctx context.Context) (err error) {
	cri, err := env.NewContainerd(ctx, env.WithCRI())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cri.Close(context.WithoutCancel(ctx))) }()
	d, err := b.spawnText(func(d *daemon) string {
		return fmt.Sprintf(everyConfig, b.docker.Socket, b.docker.Containerd().Socket, cri.Socket, d.events, filepath.Join(d.dir, "api.sock"))
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, err != nil)) }()
	if err := d.isReady(ctx); err != nil {
		return err
	}
	daemon, err := client.Dial(ctx, filepath.Join(d.dir, "api.sock"))
	if err != nil {
		return err
	}
	defer daemon.Close()
	if err := b.known(ctx, daemon, 1); err != nil {
		return err
	}
	if !b.Quick {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(15 * time.Second): // plugins give back memory some seconds after their start
		}
	}
	groups, err := b.groups.plugins(d.pid())
	if err != nil {
		return err
	}
	all := series{experiment: "containers", name: "PSS of all plugins together", unit: "MiB"}
	var sum float64
	for _, group := range groups {
		pids, err := groupPIDs(group)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			m, err := kib(pid, "smaps_rollup", "Pss")
			if err != nil {
				return err
			}
			sum += m[0]
		}
	}
	all.add(sum)
	b.report.figure(&all)
	b.report.note("Podman does not run for the memory of all plugins together; its discoverer waits for it.")
	return b.pluginMemory("containers", d)
}
