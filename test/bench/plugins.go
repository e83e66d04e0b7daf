package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// idle measures a daemon that has nothing to do, and how soon it has its first event.
func (b *bench) idle(ctx context.Context) error {
	first := series{experiment: "idle", name: "start to first event", unit: "ms", baselineOf: "run of a program that does nothing"}
	for range b.Rounds {
		b.say("start to first event")
		if err := b.firstEvent(ctx, &first); err != nil {
			return err
		}
	}
	b.report.figure(&first)
	d, err := b.start(ctx, false)
	if err != nil {
		return err
	}
	err = b.idleCPU(ctx, d)
	if err == nil {
		err = b.pluginMemory("idle", d)
	}
	if err != nil {
		return errors.Join(err, d.kill())
	}
	_, err = d.stop(ctx)
	return errors.Join(err, os.RemoveAll(d.dir))
}

func (b *bench) idleCPU(ctx context.Context, d *daemon) error {
	wait := 10 * time.Second
	if b.Quick {
		wait = 300 * time.Millisecond
	}
	b.say("idle for %v", wait)
	before := int64(0)
	if err := scan(d.events, func([]byte) error { before++; return nil }); err != nil {
		return err
	}
	c, err := b.costOf(ctx, d, func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
			return nil
		}
	})
	if err != nil {
		return err
	}
	after := int64(0)
	if err := scan(d.events, func([]byte) error { after++; return nil }); err != nil {
		return err
	}
	for _, s := range []struct {
		name, unit string
		value      float64
	}{
		{"CPU of the daemon", "% of a CPU", 100 * c.daemon.Seconds() / wait.Seconds()},
		{"CPU of all plugins", "% of a CPU", 100 * c.plugins.Seconds() / wait.Seconds()},
		{"events of the rest of the machine meanwhile", "events/s", float64(after-before) / wait.Seconds()},
		{"RSS of the daemon", "MiB", c.rss},
		{"RSS of the daemon at most", "MiB", c.peak},
	} {
		one := series{experiment: "idle", name: s.name, unit: s.unit}
		one.add(s.value)
		b.report.figure(&one)
	}
	return nil
}

// pluginMemory reads what the plugins of an idle daemon hold. PSS counts a page that
// several processes share by its part, so that plugins add up.
func (b *bench) pluginMemory(experiment string, d *daemon) error {
	groups, err := b.groups.plugins(d.pid())
	if err != nil {
		return err
	}
	names := make([]string, 0, len(groups))
	for name := range groups {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		pids, err := groupPIDs(groups[name])
		if err != nil {
			return err
		}
		var rss, pss float64
		for _, pid := range pids {
			m, err := kib(pid, "smaps_rollup", "Rss", "Pss")
			if err != nil {
				return err
			}
			rss, pss = rss+m[0], pss+m[1]
		}
		for _, s := range []struct {
			name  string
			value float64
		}{{"RSS of plugin " + name, rss}, {"PSS of plugin " + name, pss}} {
			one := series{experiment: experiment, name: s.name, unit: "MiB"}
			one.add(s.value)
			b.report.figure(&one)
		}
	}
	return nil
}

// firstEvent starts a daemon while the machine runs a process every few
// milliseconds, and waits for its first line.
func (b *bench) firstEvent(ctx context.Context, first *series) error {
	began := time.Now()
	d, err := b.spawn(false)
	if err != nil {
		return err
	}
	deadline := began.Add(time.Minute)
	for {
		at := time.Now()
		if err := exec.CommandContext(ctx, b.loads.Noop).Run(); err != nil {
			return errors.Join(err, d.kill())
		}
		noop := time.Since(at)
		if info, err := os.Stat(d.events); err == nil && info.Size() > 0 {
			first.beside(float64(time.Since(began).Microseconds())/1e3, float64(noop.Microseconds())/1e3)
			break
		}
		if time.Now().After(deadline) {
			return errors.Join(errors.New("no event came within a minute of the start"), d.kill())
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), d.kill())
		case <-d.ended:
			return errors.Join(fmt.Errorf("the daemon ended: %w\n%s", d.err, d.log()), d.clean())
		case <-time.After(2 * time.Millisecond):
		}
	}
	select {
	case <-d.ready:
	case <-d.ended: // stop tells why
	}
	_, err = d.stop(ctx)
	return errors.Join(err, os.RemoveAll(d.dir))
}

