package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// autoConfig looks below a directory that stands in for a host's root.
const autoConfig = `
node {
  name      = "bench"
  host_root = %[1]q
}
probe "process" {}
%[2]s
sampler "fixed" { rate = 1 }
exporter "json" {
  path     = %[3]q
  max_size = "64GiB"
}
budget { events_per_second = 10000000 }
load { cpu_threshold = 0 }
api { socket = %[4]q }
`

// auto measures how soon a runtime is found that appears, or comes back, and what it
// costs to look out for one.
func (b *bench) auto(ctx context.Context) error {
	for _, part := range []func(context.Context) error{b.appears, b.comesBack, b.looksOut} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// autoDaemon starts a daemon with discoverers, and connects to it.
func (b *bench) autoDaemon(ctx context.Context, host, discoverers string) (*daemon, *client.Client, error) {
	d, err := b.spawnText(func(d *daemon) string {
		return fmt.Sprintf(autoConfig, host, discoverers, d.events, filepath.Join(d.dir, "api.sock"))
	})
	if err != nil {
		return nil, nil, err
	}
	var c *client.Client
	if err = d.isReady(ctx); err == nil {
		c, err = client.Dial(ctx, filepath.Join(d.dir, "api.sock"))
	}
	if err != nil {
		return nil, nil, errors.Join(err, d.kill())
	}
	return d, c, nil
}

// until asks the daemon for its containers until they are as wanted.
func until(ctx context.Context, c *client.Client, as func([]*protov1.ContainerView) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		list, err := c.ListContainers(ctx)
		if err != nil {
			return fmt.Errorf("wait for containers: %w", err)
		}
		if as(list) {
			return nil
		}
	}
}

// hostRoot makes a directory that stands in for a host's root, on the file system of a
// dockerd's socket.
func hostRoot(d *env.Docker) (host, socket string, err error) {
	host = filepath.Join(filepath.Dir(d.Socket), "host")
	err = os.MkdirAll(filepath.Join(host, "var", "run"), 0o755)
	return host, filepath.Join(host, "run", "docker.sock"), errors.Join(err, os.MkdirAll(filepath.Join(host, "run"), 0o755))
}

// appears measures from the moment that a dockerd's socket is there, which answers, to
// its containers being known: a link to the socket is what comes and goes.
func (b *bench) appears(ctx context.Context) (err error) {
	rounds := 20
	if b.Quick {
		rounds = 2
	}
	host, socket, err := hostRoot(b.docker)
	if err != nil {
		return err
	}
	// Where the discoverer looks for it, the manifest's own name leads.
	if err := errors.Join(os.RemoveAll(filepath.Join(host, "var", "run")), os.Symlink("/run", filepath.Join(host, "var", "run"))); err != nil {
		return err
	}
	d, c, err := b.autoDaemon(ctx, host, "discoverer \"auto\" {\n  only  = [\"docker\"]\n  grace = \"0s\"\n}")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(), d.end(ctx, err != nil)) }()
	known := func(list []*protov1.ContainerView) bool {
		return slices.ContainsFunc(list, func(c *protov1.ContainerView) bool {
			return c.GetContainer().GetName() == b.container.name && len(c.GetCgroupIds()) > 0
		})
	}
	s := series{experiment: "auto", name: "from a runtime's socket to its containers", unit: "ms", baselineOf: "run of a program that does nothing"}
	for n := range rounds {
		b.say("a runtime appears, %d of %d", n+1, rounds)
		noop, err := b.noop(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := os.Link(b.docker.Socket, socket); err != nil {
			return err
		}
		if err := until(ctx, c, known); err != nil {
			return fmt.Errorf("%w\n%s", err, d.log())
		}
		s.beside(float64(time.Since(began).Microseconds())/1e3, noop)
		if err := os.Remove(socket); err != nil {
			return err
		}
		if err := until(ctx, c, func(list []*protov1.ContainerView) bool { return len(list) == 0 }); err != nil {
			return fmt.Errorf("%w\n%s", err, d.log())
		}
	}
	b.report.figure(&s)
	b.report.note("A runtime appears when a link to the socket of a dockerd that answers is made where it is looked for. What follows is: the change is noticed, the discoverer is asked in a process of its own, another is started to stay, and tells what there is.")
	return nil
}

