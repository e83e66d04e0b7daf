package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// keptBudget is what the daemon may keep while this machine does all that it can.
const keptBudget = 10_000 // events/s

const budgetConfig = `
node { name = "bench" }
budget { events_per_second = %d }
load { cpu_threshold = 0 }
sampler "adaptive" {}
exporter "json" {
  path     = %q
  max_size = "64GiB"
}
api { socket = %q }
`

// million is how many events a second are offered to a budget of keptBudget.
const million = 1_200_000

// budget measures a load that makes far more events than the budget has room for: opens
// of a file that is there, which cost what an open costs, and of one that is not, as many
// as this machine can; and a million and more of a path that is empty, which the kernel
// refuses before it looks for a file. Traced and untraced take turns.
func (b *bench) budget(ctx context.Context) error {
	path := filepath.Join(b.dir, "file-to-open")
	if err := os.WriteFile(path, []byte("name\n"), 0o644); err != nil {
		return err
	}
	seconds := "10"
	if b.Quick {
		seconds = "2"
	}
	for _, l := range []struct {
		name, path, event string
		more              []string
	}{
		{"budget, opens", path, path, nil},
		{"budget, opens that fail", path, path + ".absent", []string{"-f", "100"}},
		{"budget, a million opens a second", "", "", []string{"-r", fmt.Sprint(million)}},
	} {
		k := newKept(l.name)
		args := slices.Concat([]string{"-s", seconds, "-t", "2"}, l.more, []string{l.path})
		for round := range b.Rounds {
			b.say("%s, round %d of %d", l.name, round+1, b.Rounds)
			bare, err := inContainer[load.OpenCounts](ctx, b, b.loads.Open, args...)
			if err != nil {
				return err
			}
			if err := b.keep(ctx, k, l.event, args, bare); err != nil {
				return err
			}
		}
		k.report(b.report)
	}
	return b.slowdown(ctx, path)
}

// slowdown measures what tracing opens with a budget costs a load, in many short rounds: a
// reload takes the probe off and puts it on again, and the daemon runs all the time. What an
// empty program costs in the probe's place is the part of it that is the kernel's.
func (b *bench) slowdown(ctx context.Context, path string) (err error) {
	config := func(probes string) func(*daemon) string {
		return func(d *daemon) string {
			return probes + fmt.Sprintf(budgetConfig, keptBudget, d.events, filepath.Join(d.dir, "api.sock"))
		}
	}
	off, on := config(`probe "process" {}`), config(`probe "process" {}`+"\n"+`probe "file" {}`)
	d, err := b.spawnText(off)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, err != nil)) }()
	if err := d.isReady(ctx); err != nil {
		return err
	}
	asked, err := client.Dial(ctx, filepath.Join(d.dir, "api.sock"))
	if err != nil {
		return err
	}
	defer asked.Close()
	rounds, opens := 30, "300000"
	if b.Quick {
		rounds, opens = 2, "30000"
	}
	for _, l := range []struct {
		name, path string
		more       []string
	}{
		{"budget, cost of an open", path, nil},
		{"budget, cost of an open that fails", path, []string{"-f", "100"}},
		{"budget, cost of an empty open", "", nil},
	} {
		b.say("%s, %d rounds", l.name, rounds)
		args := slices.Concat([]string{"-n", opens, "-t", "2"}, l.more, []string{l.path})
		slower := series{experiment: l.name, name: "CPU of the load for one", unit: "ns", baselineOf: "the load, untraced"}
		least := series{experiment: l.name, name: "CPU of the load for one, with an empty program", unit: "ns", baselineOf: "the load, untraced"}
		speed := series{experiment: l.name, name: "events offered", unit: "/s", baselineOf: "the load, untraced"}
		run := func() (counts load.OpenCounts, cpu float64, err error) {
			counts, err = inContainer[load.OpenCounts](ctx, b, b.loads.Open, args...)
			return counts, 1000 * seconds(counts.CPUSelf, counts.Opens), err
		}
		probes := func(text string) error {
			if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
				return fmt.Errorf("configure the daemon: %w", err)
			}
			_, err := asked.Reload(ctx)
			return err
		}
		for range rounds {
			if err := probes(off(d)); err != nil {
				return err
			}
			bare, untraced, err := run()
			if err != nil {
				return err
			}
			hook, err := kernel.AttachEmpty("openat")
			if err != nil {
				return err
			}
			_, empty, err := run()
			if err := errors.Join(err, hook.Close(), probes(on(d))); err != nil {
				return err
			}
			counts, cpu, err := run()
			if err != nil {
				return err
			}
			slower.beside(cpu, untraced)
			least.beside(empty, untraced)
			speed.beside(counts.PerSecond, bare.PerSecond)
		}
		b.report.figure(&slower)
		b.report.figure(&least)
		b.report.figure(&speed)
	}
	return nil
}

