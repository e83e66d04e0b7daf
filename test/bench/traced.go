package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// container is a container that sleeps while loads run in its control group.
type container struct {
	id, name string
	group    string
}

func (b *bench) startContainer(ctx context.Context) (c container, err error) {
	c.name = fmt.Sprintf("bench-%d", os.Getpid())
	c.id, err = b.docker.CLI(ctx, "run", "--detach", "--name", c.name, "--label", "org.example.bench=yes", env.BusyboxImage, "sleep", "1000000")
	if err != nil {
		return c, err
	}
	pid, err := b.docker.CLI(ctx, "inspect", "--format", "{{.State.Pid}}", c.id)
	if err != nil {
		return c, err
	}
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return c, fmt.Errorf("find the container's control group: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			c.group = filepath.Join(b.groups.root, strings.TrimSpace(path))
			return c, nil
		}
	}
	return c, errors.New("the container has no control group on the default hierarchy")
}

// inContainer runs a load in the container's control group and returns its counts.
func inContainer[Counts any](ctx context.Context, b *bench, program string, args ...string) (counts Counts, err error) {
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := startIn(cmd, b.container.group); err != nil {
		return counts, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	if err := cmd.Wait(); err != nil {
		return counts, fmt.Errorf("run %s: %w: %s", filepath.Base(program), err, stderr.String())
	}
	if err := json.Unmarshal(out.Bytes(), &counts); err != nil {
		return counts, fmt.Errorf("read the counts of %s: %w", filepath.Base(program), err)
	}
	return counts, nil
}

// cost is what a daemon spent while something ran.
type cost struct {
	daemon, plugins time.Duration
	rss, peak       float64 // MiB, of the daemon, at the end
}

// costOf runs f and waits until the daemon has dealt with all of it.
func (b *bench) costOf(ctx context.Context, d *daemon, f func() error) (c cost, err error) {
	groups, err := b.groups.plugins(d.pid())
	if err != nil {
		return c, err
	}
	read := func() (daemon, plugins time.Duration, err error) {
		if daemon, err = cpu(d.group); err != nil {
			return
		}
		for _, g := range groups {
			t, err := cpu(g)
			if err != nil {
				return 0, 0, err
			}
			plugins += t
		}
		return daemon, plugins, nil
	}
	daemon, plugins, err := read()
	if err != nil {
		return c, err
	}
	if err := errors.Join(f(), d.settle(ctx)); err != nil {
		return c, err
	}
	c.daemon, c.plugins, err = read()
	c.daemon, c.plugins = c.daemon-daemon, c.plugins-plugins
	memory, err2 := kib(d.pid(), "status", "VmRSS", "VmHWM")
	if err = errors.Join(err, err2); err == nil {
		c.rss, c.peak = memory[0], memory[1]
	}
	return c, err
}

// scan calls f with every line of a file that a daemon wrote.
func scan(path string, f func(line []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the events: %w", err)
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

func linesWith(path string, marker []byte) (found [][]byte, err error) {
	err = scan(path, func(line []byte) error {
		if bytes.Contains(line, marker) {
			found = append(found, bytes.Clone(line))
		}
		return nil
	})
	return found, err
}

// outcome is what became of a load's events.
type outcome struct {
	ledger *ledger
	lines  int64 // of the load's container
	bytes  int64 // in them
}

// given are events that the ledger gives up: lost in the kernel, or dropped by the
// exporter. They may be anybody's on the machine.
func (o *outcome) given() int64 {
	return sum(o.ledger.lost) + o.ledger.exporter["queue dropped"] + o.ledger.exporter["failed"]
}

// traced runs a load under a fresh daemon and checks the ledger of its end. f gets the
// daemon while it runs; line gets every line that the load's container wrote, and after
// is called once all of them were.
func (b *bench) traced(ctx context.Context, name string, files bool, f func(*daemon) error, line func([]byte) error, after func(*outcome)) error {
	d, err := b.start(ctx, files)
	if err != nil {
		return err
	}
	if err := f(d); err != nil {
		return errors.Join(err, d.kill())
	}
	o := &outcome{}
	if o.ledger, err = d.stop(ctx); err != nil {
		return err
	}
	closes := int64(0)
	if o.ledger.closes {
		closes = 1
	}
	b.report.check(name, "ledger closes", closes, 1)
	b.report.check(name, "program runs skipped", o.ledger.skipped, 0)
	var all int64
	own := []byte(`"name":"` + b.container.name + `"`)
	err = scan(d.events, func(text []byte) error {
		all++
		if !bytes.Contains(text, own) {
			return nil
		}
		o.lines++
		o.bytes += int64(len(text))
		return line(text)
	})
	if err != nil {
		return err
	}
	b.report.check(name, "lines in the file: as many as the ledger says", all, o.ledger.exporter["exported"])
	after(o)
	return os.RemoveAll(d.dir)
}

// found checks that what a load did is told, or given up by the ledger: nothing is
// missing in silence, and nothing is told that was not done.
func (b *bench) found(experiment, what string, got, did int64, o *outcome) {
	if missing := did - got; missing > 0 && missing <= o.given() {
		got = did // the ledger has them; the share captured shows them
	}
	b.report.check(experiment, what+", or given up by the ledger", got, did)
}

func micros(d time.Duration, n int64) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(max(n, 1))
}

func seconds(s float64, n int64) float64 { return s * 1e6 / float64(max(n, 1)) }

// costs are the series that every load has.
type costs struct {
	captured, lost, dropped    series
	rate, daemon, plugins      series
	bytes, perEvent, rss, peak series
}

func newCosts(experiment, per string) *costs {
	s := func(name, unit, of string) series {
		return series{experiment: experiment, name: name, unit: unit, baselineOf: of}
	}
	return &costs{
		captured: s("captured", "%", ""),
		lost:     s("lost in the kernel, all of the machine", "events", ""),
		dropped:  s("dropped by the exporter, all of the machine", "events", ""),
		rate:     s("load's speed, traced", per+"s/s", "untraced"),
		daemon:   s("CPU of the daemon", "µs/"+per, "the load's own CPU, untraced"),
		plugins:  s("CPU of the plugins", "µs/"+per, "the load's own CPU, untraced"),
		bytes:    s("JSON", "bytes/"+per, ""),
		perEvent: s("JSON", "bytes/event", ""),
		rss:      s("RSS of the daemon after the load", "MiB", ""),
		peak:     s("RSS of the daemon at most", "MiB", ""),
	}
}

// add takes one round: rates and the load's own CPU per operation untraced.
func (c *costs) add(spent cost, o *outcome, got, n int64, rate, untraced, own float64) {
	c.captured.add(100 * float64(got) / float64(max(n, 1)))
	c.lost.add(float64(sum(o.ledger.lost)))
	c.dropped.add(float64(o.ledger.exporter["queue dropped"] + o.ledger.exporter["failed"]))
	c.rate.beside(rate, untraced)
	c.daemon.beside(micros(spent.daemon, n), own)
	c.plugins.beside(micros(spent.plugins, n), own)
	c.bytes.add(float64(o.bytes) / float64(max(n, 1)))
	c.perEvent.add(float64(o.bytes) / float64(max(o.lines, 1)))
	c.rss.add(spent.rss)
	c.peak.add(spent.peak)
}

func (c *costs) report(r *Report) {
	for _, s := range []*series{
		&c.captured, &c.lost, &c.dropped, &c.rate, &c.daemon, &c.plugins, &c.bytes, &c.perEvent, &c.rss, &c.peak,
	} {
		r.figure(s)
	}
	r.note("CPU is cpu.stat of the daemon's own control group and of each plugin's, from before a load until all of its events are written: exact to the microsecond, threads that ended included. A load's own CPU is what getrusage tells of it and its children.")
}
