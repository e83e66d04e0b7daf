package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// pythonPlugin is the example of a plugin in another language, with what it is given.
const pythonPlugin = "discoverer/inventory-file"

// withPython adds the plugin in Python to a daemon's configuration. The
// memory of every plugin changes from one reload to the next, so that all are replaced.
const withPython = `
log { level = "debug" }
discoverer "inventory-file" {
  plugin { memory = "%dMiB" }
  path = %q
}
`

// starts measures how a daemon starts, and replaces, real plugins: every plugin that
// the other experiments run, and one in Python. The daemon itself tells the times, in
// its log, and a program that does nothing is run before each.
func (b *bench) starts(ctx context.Context) (err error) {
	if err := b.copyPython(); err != nil {
		return err
	}
	workloads := filepath.Join(b.dir, "workloads")
	if err := os.MkdirAll(workloads, 0o755); err != nil {
		return err
	}
	// A plugin runs as a user of its own, who has to get there.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	more := func(n int) string { return fmt.Sprintf(withPython, pluginMiB+n%2, workloads) }
	d, err := b.spawnWith(false, more(0), pluginMiB)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.end(ctx, err != nil)) }()
	if err := d.isReady(ctx); err != nil {
		return err
	}
	s := startSeries{}
	rounds := 12
	if b.Quick {
		rounds = 2
	}
	for n := range rounds {
		b.say("replace every plugin, %d of %d", n+1, rounds)
		noop, err := b.noop(ctx)
		if err != nil {
			return err
		}
		said := len(d.log())
		if err := b.configure(d, false, more(n+1), pluginMiB+(n+1)%2); err != nil {
			return err
		}
		reload := exec.CommandContext(ctx, filepath.Join(b.bin, "ebpf-tracer"), "reload", "--socket", filepath.Join(d.dir, "api.sock"))
		if text, err := reload.CombinedOutput(); err != nil {
			return fmt.Errorf("reload: %w\n%s\n%s", err, text, d.log()[said:])
		}
		if err := s.read(d.log()[said:], noop); err != nil {
			return err
		}
	}
	if len(s.order) == 0 {
		return fmt.Errorf("the daemon told of no plugin that it started:\n%s", d.log())
	}
	for _, key := range s.order {
		b.report.figure(s.found[key])
	}
	b.report.note("Starts and replacements are those of a daemon that replaces all its plugins at a reload, %d times; the processes that it only asks for their schemas count as starts too. A start is from the fork to a connection; confined is the part of it until the sandbox stands and the process has become the plugin, the rest is the plugin's own.", rounds)
	return b.pluginMemory("plugins", d)
}

// copyPython puts the example in Python where the daemon finds it.
func (b *bench) copyPython() error {
	source := filepath.Join(b.root, "examples", "plugins", "python")
	files, err := filepath.Glob(filepath.Join(source, "*.py"))
	if err != nil {
		return err
	}
	for _, f := range append(files, filepath.Join(source, filepath.Base(pythonPlugin)+".plugin.hcl")) {
		text, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(b.bin, "plugins", filepath.Dir(pythonPlugin), filepath.Base(f)), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copy the plugin in Python: %w", err)
		}
	}
	return nil
}

// noop is how long it takes, in milliseconds, to run a program that does nothing.
func (b *bench) noop(ctx context.Context) (millis float64, err error) {
	began := time.Now()
	if err := exec.CommandContext(ctx, b.loads.Noop).Run(); err != nil {
		return 0, fmt.Errorf("run a program that does nothing: %w", err)
	}
	return float64(time.Since(began).Microseconds()) / 1e3, nil
}

// startSeries are the times of starts, by plugin and part.
type startSeries struct {
	found map[string]*series
	order []string
}

// read takes the times from what the daemon logged.
func (s *startSeries) read(log string, noop float64) error {
	for line := range strings.Lines(log) {
		plugin, told := field(line, "plugin")
		switch {
		case !told:
		case strings.Contains(line, `msg="plugin has been started"`):
			confined, err := millisOf(line, "confined")
			if err != nil {
				return err
			}
			connected, err := millisOf(line, "connected")
			if err != nil {
				return err
			}
			s.put("start of "+plugin, connected, noop)
			s.put("of that confined, "+plugin, confined, noop)
			s.put("of that its own, "+plugin, connected-confined, noop)
		case strings.Contains(line, `msg="plugin was replaced"`):
			took, err := millisOf(line, "took")
			if err != nil {
				return err
			}
			s.put("replacement of "+plugin, took, noop)
		}
	}
	return nil
}

func (s *startSeries) put(name string, value, noop float64) {
	if s.found == nil {
		s.found = map[string]*series{}
	}
	if s.found[name] == nil {
		s.found[name] = &series{experiment: "plugins", name: name, unit: "ms", baselineOf: "run of a program that does nothing"}
		s.order = append(s.order, name)
	}
	s.found[name].beside(value, noop)
}

// field is the value of a key of a line of the daemon's log.
func field(line, key string) (value string, ok bool) {
	_, rest, ok := strings.Cut(line, " "+key+"=")
	value, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
	return value, ok
}

func millisOf(line, key string) (float64, error) {
	text, _ := field(line, key)
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("read %s of a plugin's start: %w in %q", key, err, line)
	}
	return float64(d.Microseconds()) / 1e3, nil
}
