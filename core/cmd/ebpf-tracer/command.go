package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
)

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1 // a wrong configuration, or it could not be done
	exitUsage = 2 // a wrong command line
)

// execute runs one command line and gives the exit status. The first SIGINT or
// SIGTERM ends the command in good order, a second one at once.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, restore := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer restore()
	defer context.AfterFunc(ctx, restore)()

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var failure *actionError
	if !errors.As(err, &failure) {
		fmt.Fprintf(stderr, "%s: %s (see '%s --help')\n", root.Name(), cleanLines(err.Error()), cmd.CommandPath())
		return exitUsage
	}
	var config *daemon.ConfigError
	if errors.As(err, &config) { // has places and lines of its own
		fmt.Fprintln(stderr, strings.TrimRight(err.Error(), "\n"))
	} else {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), cleanLines(err.Error()))
	}
	return exitError
}

// actionError is an error of what a command does; all others are of the command
// line.
type actionError struct{ err error }

func (e *actionError) Error() string { return e.err.Error() }
func (e *actionError) Unwrap() error { return e.err }

// action is a command's RunE.
func action(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := do(cmd, args); err != nil {
			return &actionError{err}
		}
		return nil
	}
}

func newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "ebpf-tracer",
		Short: "Trace a Linux host and tell which container every kernel event belongs to",
		Long: `ebpf-tracer traces processes, TCP connections and file opens of a Linux host with
eBPF, and tells for every event which container, pod and mesh workload it belongs
to. 'run' is the daemon; the other commands check its configuration and ask it.`,
		Example: `  # Trace, as config.hcl in this directory says
  ebpf-tracer run

  # What a running daemon sees
  ebpf-tracer get containers
  ebpf-tracer get pid 4242
  ebpf-tracer get events --kind process.exec`,
		SilenceUsage: true, SilenceErrors: true,
	})
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newRun(), newValidate(), newPlan(), newReload(), newGet(), newFilter(), newPlugin(), newRecord(), newSampler(), newVersion())
	return root
}

// group makes a command that only leads to others: by itself, and with a word that
// is none of them, it is a wrong command line.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		slices.Sort(names)
		if len(args) == 0 {
			cmd.SetOut(cmd.ErrOrStderr())
			if err := cmd.Help(); err != nil {
				return err
			}
			return fmt.Errorf("which command? there are %s", strings.Join(names, ", "))
		}
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
		}
		return fmt.Errorf("unknown command %q: there are %s", args[0], strings.Join(names, ", "))
	}
	return cmd
}
