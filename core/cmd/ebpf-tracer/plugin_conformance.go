package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/conformance"
)

func newPluginTest() *cobra.Command {
	var file string
	var output choice
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
		Args: words("BINARY or MANIFEST"),
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
	outputFlag(cmd, &output, "text", "json")
	return cmd
}
