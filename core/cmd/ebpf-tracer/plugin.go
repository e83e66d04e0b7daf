package main

import "github.com/spf13/cobra"

func newPlugin() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "plugin",
		Short: "Write plugins, and work with those that are installed",
		Example: `  ebpf-tracer plugin describe discoverer/docker
  ebpf-tracer plugin test plugins/discoverer/acme`,
	})
	cmd.AddCommand(newPluginDescribe(), newPluginTest())
	return cmd
}
