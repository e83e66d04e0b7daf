package main

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newPlugins() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:     "plugins",
		Aliases: []string{"plugin"},
		Short:   "List the plugins and how they are",
		Long: `List the plugins and how they are: starting, running, degraded (what it depends on
is away), backoff (it is started again after a pause), failed or stopped. The last
error is what is wrong now, or else why a process of the plugin ended last. JSON also
has the last lines of each plugin's standard error.`,
		Example: `  ebpf-tracer get plugins
  ebpf-tracer get plugins -o json | jq '.[] | select(.state != "running")'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				list, err := c.ListPlugins(cmd.Context())
				if err != nil {
					return err
				}
				slices.SortFunc(list, func(a, b *protov1.PluginView) int {
					return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetName(), b.GetName()))
				})
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), all(list, true))
				}
				return showPlugins(cmd.OutOrStdout(), list, time.Now())
			})
		}),
	}
	a.flags(cmd, "table", "json")
	return cmd
}

func showPlugins(out io.Writer, list []*protov1.PluginView, now time.Time) error {
	t := newTable(out, "KIND", "NAME", "VERSION", "STATE", "SINCE", "RESTARTS", "PID", "RSS", "CPU", "QUEUE", "DROPS", "LAST ERROR")
	for _, p := range list {
		t.row(wordOf(p.GetKind()), p.GetName(), p.GetVersion(), p.GetState(), since(p.GetSinceUnixNano(), now),
			count(p.GetRestarts()), number(p.GetPid()), size(p.GetMemoryBytes()), seconds(p.GetCpuSeconds()),
			count(p.GetQueueDepth()), count(p.GetQueueDropped()), cmp.Or(p.GetReason(), p.GetLastError()))
	}
	return t.flush()
}

// all is a list of messages for encoding/json.
func all[M proto.Message](list []M, zeros bool) []any {
	out := make([]any, len(list))
	for i, m := range list {
		out[i] = plain(m, zeros)
	}
	return out
}
