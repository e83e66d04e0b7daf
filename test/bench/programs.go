package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// programs measures the kernel's part in a run of its own, since measuring it costs
// time too. f runs the load and returns how often it did its thing and what CPU the
// load itself took for one, in microseconds.
func (b *bench) programs(ctx context.Context, experiment string, files bool, f func() (n int64, own float64, err error)) error {
	b.say("%s, run time of the BPF programs", experiment)
	_, own, err := f()
	if err != nil {
		return err
	}
	d, err := b.start(ctx, files)
	if err != nil {
		return err
	}
	var n int64
	var before, after map[ebpf.ProgramID]programRuns
	err = func() (err error) {
		stop, err := countRuns()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		if before, err = runsOf(d.pid()); err != nil {
			return err
		}
		if n, _, err = f(); err != nil {
			return err
		}
		after, err = runsOf(d.pid())
		return err
	}()
	if err != nil {
		return errors.Join(err, d.kill())
	}
	if _, err := d.stop(ctx); err != nil {
		return err
	}
	b.reportRuns(experiment, before, after, n, own)
	return os.RemoveAll(d.dir)
}

func (b *bench) reportRuns(experiment string, before, after map[ebpf.ProgramID]programRuns, n int64, own float64) {
	per := map[string]programRuns{}
	var total time.Duration
	for id, a := range after {
		p := per[a.name]
		p.runs += a.runs - before[id].runs
		p.time += a.time - before[id].time
		per[a.name] = p
		total += a.time - before[id].time
	}
	of := "the load's own CPU, untraced"
	all := series{experiment: experiment, name: "BPF programs, all", unit: "µs/op", baselineOf: of}
	all.beside(micros(total, n), own)
	b.report.figure(&all)
	for _, name := range slices.Sorted(maps.Keys(per)) {
		p := per[name]
		if p.runs < uint64(n)/10 {
			continue // other processes of the machine
		}
		one := series{
			experiment: experiment, unit: "µs/op", baselineOf: of,
			name: fmt.Sprintf("%s, %.2f runs/op, %.0f ns/run", name, float64(p.runs)/float64(n), float64(p.time.Nanoseconds())/float64(p.runs)),
		}
		one.beside(micros(p.time, n), own)
		b.report.figure(&one)
	}
	b.report.note("Run time of the BPF programs is the kernel's own account (BPF_ENABLE_STATS), of all programs that the daemon holds, in a run apart from the others; reading the clock twice is in each program run.")
}

// countRuns makes the kernel measure the run time of its programs until close.
func countRuns() (close func() error, err error) {
	c, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("measure the programs' run time: %w", err)
	}
	return c.Close, nil
}

// programRuns are the runs of a process's programs.
type programRuns struct {
	name string
	runs uint64
	time time.Duration
}

// runsOf reads the runs of the programs that a process holds, which its file
// descriptors tell.
func runsOf(pid int) (map[ebpf.ProgramID]programRuns, error) {
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return nil, err
	}
	out := map[ebpf.ProgramID]programRuns{}
	for _, info := range infos {
		b, err := os.ReadFile(info)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(b)) {
			v, ok := strings.CutPrefix(line, "prog_id:")
			if !ok {
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("read a program's id: %w", err)
			}
			if err := readRuns(ebpf.ProgramID(n), out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func readRuns(id ebpf.ProgramID, into map[ebpf.ProgramID]programRuns) error {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("read program %d: %w", id, err)
	}
	s, err := p.Stats()
	if err != nil {
		return fmt.Errorf("read the runs of program %d: %w", id, err)
	}
	into[id] = programRuns{name: info.Name, runs: s.RunCount, time: s.Runtime}
	return nil
}
