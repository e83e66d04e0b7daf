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
	var everything bool
	cmd := &cobra.Command{
		Use:     "plugins",
		Aliases: []string{"plugin"},
		Short:   "List the plugins and how they are",
		Long: `List the plugins and how they are: starting, running, degraded (what it depends on
is away), backoff (it is started again after a pause), failed or stopped. The last
error is what is wrong now, or else why a process of the plugin ended last. JSON also
has the last lines of each plugin's standard error.

What discoverer "auto" has started says where its runtime was found. With --all those
are listed too that it looks for and does not run: absent, unknown (it could not be
asked) or skipped.`,
		Example: `  ebpf-tracer get plugins
  ebpf-tracer get plugins --all
  ebpf-tracer get plugins -o json | jq '.[] | select(.state != "running")'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				list, err := c.ListPlugins(cmd.Context())
				if err != nil {
					return err
				}
				if !everything {
					list = slices.DeleteFunc(list, notRun)
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
	cmd.Flags().BoolVar(&everything, "all", false, "list also what discoverer \"auto\" looks for in vain")
	return cmd
}

// notRun tells of a discoverer that is only looked for.
func notRun(p *protov1.PluginView) bool {
	return slices.Contains([]string{"absent", "unknown", "skipped"}, p.GetState())
}

func showPlugins(out io.Writer, list []*protov1.PluginView, now time.Time) error {
	header := []string{"KIND", "NAME", "VERSION", "STATE", "SINCE", "RESTARTS", "PID", "RSS", "CPU", "QUEUE", "DROPS", "LAST ERROR"}
	auto := slices.ContainsFunc(list, func(p *protov1.PluginView) bool { return p.GetFound() != "" || notRun(p) })
	if auto {
		header = append(header, "FOUND")
	}
	t := newTable(out, header...)
	for _, p := range list {
		row := []string{wordOf(p.GetKind()), p.GetName(), p.GetVersion(), p.GetState(), since(p.GetSinceUnixNano(), now)}
		if notRun(p) {
			row = append(row, "", "", "", "", "", "", p.GetReason())
		} else {
			row = append(row, count(p.GetRestarts()), number(p.GetPid()), size(p.GetMemoryBytes()), seconds(p.GetCpuSeconds()),
				count(p.GetQueueDepth()), count(p.GetQueueDropped()), cmp.Or(p.GetReason(), p.GetLastError()))
		}
		if auto {
			row = append(row, p.GetFound())
		}
		t.row(row...)
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
