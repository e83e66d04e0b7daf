package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newProcess() *cobra.Command {
	var a asking
	var inside string
	cmd := &cobra.Command{
		Use:   "pid PID",
		Short: "Show which container a process belongs to, and what it is called inside",
		Long: `Show which container a process belongs to, its pid in each of its pid namespaces, its
effective user and group on the host and in its own user namespace, its namespaces
and its cgroup. The pid is the host's; with --container it is that in the container.`,
		Example: `  ebpf-tracer get pid 4242
  ebpf-tracer get pid 1 --container web-1
  ebpf-tracer get pid 4242 --json | jq .process.ns_pids`,
		Args: words("PID"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			pid, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || pid == 0 {
				return fmt.Errorf("%q is no pid: give a number from 1 on", args[0])
			}
			return a.ask(cmd, func(c *client.Client) error {
				process, v, err := askProcess(cmd.Context(), c, uint32(pid), inside)
				if err != nil {
					return err
				}
				if a.json() {
					out := map[string]any{"process": plain(process, true), "container": nil}
					if v != nil {
						out["container"] = plain(v, false)
					}
					return writeJSON(cmd.OutOrStdout(), out)
				}
				s := &sheet{out: cmd.OutOrStdout()}
				showProcess(s, process, v)
				return s.err
			})
		}),
	}
	a.flags(cmd, "text", "json")
	cmd.Flags().StringVar(&inside, "container", "", "the pid is the one in this `container`, by its id, the beginning of one, or its name")
	return cmd
}

func askProcess(ctx context.Context, c *client.Client, pid uint32, inside string) (*protov1.ProcessView, *protov1.ContainerView, error) {
	if inside == "" {
		return c.GetProcess(ctx, pid)
	}
	process, v, err := c.GetContainerProcess(ctx, inside, pid)
	return process, v, explainContainer(ctx, c, inside, err)
}

func showProcess(s *sheet, p *protov1.ProcessView, v *protov1.ContainerView) {
	s.field("pid", count(p.GetPid()))
	s.field("command", p.GetComm())
	container := "none: it is the host's own, or its container is not known"
	if v != nil {
		container = called(v.GetContainer().GetName(), v.GetContainer().GetId())
	}
	s.field("container", container)
	s.field("image", imageOf(v))
	s.field("pod", pod(v))
	pids := p.GetNsPids()
	if len(pids) > 1 {
		s.field("pid inside", joined(pids[1:], count))
	}
	s.field("user", inAndOut(p.GetUid(), p.NsUid))
	s.field("group", inAndOut(p.GetGid(), p.NsGid))
	s.field("cgroup", p.GetCgroupPath())
	s.end("")
	if len(p.GetNamespaces()) == 0 {
		return
	}
	t := s.table("NAMESPACE", "INODE", "HOST")
	for _, r := range p.GetNamespaces() {
		t.row(r.GetType(), count(r.GetInode()), yes(r.GetHost()))
	}
	s.keep(t.flush())
}

// inAndOut is an id of the host and what it is in the process's own user namespace.
func inAndOut(host uint32, inside *uint32) string {
	switch {
	case inside == nil:
		return fmt.Sprintf("%d on the host, which is none inside", host)
	case *inside == host:
		return count(host)
	}
	return fmt.Sprintf("%d on the host, %d inside", host, *inside)
}
