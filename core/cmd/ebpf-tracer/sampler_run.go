package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal/process"
	loads "github.com/ebpf-tracer/ebpf-tracer/core/simulation"
)

// everything is the word for all scenarios.
const everything = "all"

// simulating is what is to be simulated.
type simulating struct {
	config        string
	scenarios     []string // names, files or all
	seed          uint64
	seeds         int
	budget        float64
	interval, lag time.Duration
}

// simulation is one run.
type simulation struct {
	sampler  string
	scenario loads.Scenario
	seed     uint64
	result   *rehearsal.Result
	away     string // why the sampler answers no more; "": it does
}

func scenarioNames() string {
	return strings.Join(mapped(loads.Scenarios(), func(s loads.Scenario) string { return s.Name }), ", ")
}

// checkScenario tells whether a word is a scenario's name, or a file.
func checkScenario(word string) error {
	if _, ok := loads.Find(word); ok || word == everything {
		return nil
	}
	if _, err := os.Stat(word); err == nil {
		return nil
	}
	return fmt.Errorf("unknown scenario %q: there are %s, all, and files that 'ebpf-tracer record' has written", word, scenarioNames())
}

// scenariosOf are those that words stand for.
func scenariosOf(words []string) ([]loads.Scenario, error) {
	var out []loads.Scenario
	for _, word := range words {
		if word == everything {
			out = append(out, loads.Scenarios()...)
			continue
		}
		s, ok := loads.Find(word)
		if !ok {
			var err error
			if s, err = recorded(word); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// recorded is what a recording plays.
func recorded(file string) (loads.Scenario, error) {
	f, err := os.Open(file)
	if err != nil {
		return loads.Scenario{}, fmt.Errorf("open the recording: %w", err)
	}
	defer f.Close()
	s, err := loads.FromRecording(filepath.Base(file), bufio.NewReader(f))
	if err != nil {
		return loads.Scenario{}, fmt.Errorf("read %s: %w", file, err)
	}
	return s, nil
}

// all runs the sampler that a word means against all scenarios, each seed with a
// process of its own.
func (s *simulating) all(cmd *cobra.Command, word string) (out []simulation, err error) {
	if err := kernel.Check(); err != nil {
		return nil, fmt.Errorf("a simulation loads one BPF program: %w", err)
	}
	scenarios, err := scenariosOf(s.scenarios)
	if err != nil {
		return nil, err
	}
	file, err := s.find(cmd, word)
	if err != nil {
		return nil, err
	}
	plugin, err := process.Open(cmd.Context(), process.Options{File: file, Config: s.config})
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := plugin.Close(); err == nil {
			err = e
		}
	}()
	tell := newProgress(cmd.ErrOrStderr())
	defer tell.end()
	for _, scenario := range scenarios {
		for n := range s.seeds {
			one, err := s.one(cmd.Context(), plugin, scenario, s.seed+uint64(n), tell)
			if err != nil {
				return nil, fmt.Errorf("simulate %s: %w", scenario.Name, err)
			}
			out = append(out, one)
		}
	}
	return out, nil
}

// find gives the file of the sampler that a word means.
func (s *simulating) find(cmd *cobra.Command, word string) (string, error) {
	name, ofKind := strings.CutPrefix(word, string(config.Sampler)+"/")
	st, err := os.Stat(word)
	if err == nil && st.Mode().IsRegular() || strings.Contains(word, "/") && !ofKind {
		return word, nil
	}
	found, err := daemon.Describe(cmd.Context(), options(cmd, s.config), string(config.Sampler)+"/"+name)
	if err != nil {
		return "", err
	}
	return found[0].File, nil
}

func (s *simulating) one(ctx context.Context, plugin *process.Plugin, scenario loads.Scenario, seed uint64, tell *progress) (simulation, error) {
	sampler, err := plugin.Start(ctx)
	if err != nil {
		return simulation{}, err
	}
	defer sampler.Close()
	interval := s.interval
	if interval == 0 {
		interval = sampler.Interval()
	}
	result, err := rehearsal.Run(ctx, rehearsal.Options{
		Scenario: scenario, Seed: seed, Budget: s.budget, Interval: interval, Lag: s.lag,
		Sampler: sampler.Ask, Name: plugin.Name(),
		Progress: func(now time.Duration) { tell.say(scenario, seed, now) },
	})
	return simulation{plugin.Name(), scenario, seed, result, sampler.Away()}, err
}

// progress is a line on a terminal, written again and again.
type progress struct {
	out  io.Writer // nil: there is no terminal
	said string
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	if !ok {
		return &progress{}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return &progress{}
	}
	return &progress{out: out}
}

// say what is under way. That it can't be written is no error of the simulation's.
func (p *progress) say(s loads.Scenario, seed uint64, now time.Duration) {
	line := fmt.Sprintf("%s, seed %d: %2.0f of %.0f s", s.Name, seed, now.Truncate(time.Second).Seconds(), s.Duration.Seconds())
	if p.out == nil || line == p.said {
		return
	}
	p.said = line
	_, _ = io.WriteString(p.out, "\r\x1b[K"+line)
}

// end takes the line away.
func (p *progress) end() {
	if p.said != "" {
		_, _ = io.WriteString(p.out, "\r\x1b[K")
	}
}
