package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// build builds the daemon and its plugins as a user's build would, into the run's
// own directory.
func (b *bench) build(ctx context.Context) error {
	mod, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module (run it inside the checkout): %w", err)
	}
	b.root, b.bin = strings.TrimSpace(string(mod)), filepath.Join(b.dir, "bin")
	if err := b.goBuild(ctx, "ebpf-tracer", "./core/cmd/ebpf-tracer"); err != nil {
		return err
	}
	manifests, err := filepath.Glob(filepath.Join(b.root, "plugins", "*", "*", "*.plugin.hcl"))
	if err != nil {
		return err
	}
	built := map[string]bool{}
	for _, m := range manifests {
		source := filepath.Dir(m)
		kind, name := filepath.Base(filepath.Dir(source)), filepath.Base(source)
		if out := filepath.Join("plugins", kind, name); !built[out] {
			built[out] = true
			if err := b.goBuild(ctx, out, "./"+filepath.Join("plugins", kind, name)); err != nil {
				return err
			}
		}
		text, err := os.ReadFile(m)
		if err == nil {
			err = os.WriteFile(filepath.Join(b.bin, "plugins", kind, filepath.Base(m)), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copy a manifest: %w", err)
		}
	}
	return nil
}

func (b *bench) goBuild(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(b.bin, out), pkg)
	cmd.Dir = b.root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// daemon is a running ebpf-tracer in a control group of its own.
type daemon struct {
	cmd    *exec.Cmd
	dir    string
	group  string
	events string // the JSON file
	config string // file
	ready  chan struct{}
	ended  chan struct{}
	err    error // of the process; after ended

	mu     sync.Mutex
	stderr bytes.Buffer
}

const config = `
node { name = "bench" }
probe "process" {}
probe "network" {}
%[1]s
discoverer "docker" {
  host = "unix://%[2]s"
  plugin { memory = "%[3]dMiB" }
}
mesh "generic" {
  plugin { memory = "%[3]dMiB" }
}
sampler "fixed" {
  rate = 1
  plugin { memory = "%[3]dMiB" }
}
exporter "json" {
  path     = %[4]q
  max_size = "64GiB"
}
budget { events_per_second = 10000000 }
load { cpu_threshold = 0 }
api { socket = %[5]q }
`

// spawn starts a daemon and returns at once.
func (b *bench) spawn(files bool) (*daemon, error) { return b.spawnWith(files, "", pluginMiB) }

// pluginMiB is the memory that each plugin may have.
const pluginMiB = 64

// configure writes a daemon's configuration: with more in it, and so much memory for
// each plugin.
func (b *bench) configure(d *daemon, files bool, more string, memory int) error {
	if files {
		more += `probe "file" {}`
	}
	text := fmt.Sprintf(config, more, b.docker.Socket, memory, d.events, filepath.Join(d.dir, "api.sock"))
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure the daemon: %w", err)
	}
	return nil
}

// spawnWith is spawn with a configuration as configure writes it.
func (b *bench) spawnWith(files bool, more string, memory int) (*daemon, error) {
	return b.launch(func(d *daemon) error { return b.configure(d, files, more, memory) })
}

// spawnText is spawn with a configuration of its own.
func (b *bench) spawnText(text func(*daemon) string) (*daemon, error) {
	return b.launch(func(d *daemon) error {
		if err := os.WriteFile(d.config, []byte(text(d)), 0o600); err != nil {
			return fmt.Errorf("configure the daemon: %w", err)
		}
		return nil
	})
}

// launch starts a daemon that configure wrote a configuration for.
func (b *bench) launch(configure func(*daemon) error) (*daemon, error) {
	dir, err := os.MkdirTemp(b.dir, "r-") // short: a plugin's socket is below it
	if err != nil {
		return nil, err
	}
	d := &daemon{
		dir: dir, group: filepath.Join(b.groups.own, filepath.Base(dir)), events: filepath.Join(dir, "events.json"),
		config: filepath.Join(dir, "config.hcl"),
		ready:  make(chan struct{}), ended: make(chan struct{}),
	}
	if err := configure(d); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.group, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	d.cmd = exec.Command(filepath.Join(b.bin, "ebpf-tracer"), "run", "--config", d.config)
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	d.cmd.Stderr = write
	if err := startIn(d.cmd, d.group); err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	go d.listen(read)
	return d, write.Close()
}

// startIn starts a command inside a control group.
func startIn(cmd *exec.Cmd, group string) error {
	dir, err := os.Open(group)
	if err != nil {
		return fmt.Errorf("open a control group: %w", err)
	}
	defer dir.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return cmd.Start()
}

// listen keeps what the daemon says, and reaps it.
func (d *daemon) listen(stderr *os.File) {
	defer close(d.ended)
	defer stderr.Close()
	ready := false
	for s := bufio.NewScanner(stderr); s.Scan(); {
		d.mu.Lock()
		d.stderr.Write(append(s.Bytes(), '\n'))
		d.mu.Unlock()
		if !ready && strings.Contains(s.Text(), "msg=tracing") {
			ready = true
			close(d.ready)
		}
	}
	d.err = d.cmd.Wait()
}

