package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newFilters() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:     "filters",
		Aliases: []string{"filter"},
		Short:   "List the filters and priority blocks that are in force",
		Long: `List the filters and priority blocks that are in force, in the order in which they
decide: those of the configuration, those of 'ebpf-tracer filter add' and those of
the sampler; after them those that drop by one value alone. CGROUPS is how many
control groups a filter by container, namespace, image, label or path names now.
EVENTS is how many it dropped, or gave another priority; what is kept is not counted
here.`,
		Example: `  ebpf-tracer get filters
  ebpf-tracer get filters -o json | jq '.[] | select(.source == "api").filter.name'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				list, err := c.ListFilters(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), all(list, true))
				}
				return showFilters(cmd.OutOrStdout(), list, time.Now())
			})
		}),
	}
	a.flags(cmd, "table", "json")
	return cmd
}

func showFilters(out io.Writer, list []*protov1.FilterView, now time.Time) error {
	t := newTable(out, "SOURCE", "NAME", "ACTION", "MATCHES", "CGROUPS", "EVENTS", "ENDS IN")
	for _, v := range list {
		f := v.GetFilter()
		cgroups := ""
		if v.Cgroups != nil {
			cgroups = count(v.GetCgroups())
		}
		ends := ""
		if at := v.GetUntilUnixNano(); at != 0 {
			ends = max(time.Unix(0, at).Sub(now), 0).Round(time.Second).String()
		}
		t.row(v.GetSource(), f.GetName(), f.GetAction(), asks(f, v.GetPriorities()), cgroups, count(v.GetEvents()), ends)
	}
	return t.flush()
}

// asks is what a filter asks for, in a line that is not too long.
func asks(f *protov1.Filter, priorities []string) string {
	const most = 3 // values of a list
	number := func(numbers []uint32) []string {
		return mapped(numbers, func(n uint32) string { return strconv.FormatUint(uint64(n), 10) })
	}
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(f.GetLabel())) {
		labels = append(labels, key+"="+f.GetLabel()[key])
	}
	var parts []string
	for _, of := range []struct {
		word   string
		values []string
	}{
		{"kind", f.GetKinds()}, {"priority", priorities}, {"comm", f.GetComm()}, {"pid", number(f.GetPid())}, {"uid", number(f.GetUid())},
		{"container", f.GetContainer()}, {"namespace", f.GetNamespace()}, {"image", f.GetImage()}, {"label", labels}, {"cgroup", f.GetCgroup()},
		{"peer", f.GetPeer()}, {"port", number(f.GetPort())}, {"error", f.GetError()}, {"syscall", f.GetSyscall()},
	} {
		if len(of.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", of.word, list(of.values, most)))
		}
	}
	return strings.Join(parts, "; ")
}
