package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newNamespaces() *cobra.Command {
	var a asking
	typ := choice{of: namespace.TypeNames()}
	cmd := &cobra.Command{
		Use:   "namespaces",
		Short: "List the namespaces that containers are in",
		Long: `List the Linux namespaces that containers are in, and which containers those are: of
several in one, each can see what the others do there. The host's own are among them
where a container uses them.`,
		Example: `  ebpf-tracer get namespaces
  ebpf-tracer get namespaces --type net
  ebpf-tracer get namespaces --json | jq '.[] | select(.ref.host | not)'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				list, err := c.ListNamespaces(cmd.Context(), typ.is)
				if err != nil {
					return err
				}
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), all(list, true))
				}
				return showNamespaceList(cmd.OutOrStdout(), list)
			})
		}),
	}
	a.flags(cmd, "table", "json")
	cmd.Flags().Var(&typ, "type", "only those of this `type`: "+typ.words(" or "))
	if err := cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(typ.of, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

func showNamespaceList(out io.Writer, list []*client.Namespace) error {
	t := newTable(out, "TYPE", "INODE", "HOST", "CONTAINERS", "NAMES")
	for _, n := range list {
		t.row(n.Type, count(n.Ref.GetInode()), yes(n.Ref.GetHost()), count(len(n.Containers)), names(n.Containers))
	}
	return t.flush()
}

// names are what the first containers of a namespace are called.
func names(of []*protov1.NamespaceMember) string {
	return list(mapped(of, func(m *protov1.NamespaceMember) string { return called(m.GetName(), m.GetContainer().GetId()) }), 3)
}

func newNamespace() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "namespace TYPE:INODE|INODE",
		Short: "Show which containers are in a namespace",
		Long: `Show which containers are in a Linux namespace, and how the user and group ids in a
user namespace are mapped to the host's. It is named by its type and inode, or the
inode alone; so is what the links in /proc/PID/ns read, such as net:[4026532281].`,
		Example: `  ebpf-tracer get namespace net:4026532281
  ebpf-tracer get namespace 4026532281 --json
  ebpf-tracer get namespace "$(readlink /proc/4242/ns/net)"`,
		Args: words("TYPE:INODE or INODE"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				n, err := c.GetNamespace(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), plain(n, true))
				}
				s := &sheet{out: cmd.OutOrStdout()}
				showNamespace(s, n)
				return s.err
			})
		}),
	}
	a.flags(cmd, "text", "json")
	return cmd
}

func showNamespace(s *sheet, n *client.Namespace) {
	s.field("type", n.Type)
	s.field("inode", count(n.Ref.GetInode()))
	s.field("host", answer(&n.Ref.Host))
	s.end("")
	showMap(s, "user ids", n.GetUidMap())
	showMap(s, "group ids", n.GetGidMap())
	t := s.table("CONTAINER", "NAME", "PID", "PID INSIDE")
	for _, m := range n.GetContainers() {
		t.row(short(m.GetContainer().GetId()), m.GetName(), number(m.GetPid()), number(m.GetNsPid()))
	}
	s.keep(t.flush())
}

func showMap(s *sheet, title string, m []*protov1.IDMap) {
	for _, e := range m {
		s.field(extent(e.GetInside(), e.GetCount()), "the host's "+extent(e.GetOutside(), e.GetCount()))
	}
	s.end(title)
}

// extent writes so many ids from one on.
func extent(from, n uint32) string {
	if n <= 1 {
		return count(from)
	}
	return fmt.Sprintf("%d-%d", from, uint64(from)+uint64(n)-1)
}
