package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
)

func newPluginLock() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Lock the plugins as they are now",
		Long: `Write ebpf-tracer.lock.hcl beside the configuration: for every plugin that the
configuration names, or that its discoverer "auto" may start, the hashes of its
program, its manifest and its files, as they are now, on this platform. From then on
the daemon runs these and no others. What the file has of other platforms, and of
plugins that the configuration does not name, stays.

A plugin that is new or has changed is started once, with no rights, to be asked for
its version. With --check nothing is started or written, and the exit status is 1
when the file would change.`,
		Example: `  ebpf-tracer plugin lock
  ebpf-tracer plugin lock --config /etc/ebpf-tracer/config.hcl
  ebpf-tracer plugin lock --check`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			do := daemon.LockPlugins
			if check {
				do = daemon.CheckLock
			}
			report, err := do(cmd.Context(), options(cmd, file))
			if err != nil {
				return err
			}
			if err := writeLock(cmd.OutOrStdout(), report); err != nil {
				return err
			}
			n := report.Changes()
			switch {
			case check && (n > 0 || !report.Exists):
				return fmt.Errorf("%s is not up to date: if you trust what is there now, run 'ebpf-tracer plugin lock --config %s'", report.File, file)
			case n > 0 || !report.Exists:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is written\n", report.File)
			default:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is up to date\n", report.File)
			}
			return err
		}),
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&check, "check", false, "change nothing, fail if there is something to change")
	return cmd
}

func newPluginVerify() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Hold the plugins against the lock file",
		Long: `Hold every plugin that the configuration names against ebpf-tracer.lock.hcl beside
it, and run nothing. The exit status is 1 when one is not as locked; both hashes are
then shown at its place in the configuration.`,
		Example: `  ebpf-tracer plugin verify
  ebpf-tracer plugin verify --config /etc/ebpf-tracer/config.hcl`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			report, refused := daemon.VerifyLock(cmd.Context(), options(cmd, file))
			if report.Plugins == nil {
				return refused
			}
			if err := writeLock(cmd.OutOrStdout(), report); err != nil {
				return err
			}
			return refused
		}),
	}
	configFlag(cmd, &file)
	return cmd
}

// writeLock shows how plugins stand to the lock file.
func writeLock(out io.Writer, report daemon.LockReport) error {
	t := newTable(out, "KIND", "NAME", "VERSION", "STATE", "PROGRAM NOW")
	for _, p := range report.Plugins {
		program := p.Now.Program
		if program != "" {
			program = "sha256:" + program
		}
		t.row(string(p.Ref.Kind), p.Ref.Name, p.Version, string(p.State), program)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, p := range report.Plugins {
		if len(p.Elsewhere) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(out, "%s: another version is locked for %s: run this there too\n", p.Ref, strings.Join(p.Elsewhere, ", ")); err != nil {
			return err
		}
	}
	return nil
}
