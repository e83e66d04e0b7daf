package main

import "github.com/spf13/cobra"

func newPlugin() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "plugin",
		Short: "Write plugins, and work with those that are installed",
		Example: `  ebpf-tracer plugin describe discoverer/docker
  ebpf-tracer plugin new discoverer acme --sdk ./sdk
  ebpf-tracer plugin test acme/plugins/discoverer/acme`,
	})
	cmd.AddCommand(newPluginDescribe(), newPluginNew(), newPluginTest())
	return cmd
}
