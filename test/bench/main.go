// Command bench measures what tracing costs on this machine: a share captured, CPU
// time per event, memory, bytes, and how much slower the traced load becomes.
//
//	go run ./test/bench [-quick] [-only exec,open,tcp,idle,plugins,containers,auto] [-o text|json] [-rounds N] [-containers N]
//
// Why it exists: a figure is only worth something beside another one that was taken
// on the same machine in the same minutes. So every load runs untraced and traced in
// turn, several rounds, and medians are given; a time never stands without the time of
// the same thing untraced. Counts are held against the load's own: a run that lost or
// invented an event ends with status 1, whatever its speed.
//
// It runs the built daemon with everything on (a real dockerd, the docker discoverer,
// the generic mesh detector, the fixed sampler at 1, JSON lines to a file in memory),
// and the loads inside a container's cgroup, so that each event is attributed. It
// needs root and the whole machine: whatever else runs is in the figures. It must
// never leave anything behind, and never judge a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// experiments in the order in which they run.
var experiments = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"exec", (*bench).exec},
	{"open", (*bench).open},
	{"tcp", (*bench).tcp},
	{"idle", (*bench).idle},
	{"plugins", (*bench).plugins},
	{"containers", (*bench).containers},
	{"auto", (*bench).auto},
	{"budget", (*bench).budget},
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{Log: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.Quick, "quick", false, "one short round: for the counts, not the times")
	flags.IntVar(&o.Containers, "containers", 1000, "how many containers a host of many has")
	flags.IntVar(&o.Rounds, "rounds", 3, "how often each load runs untraced and traced")
	only := flags.String("only", "", "comma-separated: exec, open, tcp, idle, plugins, containers, auto, budget (all)")
	format := flags.String("o", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *format != "text" && *format != "json" {
		return fmt.Errorf("-o takes text or json, not %q", *format)
	}
	if o.Containers < 1 {
		return fmt.Errorf("-containers takes a number from 1 on, not %d", o.Containers)
	}
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	report, err := run(ctx, o)
	if err != nil {
		return err
	}
	if *format == "json" {
		err = report.WriteJSON(stdout)
	} else {
		err = report.WriteText(stdout)
	}
	return errors.Join(err, report.Err())
}

// options of run.
type options struct {
	Quick      bool
	Rounds     int
	Containers int      // of a host of many
	Only       []string // experiments; empty: all
	Log        io.Writer
}

// bench is one run.
type bench struct {
	options
	report    *Report
	root      string // of the module
	dir       string // of this run, in memory
	bin       string // daemon and plugins
	loads     *load.Programs
	docker    *env.Docker
	container container
	groups    *groups
}

// run measures, and takes everything off the machine again.
func run(ctx context.Context, o options) (_ *Report, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("run it as root: it loads programs into the kernel and starts a dockerd")
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(experiments, func(e struct {
			name string
			run  func(*bench, context.Context) error
		}) bool {
			return e.name == name
		}) {
			return nil, fmt.Errorf("there is no experiment %q", name)
		}
	}
	if o.Quick {
		o.Rounds = 1
	}
	b := &bench{options: o, report: newReport(o)}
	undo, err := b.setUp(ctx)
	defer func() { err = errors.Join(err, undo()) }()
	if err != nil {
		return nil, err
	}
	for _, e := range experiments {
		if len(o.Only) > 0 && !slices.Contains(o.Only, e.name) {
			continue
		}
		b.say("%s", e.name)
		if err := e.run(b, ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return b.report, nil
}

// say writes a line of progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.Log, "bench: "+format+"\n", args...)
}

// setUp builds the programs and starts a dockerd with one container. undo takes it
// all away, whatever the error.
func (b *bench) setUp(ctx context.Context) (undo func() error, err error) {
	var undos []func() error
	undo = func() (err error) {
		for _, f := range slices.Backward(undos) {
			err = errors.Join(err, f())
		}
		return err
	}
	if b.dir, err = os.MkdirTemp("/dev/shm", "et-bench-"); err != nil {
		return undo, fmt.Errorf("make a directory in memory: %w", err)
	}
	undos = append(undos, func() error { return os.RemoveAll(b.dir) })
	b.say("build the daemon, its plugins and the loads")
	if err := b.build(ctx); err != nil {
		return undo, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return undo, fmt.Errorf("find a cache directory: %w", err)
	}
	if b.loads, err = load.Compile(ctx, filepath.Join(cache, "ebpf-tracer", "load")); err != nil {
		return undo, err
	}
	if b.groups, err = newGroups(); err != nil {
		return undo, err
	}
	undos = append(undos, b.groups.close)
	b.say("start a dockerd and a container")
	if err := env.Install(ctx); err != nil {
		return undo, err
	}
	if b.docker, err = env.NewDocker(ctx); err != nil {
		return undo, err
	}
	undos = append(undos, func() error { return b.docker.Close(context.WithoutCancel(ctx)) })
	b.container, err = b.startContainer(ctx)
	return undo, err
}
