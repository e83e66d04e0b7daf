package main

import "github.com/spf13/cobra"

func newSampler() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "sampler",
		Short: "Try out samplers",
		Example: `  ebpf-tracer sampler simulate adaptive
  ebpf-tracer sampler simulate acme/plugins/sampler/acme --scenario S2,S3`,
	})
	cmd.AddCommand(newSamplerSimulate())
	return cmd
}