// keep runs the load beside a daemon with the budget.
func (b *bench) keep(ctx context.Context, k *kept, event string, args []string, bare load.OpenCounts) (err error) {
	d, err := b.spawnText(func(d *daemon) string {
		return `probe "file" {}` + fmt.Sprintf(budgetConfig, keptBudget, d.events, filepath.Join(d.dir, "api.sock"))
	})
	if err != nil {
		return err
	}
	if err := d.isReady(ctx); err != nil {
		return errors.Join(err, d.kill())
	}
	// The sampler is there a moment later.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if found, err := b.groups.plugins(d.pid()); err == nil && len(found) > 0 {
			break
		}
	}
	var counts load.OpenCounts
	spent, err := b.costOf(ctx, d, func() (err error) {
		counts, err = inContainer[load.OpenCounts](ctx, b, b.loads.Open, args...)
		return err
	})
	if err != nil {
		return errors.Join(err, d.kill())
	}
	l, err := d.stop(ctx)
	if err != nil {
		return err
	}
	b.report.check(k.experiment, "events lost", sum(l.lost), 0)
	if err := k.read(d.events, event); err != nil {
		return err
	}
	b.report.check(k.experiment, "rounds that kept more than 1.1 times the budget in a second", k.over(time.Second, 1.1), 0)
	b.report.check(k.experiment, "rounds that kept more than twice the budget in 100 ms", k.over(100*time.Millisecond, 2), 0)
	k.add(counts, bare, spent)
	return os.RemoveAll(d.dir)
}

// kept is what was kept of a load, over the rounds.
type kept struct {
	experiment                              string
	speed, slower, rate, first, weight, cpu series

	times   []time.Time // of this round's events
	weights float64
}

func newKept(experiment string) *kept {
	k := &kept{experiment: experiment}
	for _, s := range []struct {
		to               *series
		name, unit, base string
	}{
		{&k.speed, "events offered", "/s", "the load, untraced"},
		{&k.slower, "CPU of the load for one", "ns", "the load, untraced"},
		{&k.rate, "kept", "/s", "the budget"},
		{&k.first, "kept in the first 100 ms", "", "the budget of that time"},
		{&k.weight, "sum of the weights", "", "the load's own count"},
		{&k.cpu, "CPU of the daemon for one offered", "ns", "of the load itself"},
	} {
		*s.to = series{experiment: experiment, name: s.name, unit: s.unit, baselineOf: s.base}
	}
	return k
}

// read takes the events of a path from what the daemon wrote.
func (k *kept) read(file, path string) error {
	k.times, k.weights = nil, 0
	marker := []byte(`"file":{"path":"` + path + `"`)
	return scan(file, func(line []byte) error {
		if !bytes.Contains(line, marker) {
			return nil
		}
		var e struct {
			Time   time.Time
			Weight float64
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		k.times = append(k.times, e.Time)
		k.weights += e.Weight
		return nil
	})
}

// over is 1 if some window of a length has more than so many times the budget.
func (k *kept) over(length time.Duration, times float64) int64 {
	slices.SortFunc(k.times, time.Time.Compare)
	most := int(times * keptBudget * length.Seconds())
	for i := most; i < len(k.times); i++ {
		if k.times[i].Sub(k.times[i-most]) < length {
			return 1
		}
	}
	return 0
}

func (k *kept) add(traced, bare load.OpenCounts, spent cost) {
	first := 0
	for _, t := range k.times {
		if t.Sub(k.times[0]) < 100*time.Millisecond {
			first++
		}
	}
	k.speed.beside(traced.PerSecond, bare.PerSecond)
	k.slower.beside(1000*seconds(traced.CPUSelf, traced.Opens), 1000*seconds(bare.CPUSelf, bare.Opens))
	k.rate.beside(float64(len(k.times))/traced.Seconds, keptBudget)
	k.first.beside(float64(first), keptBudget/10)
	k.weight.beside(k.weights, float64(traced.Opens))
	k.cpu.beside(float64(spent.daemon.Nanoseconds())/float64(traced.Opens), 1000*seconds(bare.CPUSelf, bare.Opens))
}

func (k *kept) report(r *Report) {
	for _, s := range []*series{&k.speed, &k.slower, &k.rate, &k.first, &k.weight, &k.cpu} {
		r.figure(s)
	}
}