// comesBack measures a dockerd that is restarted under a discoverer: from its first
// answer to the end of a container being known that ended while dockerd was away.
func (b *bench) comesBack(ctx context.Context) (err error) {
	rounds := 5
	if b.Quick {
		rounds = 1
	}
	docker, err := env.NewDocker(ctx, env.WithArgs("--live-restore"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, docker.Close(context.WithoutCancel(ctx))) }()
	d, c, err := b.autoDaemon(ctx, "", fmt.Sprintf("discoverer \"docker\" { host = \"unix://%s\" }", docker.Socket))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(), d.end(ctx, err != nil)) }()
	s := series{experiment: "auto", name: "from a restarted runtime's first answer to what has changed", unit: "ms", baselineOf: "run of a program that does nothing"}
	for n := range rounds {
		b.say("a runtime is restarted, %d of %d", n+1, rounds)
		noop, err := b.noop(ctx)
		if err != nil {
			return err
		}
		id, err := docker.CLI(ctx, "run", "--detach", "--network", "none", env.BusyboxImage, "sleep", "1000")
		if err != nil {
			return err
		}
		is := func(s protov1.Container_State) func([]*protov1.ContainerView) bool {
			return func(list []*protov1.ContainerView) bool {
				return slices.ContainsFunc(list, func(c *protov1.ContainerView) bool {
					return c.GetContainer().GetId() == id && c.GetContainer().GetState() == s && !c.GetStale()
				})
			}
		}
		if err := until(ctx, c, is(protov1.Container_STATE_RUNNING)); err != nil {
			return err
		}
		text, err := docker.CLI(ctx, "inspect", "--format", "{{.State.Pid}}", id)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("read the pid of a container: %w", err)
		}
		if err := errors.Join(docker.Kill(ctx), syscall.Kill(pid, syscall.SIGKILL)); err != nil {
			return err
		}
		started := make(chan error, 1)
		go func() { started <- docker.Start(ctx) }()
		if err = answers(ctx, docker.Socket); err == nil {
			began := time.Now()
			if err = until(ctx, c, is(protov1.Container_STATE_EXITED)); err == nil {
				s.beside(float64(time.Since(began).Microseconds())/1e3, noop)
			}
		}
		if err := errors.Join(err, <-started); err != nil {
			return fmt.Errorf("%w\n%s", err, d.log())
		}
	}
	b.report.figure(&s)
	b.report.note("A restarted runtime makes its socket, and answers at it some time later; the discoverer's new process, which can reach that socket, is started meanwhile.")
	return nil
}

// answers waits until a dockerd answers at its socket.
func answers(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	asking := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
		if err != nil {
			return err
		}
		if answer, err := asking.Do(r); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for dockerd: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// looksOut measures what a daemon costs that looks out for runtimes, beside one that has
// only the discoverer that was found.
func (b *bench) looksOut(ctx context.Context) error {
	wait := time.Minute
	if b.Quick {
		wait = 300 * time.Millisecond
	}
	host, socket, err := hostRoot(b.docker)
	if err != nil {
		return err
	}
	if err := os.Link(b.docker.Socket, socket); err != nil {
		return err
	}
	cpu := func(discoverers string) (percent float64, err error) {
		d, c, err := b.autoDaemon(ctx, host, discoverers)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, c.Close(), d.end(ctx, err != nil)) }()
		if err := until(ctx, c, func(list []*protov1.ContainerView) bool { return len(list) > 0 }); err != nil {
			return 0, fmt.Errorf("%w\n%s", err, d.log())
		}
		cost, err := b.costOf(ctx, d, func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
				return nil
			}
		})
		return 100 * cost.daemon.Seconds() / wait.Seconds(), err
	}
	s := series{experiment: "auto", name: "CPU of an idle daemon that looks out for runtimes", unit: "% of a CPU", baselineOf: "with the discoverer named"}
	for range b.Rounds {
		b.say("look out for %v, and not", wait)
		with, err := cpu(`discoverer "auto" {}`)
		if err != nil {
			return err
		}
		without, err := cpu(fmt.Sprintf("discoverer \"docker\" { host = \"unix://%s\" }", socket))
		if err != nil {
			return err
		}
		s.beside(with, without)
	}
	b.report.figure(&s)
	return os.Remove(socket)
}
