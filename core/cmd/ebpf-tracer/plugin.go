package main

import "github.com/spf13/cobra"

func newPlugin() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "plugin",
		Short: "Write plugins, and work with those that are installed",
		Example: `  ebpf-tracer plugin describe discoverer/docker
  ebpf-tracer plugin new discoverer acme --sdk ./sdk
  ebpf-tracer plugin test acme/plugins/discoverer/acme
  ebpf-tracer plugin lock`,
	})
	cmd.AddCommand(newPluginDescribe(), newPluginNew(), newPluginTest(), newPluginLock(), newPluginVerify())
	return cmd
}

// defaultConfig is the configuration of commands that are told no other.
const defaultConfig = "config.hcl"

// configFlag gives a command the flag --config.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", defaultConfig, "configuration `file`, .hcl or .hcl.json")
	completeFiles(cmd, "config")
}
