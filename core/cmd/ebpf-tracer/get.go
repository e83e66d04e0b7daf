package main

import (
	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
)

func newGet() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "get",
		Short: "Ask a running daemon",
		Long: `Ask a running daemon, over its unix socket. Root may ask, and the user that the
daemon runs as.`,
		Example: `  ebpf-tracer get containers
  ebpf-tracer get container web-1
  ebpf-tracer get pid 4242
  ebpf-tracer get namespaces --type net
  ebpf-tracer get plugins -o json
  ebpf-tracer get filters
  ebpf-tracer get stats --socket /run/other/api.sock
  ebpf-tracer get events --container web-1`,
	})
	cmd.AddCommand(newContainers(), newContainer(), newProcess(), newNamespaces(), newNamespace(),
		newPlugins(), newStats(), newEvents(), newFilters())
	return cmd
}

// asking is what all commands that ask a daemon have in common.
type asking struct {
	socket string
	output choice
	asJSON bool // by --json
}

func (a *asking) flags(cmd *cobra.Command, formats ...string) {
	a.socketFlag(cmd)
	outputFlag(cmd, &a.output, formats...)
	cmd.Flags().BoolVar(&a.asJSON, "json", false, "the same as --output json")
	cmd.MarkFlagsMutuallyExclusive("output", "json")
}

// socketFlag is that of a command that has one kind of output.
func (a *asking) socketFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.socket, "socket", client.DefaultSocket, "the daemon's unix `socket`, as api { socket = ... } has it")
}

func (a *asking) json() bool { return a.asJSON || a.output.is == "json" }

// ask connects to the daemon for the time of f.
func (a *asking) ask(cmd *cobra.Command, f func(*client.Client) error) error {
	c, err := client.Dial(cmd.Context(), a.socket)
	if err != nil {
		return err
	}
	err = f(c)
	if closed := c.Close(); err == nil {
		err = closed
	}
	return err
}
