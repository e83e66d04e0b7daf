package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
)

func newPlan() *cobra.Command {
	var file string
	var output choice
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what 'run' would do here, and start nothing",
		Long: `Show what 'run' would do with a configuration on this host: what this kernel
can take of each probe and what that probe does not see; where it accounts what
containers use; and for each plugin what it asks for, what it gets, which measures
of its sandbox are in force and which this host can't take. A plugin that could make
itself root of the host with what it gets is called root-equivalent.

Probes are attached for a moment and each sandbox is built and left; plugins run only
to be asked for their schemas and, by discoverer "auto", whether their runtimes are
here; what it would start now is planned, and what it looks for is listed. As root it
shows what the daemon gets.`,
		Example: `  ebpf-tracer plan
  ebpf-tracer plan --config /etc/ebpf-tracer/config.hcl -o json`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			p, err := daemon.MakePlan(cmd.Context(), options(cmd, file))
			if err != nil {
				return err
			}
			if output.is == "json" {
				return writeJSON(cmd.OutOrStdout(), p)
			}
			return showPlan(cmd.OutOrStdout(), p)
		}),
	}
	configFlag(cmd, &file)
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

func showPlan(out io.Writer, p *daemon.Plan) error {
	w := &lines{out: out}
	if p.User != 0 {
		w.line("made by user %d: a daemon of root gets more, and takes more away from its plugins", p.User)
	}
	for _, probe := range p.Probes {
		w.line("probe %q: %s", probe.Name, probe.State)
		w.list("reason", []string{probe.Reason})
		w.list("programs", []string{strings.Join(probe.Programs, ", ")})
		w.list("does not see", probe.Unseen)
	}
	if r := p.Resources; r != nil {
		w.line("resources of containers:")
		for _, place := range r.Places {
			w.list(place.What, []string{cmp.Or(place.Where, "not accounted on this host")})
		}
		w.list("network", []string{r.Network.State, r.Network.Reason})
		w.list("does not see", r.Network.Unseen)
	}
	w.line("budget: %.0f events/s, of which %.0f for critical and first events", p.Budget.EventsPerSecond, p.Budget.Reserved)
	for _, s := range p.Budget.Shares {
		w.line("share %q: %.0f events/s of it, whatever others do; not before the runtime has told of a container", s.Name, s.EventsPerSecond)
	}
	for _, f := range p.Filters {
		w.line("filter %q: %s, in the kernel", f.Name, f.Action)
		w.list("looks at", []string{strings.Join(f.Kinds, ", ")})
		w.list("not these", f.Unseen)
	}
	for _, f := range p.Priorities {
		w.line("priority %q: %s", f.Name, f.Action)
		w.list("looks at", []string{strings.Join(f.Kinds, ", ")})
		w.list("not these", f.Unseen)
	}
	for _, x := range p.Plugins {
		w.line("%s %q: version %s, user %d", x.Kind, x.Name, x.Version, x.User)
		w.list("found", []string{x.Found})
		if x.RootEquivalent != "" {
			w.line("  root-equivalent: %s", clean(x.RootEquivalent))
		}
		w.list("runs", []string{x.Program})
		w.list("digest", []string{x.Digest})
		w.list("weaker", []string{x.Weaker})
		w.list("asks for", x.Asks)
		w.list("gets", x.Granted)
		w.list("in force", x.Applied)
		w.list("not in force", x.NotApplied)
	}
	for i, x := range p.Auto {
		if i == 0 {
			w.line("discoverer \"auto\" looks for:")
		}
		w.line("  %s: %s: %s", x.Name, x.State, clean(x.Detail))
	}
	if p.Locked {
		w.line("plugins are locked by their hashes")
	} else {
		w.line("plugins are not locked: 'ebpf-tracer plugin lock' lets only these run")
	}
	return w.err
}

// lines writes a text of lines and lists, and keeps its first error.
type lines struct {
	out io.Writer
	err error
}

func (l *lines) line(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.out, format+"\n", args...)
	}
}

// list writes a named list, nothing for an empty one.
func (l *lines) list(name string, items []string) {
	for i, item := range items {
		if item == "" {
			continue
		}
		label := name + ":"
		if i > 0 {
			label = ""
		}
		l.line("  %-13s %s", label, clean(item))
	}
}
