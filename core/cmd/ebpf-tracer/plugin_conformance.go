package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/conformance"
)

func newPluginTest() *cobra.Command {
	var file string
	output := choice{of: []string{"text", "json"}, is: "text"}
	cmd := &cobra.Command{
		Use:   "test BINARY|MANIFEST",
		Short: "Hold a plugin, in any language, against the contract",
		Long: `Start a plugin as the daemon does, treat it well and ill, and tell check by check
whether it keeps the contract: its handshake, its schema, its configuration, its
stream, garbage, its deadlines and its end. The exit status is 1 when a check failed;
with warnings alone it is 0.

The plugin is named by its program, with NAME.plugin.hcl beside it, or by that
manifest. It is configured by an empty block, or as --config says. It needs no root;
as root the plugin is confined as under the daemon.`,
		Example: `  ebpf-tracer plugin test plugins/discoverer/acme
  ebpf-tracer plugin test plugins/mesh/acme.plugin.hcl --config config.hcl
  ebpf-tracer plugin test plugins/sampler/acme -o json | jq .results`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			report, err := conformance.Run(cmd.Context(), conformance.Options{File: args[0], Config: file})
			if err != nil {
				return err
			}
			if output.is == "json" {
				err = writeJSON(cmd.OutOrStdout(), report)
			} else {
				err = report.WriteText(cmd.OutOrStdout())
			}
			if n := report.Count(conformance.Fail); err == nil && n > 0 {
				return fmt.Errorf("%s does not keep the contract: %d of %d checks failed", report.Plugin, n, len(report.Results))
			}
			return err
		}),
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `file` whose block for the plugin is used; none: an empty block")
	completeFiles(cmd, "config")
	cmd.Flags().VarP(&output, "output", "o", "text or json")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.of, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// choice is the value of a flag that takes one of a few words.
type choice struct {
	of []string
	is string
}

// String implements pflag.Value.
func (c *choice) String() string { return c.is }

// Type implements pflag.Value: how help calls the value.
func (c *choice) Type() string { return "format" }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.of, s) {
		return fmt.Errorf("there are %s", strings.Join(c.of, " and "))
	}
	c.is = s
	return nil
}