// plugins measures what plugins cost: real ones in a daemon, and the host of plugins by
// its own Go benchmarks. It also prints the allocations of the stages that every event
// passes.
func (b *bench) plugins(ctx context.Context) error {
	if err := b.starts(ctx); err != nil {
		return err
	}
	if err := b.goBench(ctx, "./core/pluginhost", true); err != nil {
		return err
	}
	for _, pkg := range []string{"./core/pipeline", "./core/inventory", "./core/exporter"} {
		if err := b.goBench(ctx, pkg, false); err != nil {
			return err
		}
	}
	return nil
}

// goBench runs the Go benchmarks of a package. Times are given only where they have a
// baseline: of processes the run of a program that does nothing, of calls a round trip
// over a unix socket between two goroutines.
func (b *bench) goBench(ctx context.Context, pkg string, times bool) error {
	b.say("go test -bench of %s", pkg)
	args := []string{"test", "-run", "^$", "-bench", ".", "-benchmem"}
	if b.Quick {
		args = append(args, "-benchtime", "10x")
	} else {
		args = append(args, "-count", strconv.Itoa(b.Rounds))
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = b.root
	text, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w\n%s", pkg, err, text)
	}
	found := map[string]*series{}
	var order []string
	put := func(name, unit string, value float64) *series {
		key := name + unit
		if found[key] == nil {
			found[key] = &series{experiment: filepath.Base(pkg), name: name, unit: unit}
			order = append(order, key)
		}
		found[key].add(value)
		return found[key]
	}
	trip, err := roundTrip()
	if err != nil {
		return err
	}
	var noops []float64
	for range 11 {
		noop, err := b.noop(ctx)
		if err != nil {
			return err
		}
		noops = append(noops, 1e3*noop)
	}
	noop := median(noops)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(f[0], "Benchmark"), "-")
		for i := 2; i+1 < len(f); i += 2 {
			value, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return fmt.Errorf("read a benchmark's result: %w in %q", err, line)
			}
			switch unit := f[i+1]; {
			case unit == "allocs/op" || unit == "B/op":
				put(name, unit, value)
			case unit == "ns/op" && times:
				s := put(name, "µs", value/1e3)
				if slices.Contains([]string{"Start", "Restart", "Replace", "Describe/asked"}, name) {
					s.baselines, s.baselineOf = append(s.baselines, noop), "run of a program that does nothing"
				} else {
					s.baselines, s.baselineOf = append(s.baselines, trip), "a byte there and back over a unix socket"
				}
			case times && strings.HasPrefix(unit, "µs-"): // a part of it
				s := put(name+", "+strings.TrimPrefix(unit, "µs-"), "µs", value)
				s.baselines, s.baselineOf = append(s.baselines, noop), "run of a program that does nothing"
			}
		}
	}
	if len(order) == 0 {
		return fmt.Errorf("%s has no benchmarks:\n%s", pkg, text)
	}
	for _, key := range order {
		b.report.figure(found[key])
	}
	return nil
}

// roundTrip is the time, in microseconds, of one byte to another goroutine and back
// over a unix socket: what no call of a plugin can beat.
func roundTrip() (micros float64, err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		return 0, err
	}
	echo := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			err = errors.Join(err, c.Close())
		}
		echo <- err
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		return 0, errors.Join(err, l.Close(), <-echo)
	}
	const n = 5000
	one := []byte{0}
	began := time.Now()
	for range n {
		if _, err = c.Write(one); err == nil {
			_, err = io.ReadFull(c, one)
		}
		if err != nil {
			break
		}
	}
	took := time.Since(began)
	err = errors.Join(err, c.Close(), <-echo, l.Close())
	return float64(took.Nanoseconds()) / 1e3 / n, err
}
