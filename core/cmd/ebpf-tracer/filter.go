package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newFilter() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "filter",
		Short: "Say what a running daemon is to leave out",
		Long: `Say what a running daemon is to leave out, or to look at more closely, without
changing its configuration. What is added here ends with its time or with the daemon.
'ebpf-tracer get filters' lists all filters that are in force.`,
		Example: `  ebpf-tracer filter add backup --comm rsync --ttl 1h
  ebpf-tracer filter remove backup`,
	})
	cmd.AddCommand(newFilterAdd(), newFilterRemove())
	return cmd
}

// asked is a filter as the flags say it.
type asked struct {
	action                                                  choice
	kinds, comm, container, namespace, image, label, cgroup []string
	peer, errors, syscall                                   []string
	pid, uid, port                                          []int
	ttl                                                     time.Duration
}

func newFilterAdd() *cobra.Command {
	var a asking
	var f asked
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a filter, for a time",
		Long: `Add a filter, which is in force at once, until its time is up, it is removed or the
daemon ends. An event matches when it has, of every flag that is given, one of the
values; with several --label it must match all of them. What matches is dropped, or
by --action:

  keep                none of the filters that come later drops it
  only                what does not match is dropped
  debug to critical   it gets this priority

The filters of the configuration come first, those that are added in their order, and
the first that has a say decides. One that was added under the same name before is
replaced. There is room for 32 together with those of the configuration, and beside
them for 4096 that drop by one value alone.`,
		Example: `  ebpf-tracer filter add backup --comm rsync,restic --ttl 1h
  ebpf-tracer filter add scans --peer 10.9.0.0/16,2001:db8::/32
  ebpf-tracer filter add probes --label app=blackbox* --kind network.connect
  ebpf-tracer filter add shop --action only --container 'shop-*' --ttl 10m
  ebpf-tracer filter add db --action critical --port 5432 --error ECONNREFUSED`,
		Args: words("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filter(args[0])
			if err != nil {
				return err // of the command line
			}
			return action(func(cmd *cobra.Command, _ []string) error {
				return a.ask(cmd, func(c *client.Client) error {
					r, err := c.AddFilters(cmd.Context(), f.ttl, filter)
					if err != nil {
						return err
					}
					return showAdded(cmd.OutOrStdout(), filter, f.ttl, r)
				})
			})(cmd, args)
		},
	}
	a.socketFlag(cmd)
	f.flags(cmd)
	return cmd
}

func (f *asked) flags(cmd *cobra.Command) {
	f.action.of, f.action.is = []string{"drop", "keep", "only"}, "drop"
	for p := range event.Priorities {
		f.action.of = append(f.action.of, p.String())
	}
	var kinds []string
	for k := range event.KernelKinds {
		if !k.Internal() {
			kinds = append(kinds, k.String())
		}
	}
	flags := cmd.Flags()
	flags.Var(&f.action, "action", "the `action`: "+f.action.words(" or "))
	flags.StringSliceVar(&f.kinds, "kind", nil, "`kinds` of events, such as process.exec; otherwise all that can have the rest")
	flags.StringSliceVar(&f.comm, "comm", nil, "`names` of processes, as /proc/PID/comm has them")
	flags.IntSliceVar(&f.pid, "pid", nil, "`pids` of processes, as the host numbers them")
	flags.IntSliceVar(&f.uid, "uid", nil, "`uids` of users, as the host numbers them")
	flags.StringSliceVar(&f.container, "container", nil, "`patterns` of containers' names, or ids")
	flags.StringSliceVar(&f.namespace, "namespace", nil, "`patterns` of namespaces of pods")
	flags.StringSliceVar(&f.image, "image", nil, "`patterns` of images, by name or by name and tag")
	flags.StringArrayVar(&f.label, "label", nil, "a `label` of a container, as NAME=PATTERN; with several, all of them")
	flags.StringSliceVar(&f.cgroup, "cgroup", nil, "`patterns` of control groups' paths, from the hierarchy's root")
	flags.StringSliceVar(&f.peer, "peer", nil, "`addresses` or prefixes of the other end of a connection")
	flags.IntSliceVar(&f.port, "port", nil, "`ports` of either end of a connection")
	flags.StringSliceVar(&f.errors, "error", nil, "`errors` that a call failed with, such as ENOENT")
	flags.StringSliceVar(&f.syscall, "syscall", nil, "`calls` whose exit tells the event, such as openat")
	flags.DurationVar(&f.ttl, "ttl", 0, "end after this `time`, such as 10m, 720h at most; 0: never")
	for name, of := range map[string][]string{"action": f.action.of, "kind": kinds} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// filter is what the flags ask for. The daemon checks what they say; an error is that
// they say nothing, or can't be read.
func (f *asked) filter(name string) (*protov1.Filter, error) {
	out := &protov1.Filter{
		Name: name, Action: f.action.is, Kinds: f.kinds, Comm: f.comm, Container: f.container, Namespace: f.namespace, Image: f.image,
		Cgroup: f.cgroup, Peer: f.peer, Error: f.errors, Syscall: f.syscall,
	}
	given := len(f.kinds) + len(f.comm) + len(f.container) + len(f.namespace) + len(f.image) + len(f.cgroup) + len(f.peer) + len(f.errors) + len(f.syscall) +
		len(f.label) + len(f.pid) + len(f.uid) + len(f.port)
	if given == 0 {
		return nil, errors.New("what is it to match? give at least one of --comm, --pid, --uid, --container, --namespace, --image, --label, --cgroup, --peer, --port, --error, --syscall and --kind")
	}
	for _, l := range f.label {
		key, pattern, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--label %s: a label is NAME=PATTERN, such as app=web-*", l)
		}
		if out.Label == nil {
			out.Label = map[string]string{}
		}
		out.Label[key] = pattern
	}
	for _, of := range []struct {
		flag string
		from []int
		to   *[]uint32
	}{{"pid", f.pid, &out.Pid}, {"uid", f.uid, &out.Uid}, {"port", f.port, &out.Port}} {
		for _, n := range of.from {
			if n < 0 || n > math.MaxUint32 {
				return nil, fmt.Errorf("--%s %d: there is none of this number", of.flag, n)
			}
			*of.to = append(*of.to, uint32(n))
		}
	}
	return out, nil
}

// showAdded says what is in force now, and what it can't know.
func showAdded(out io.Writer, f *protov1.Filter, ttl time.Duration, r *protov1.AddFiltersResponse) error {
	verb := "added"
	if len(r.GetReplaced()) > 0 {
		verb = "replaced"
	}
	end := "until it is removed or the daemon ends"
	if at := r.GetUntilUnixNano(); at != 0 {
		end = fmt.Sprintf("for %v, until %s", ttl, time.Unix(0, at).UTC().Format(time.RFC3339))
	}
	lines := []string{fmt.Sprintf("filter %q is %s: %s %s, %s", f.GetName(), verb, f.GetAction(), clean(asks(f, nil)), end)}
	for _, text := range r.GetUnseen() {
		lines = append(lines, "  it can't see "+clean(text))
	}
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

func newFilterRemove() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Aliases: []string{"rm"},
		Short:   "Remove a filter that was added",
		Long: `Remove a filter that was added with 'ebpf-tracer filter add'. Those of the
configuration are taken out there, and those of a sampler end with its policy.`,
		Example: `  ebpf-tracer filter remove backup`,
		Args:    words("NAME"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				n, err := c.RemoveFilter(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "filter %q is removed, after %d events\n", args[0], n)
				return err
			})
		}),
	}
	a.socketFlag(cmd)
	return cmd
}
