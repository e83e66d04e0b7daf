package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
)

func newRun() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground. The configuration is checked as a whole before
anything starts. The first SIGINT or SIGTERM stops it in good order: what is under
way is written and the ledger printed. A second one ends it at once.

It needs root. Its log goes to standard error. What plugins keep, and the copies of
them that run, are in $STATE_DIRECTORY, /var/lib/ebpf-tracer unless it is set.`,
		Example: `  ebpf-tracer run
  ebpf-tracer run --config /etc/ebpf-tracer/config.hcl`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return daemon.Run(cmd.Context(), options(cmd, file))
		}),
	}
	configFlag(cmd, &file)
	return cmd
}

func newValidate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check a configuration and start nothing",
		Long: `Check a configuration, config.hcl unless FILE is another, as 'run' would, plugins'
blocks included, and start nothing. Every mistake is shown at its line and column;
the exit status is then 1. It needs no root.`,
		Example: `  ebpf-tracer validate
  ebpf-tracer validate /etc/ebpf-tracer/config.hcl`,
		Args: oneWord,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"hcl", "json"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: action(func(cmd *cobra.Command, args []string) error {
			file := defaultConfig
			if len(args) > 0 {
				file = args[0]
			}
			if err := daemon.Validate(cmd.Context(), options(cmd, file)); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", file)
			return err
		}),
	}
}

func options(cmd *cobra.Command, file string) daemon.Options {
	b := readBuild()
	return daemon.Options{
		ConfigFile: file, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(),
		Version: b.Version, Revision: b.Revision, StateDir: stateDir(),
	}
}

// stateDir is the directory that systemd gives a unit with StateDirectory=, or whoever
// sets the same variable; "": the daemon's default.
func stateDir() string {
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return first
}

// completeFiles lets a shell complete a flag with configuration files.
func completeFiles(cmd *cobra.Command, flag string) {
	if err := cmd.MarkFlagFilename(flag, "hcl", "json"); err != nil {
		panic(err) // there is no such flag
	}
}
