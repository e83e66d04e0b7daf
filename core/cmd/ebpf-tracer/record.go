package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/recording"
	"github.com/ebpf-tracer/ebpf-tracer/core/recording/capture"
)

const (
	recordingRing = 32 << 20 // bytes of each ring, unless a configuration says
	longest       = time.Hour
)

// recordFlags are those of record.
type recordFlags struct {
	config   string
	output   string
	duration duration
	probes   probeNames
}

func newRecord() *cobra.Command {
	f := recordFlags{duration: duration(30 * time.Second)}
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Record the load of this host, to try samplers with",
		Long: `Record the load of this host for 'sampler simulate --scenario FILE', until the time
is up or Ctrl-C. Of every event only this is written: when it was, its kind and
priority, and numbers that say which events are of the same cgroup, of the same
process or socket, and about the same path or peer. Nothing readable leaves the
host: no name, path, address, argument or id, and nothing that is computed from one.

Nothing is sampled, whatever the load. If events are lost all the same, the
recording says how many and is not called complete, and the exit status is 1. A
larger ring_size helps: kernel { ring_size = "256MiB" } in a FILE for --config. It
needs root, and no daemon; one that runs is not disturbed.`,
		Example: `  ebpf-tracer record
  ebpf-tracer record --duration 2m --output monday.trace
  ebpf-tracer record --probes process,network
  ebpf-tracer record --config /etc/ebpf-tracer/config.hcl`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error { return record(cmd, f) }),
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "take probes and ring size of this configuration `file`")
	completeFiles(cmd, "config")
	cmd.Flags().StringVarP(&f.output, "output", "o", "host.trace", "the `file` to write, over one that is there")
	cmd.Flags().VarP(&f.duration, "duration", "d", "how long to record, at most an hour")
	cmd.Flags().Var(&f.probes, "probes", "the `probes` to record, some of "+strings.Join(kernel.ProbeNames(), ",")+" (default all of them)")
	if err := cmd.RegisterFlagCompletionFunc("probes", cobra.FixedCompletions(kernel.ProbeNames(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// probeNames is the value of a flag that takes names of probes, separated by commas.
type probeNames []string

// String implements pflag.Value.
func (p *probeNames) String() string { return strings.Join(*p, ",") }

// Type implements pflag.Value: how help calls the value.
func (*probeNames) Type() string { return "probes" }

// Set implements pflag.Value.
func (p *probeNames) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		if !slices.Contains(kernel.ProbeNames(), name) {
			return fmt.Errorf("there are %s", strings.Join(kernel.ProbeNames(), ", "))
		}
		if !slices.Contains(*p, name) {
			*p = append(*p, name)
		}
	}
	return nil
}

// duration is the value of a flag that says how long to record.
type duration time.Duration

// String implements pflag.Value.
func (d *duration) String() string { return time.Duration(*d).String() }

// Type implements pflag.Value: how help calls the value.
func (*duration) Type() string { return "duration" }

// Set implements pflag.Value.
func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("write it as 30s or 2m")
	}
	if v <= 0 || v > longest {
		return errors.New("it is more than 0 and at most 1h")
	}
	*d = duration(v)
	return nil
}

func record(cmd *cobra.Command, f recordFlags) (err error) {
	o := capture.Options{Probes: kernel.ProbeNames(), RingBytes: recordingRing, Duration: time.Duration(f.duration)}
	if f.config != "" {
		if err := configured(&o, f.config, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	if len(f.probes) > 0 {
		o.Probes = f.probes
	}
	if err := kernel.Check(); err != nil {
		return err
	}
	out, err := createOutput(f.output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.discard()) }()
	w, err := recording.NewWriter(out, false)
	if err != nil {
		return err
	}
	h, err := captured(cmd.Context(), o, w, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	written, err := out.keep()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d events of %d cgroups in %s, %s\n",
		clean(f.output), h.Events, w.Groups(), seconds(h.Duration.Seconds()), size(uint64(written))); err != nil {
		return err
	}
	if !h.Complete {
		return fmt.Errorf("%d events were lost: %s is not called complete; a larger ring_size or fewer --probes help", h.Lost, f.output)
	}
	return nil
}

// configured takes from a configuration what holds for a recording too.
func configured(o *capture.Options, file string, stderr io.Writer) error {
	c, found := config.ReadFile(file)
	if len(found) > 0 {
		var b bytes.Buffer
		if err := found.Write(&b, config.TextOptions{Width: 100}); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if found.HasErrors() {
			return &daemon.ConfigError{File: file, Text: b.String()}
		}
		if _, err := stderr.Write(b.Bytes()); err != nil {
			return err
		}
	}
	o.RingBytes, o.Rings = int(c.Config.Kernel.RingSize), c.Config.Kernel.Rings
	p := c.Config.Probes
	on := map[string]bool{"process": p.Process != nil, "network": p.Network != nil, "file": p.File != nil}
	o.Probes = slices.DeleteFunc(kernel.ProbeNames(), func(name string) bool { return !on[name] })
	return nil
}

// captured records, and says on standard error how it goes.
func captured(ctx context.Context, o capture.Options, w *recording.Writer, stderr io.Writer) (recording.Header, error) {
	o.Began = func(probes []kernel.Probe) {
		for _, p := range probes {
			if p.State() != "attached" {
				fmt.Fprintf(stderr, "this kernel can't take all of probe %q (%s): %s\n", p.Name, p.State(), clean(p.Reason()))
			}
		}
		fmt.Fprintf(stderr, "recording %s events for %v; Ctrl-C ends it\n", strings.Join(o.Probes, ", "), o.Duration)
	}
	if isTerminal(stderr) {
		o.Progress = func(p capture.Progress) {
			fmt.Fprintf(stderr, "\r\x1b[K%v of %v: %d events, %d lost", p.Elapsed.Truncate(time.Second), o.Duration, p.Events, p.Lost)
		}
		defer fmt.Fprint(stderr, "\r\x1b[K")
	}
	return capture.Run(ctx, o, w)
}

// isTerminal tells whether somebody looks.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// output is a file that gets its name when it is whole.
type output struct {
	*os.File
	path string
	kept bool
}

// createOutput makes one in the directory in which it will be.
func createOutput(path string) (*output, error) {
	if i, err := os.Stat(path); err == nil && !i.Mode().IsRegular() {
		return nil, fmt.Errorf("write %s: it is there already, and no ordinary file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &output{File: f, path: path}, nil
}

// keep gives it its name, and tells its size.
func (o *output) keep() (int64, error) {
	i, err := o.Stat()
	if err != nil {
		return 0, err
	}
	if err := o.Chmod(0o644); err != nil {
		return 0, err
	}
	if err := os.Rename(o.Name(), o.path); err != nil {
		return 0, fmt.Errorf("write %s: %w", o.path, err)
	}
	o.kept = true
	return i.Size(), nil
}

// discard closes it, and takes it away unless it was kept.
func (o *output) discard() error {
	err := o.Close()
	if !o.kept {
		err = errors.Join(err, os.Remove(o.Name()))
	}
	return err
}