func (d *daemon) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stderr.String()
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// start starts a daemon and waits until it traces and knows the container.
func (b *bench) start(ctx context.Context, files bool) (*daemon, error) {
	d, err := b.spawn(files)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err = d.isReady(ctx); err == nil {
		if err = b.attributed(ctx, d); err == nil {
			return d, nil
		}
		err = fmt.Errorf("%w\n%s", err, d.log())
	}
	return nil, errors.Join(fmt.Errorf("start the daemon: %w", err), d.kill())
}

// isReady waits until the daemon traces.
func (d *daemon) isReady(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	case <-d.ended:
		return fmt.Errorf("the daemon ended: %w\n%s", d.err, d.log())
	case <-ctx.Done():
		return fmt.Errorf("wait for the daemon to trace: %w\n%s", ctx.Err(), d.log())
	}
}

// attributed waits until an exec in the container carries its name.
func (b *bench) attributed(ctx context.Context, d *daemon) error {
	marker := fmt.Sprintf("ready-%d", d.pid())
	want := []byte(`"name":"` + b.container.name + `"`)
	for {
		cmd := exec.CommandContext(ctx, b.loads.Noop, marker)
		if err := startIn(cmd, b.container.group); err != nil {
			return err
		}
		if err := cmd.Wait(); err != nil {
			return err
		}
		found, err := linesWith(d.events, []byte(marker))
		if err != nil {
			return err
		}
		for _, line := range found {
			if bytes.Contains(line, want) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the container's name on its events: %w; the events are %q", ctx.Err(), found[max(0, len(found)-3):])
		case <-d.ended:
			return fmt.Errorf("the daemon ended: %w", d.err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// settle waits until the daemon has written all that it read.
func (d *daemon) settle(ctx context.Context) error {
	last, quiet := int64(-1), 0
	for quiet < 5 {
		info, err := os.Stat(d.events)
		if err != nil {
			return err
		}
		// On a machine that is never silent a trickle is quiet enough.
		if info.Size()-last < 4<<10 {
			quiet++
		} else {
			quiet = 0
		}
		last = info.Size()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(30 * time.Millisecond):
		}
	}
	return nil
}

// stop ends the daemon as an operator would and reads its ledger.
func (d *daemon) stop(ctx context.Context) (*ledger, error) {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("end the daemon: %w", err)
	}
	select {
	case <-d.ended:
	case <-time.After(20 * time.Second):
		return nil, errors.Join(errors.New("the daemon does not end on SIGTERM"), d.kill())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), d.kill())
	}
	if d.err != nil {
		return nil, errors.Join(fmt.Errorf("the daemon ended badly: %w\n%s", d.err, d.log()), d.clean())
	}
	l, err := readLedger(d.log())
	return l, errors.Join(err, os.Remove(d.group))
}

// end ends a daemon that is no longer needed: as an operator would, unless something
// failed.
func (d *daemon) end(ctx context.Context, failed bool) error {
	if failed {
		return d.kill()
	}
	_, err := d.stop(ctx)
	return errors.Join(err, os.RemoveAll(d.dir))
}

// kill ends the daemon at once and takes away what it leaves.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.ended
	return d.clean()
}

func (d *daemon) clean() error {
	return errors.Join(os.Remove(d.group), os.RemoveAll(d.dir))
}

// ledger is what a daemon prints at its end.
type ledger struct {
	seen, kept, lost map[string]int64 // by kind
	exporter         map[string]int64 // released, exported, queue dropped, ...
	skipped          int64
	closes           bool
}

func readLedger(text string) (*ledger, error) {
	l := &ledger{seen: map[string]int64{}, kept: map[string]int64{}, lost: map[string]int64{}, exporter: map[string]int64{}}
	_, table, ok := strings.Cut(text, "SAMPLED OUT")
	if !ok {
		return nil, fmt.Errorf("the daemon printed no ledger:\n%s", text)
	}
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		f := strings.Fields(line)
		switch {
		case line == "the ledger closes":
			l.closes = true
		case strings.HasPrefix(line, "json: "):
			for _, part := range strings.FieldsFunc(strings.TrimPrefix(line, "json: "), func(r rune) bool { return r == '=' || r == '+' }) {
				words := strings.Fields(part)
				n, err := strconv.ParseInt(words[len(words)-1], 10, 64)
				if err != nil {
					return nil, fmt.Errorf("read the ledger: %w in %q", err, line)
				}
				l.exporter[strings.Join(words[:len(words)-1], " ")] = n
			}
		case strings.HasPrefix(line, "kept "):
			n, err := strconv.ParseInt(f[len(f)-1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read the ledger: %w in %q", err, line)
			}
			l.skipped = n
		case len(f) == 7 && strings.Contains(f[0], "."):
			var n [5]int64
			for i := range n {
				var err error
				if n[i], err = strconv.ParseInt(f[i+2], 10, 64); err != nil {
					return nil, fmt.Errorf("read the ledger: %w in %q", err, line)
				}
			}
			l.seen[f[0]] += n[0]
			l.kept[f[0]] += n[1]
			l.lost[f[0]] += n[4]
		}
	}
	if len(l.seen) == 0 || len(l.exporter) == 0 {
		return nil, fmt.Errorf("the daemon printed no ledger:\n%s", text)
	}
	return l, nil
}

// sum is the total over all kinds.
func sum(kinds map[string]int64) (n int64) {
	for _, v := range kinds {
		n += v
	}
	return n
}
