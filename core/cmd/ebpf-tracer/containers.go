package main

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newContainers() *cobra.Command {
	var a asking
	var pid uint32
	cmd := &cobra.Command{
		Use:     "containers",
		Aliases: []string{"container"},
		Short:   "List the containers that are known now",
		Long: `List the containers that are known now. One whose discoverer is away is stale: this
is what was told last. JSON has everything that is known, but for the values of
environment variables.`,
		Example: `  ebpf-tracer get containers
  ebpf-tracer get containers --pid 4242
  ebpf-tracer get containers -o json | jq -r '.[].container.name'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				list, err := askContainers(cmd, c, pid)
				if err != nil {
					return err
				}
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), all(list, false))
				}
				return showContainers(cmd.OutOrStdout(), list)
			})
		}),
	}
	a.flags(cmd, "table", "json")
	cmd.Flags().Uint32Var(&pid, "pid", 0, "the container that the process with this `pid` of the host belongs to")
	return cmd
}

func askContainers(cmd *cobra.Command, c *client.Client, pid uint32) ([]*protov1.ContainerView, error) {
	if cmd.Flags().Changed("pid") {
		one, err := c.GetContainerByPID(cmd.Context(), pid)
		return []*protov1.ContainerView{one}, err
	}
	list, err := c.ListContainers(cmd.Context())
	slices.SortFunc(list, func(a, b *protov1.ContainerView) int {
		return cmp.Or(cmp.Compare(a.GetContainer().GetName(), b.GetContainer().GetName()),
			cmp.Compare(a.GetContainer().GetId(), b.GetContainer().GetId()))
	})
	return list, err
}

func showContainers(out io.Writer, list []*protov1.ContainerView) error {
	t := newTable(out, "ID", "NAME", "IMAGE", "RUNTIME", "STATE", "LABELS", "POD", "MESH")
	for _, v := range list {
		c := v.GetContainer()
		state := wordOf(c.GetState())
		if v.GetStale() {
			state = strings.TrimPrefix(state+" (stale)", " ")
		}
		t.row(short(c.GetId()), c.GetName(), image(c.GetImage()), c.GetRuntime(), state,
			count(len(c.GetLabels())), pod(v), mesh(v.GetMesh()))
	}
	return t.flush()
}

// short is an id as runtimes show it.
func short(id string) string { return id[:min(len(id), 12)] }

func image(i *protov1.Image) string {
	digest := func(s string) string { return short(strings.TrimPrefix(s, "sha256:")) }
	switch {
	case i.GetName() != "" && i.GetTag() != "":
		return i.GetName() + ":" + i.GetTag()
	case i.GetName() != "" && i.GetDigest() != "":
		return i.GetName() + "@" + digest(i.GetDigest())
	case i.GetName() != "":
		return i.GetName()
	case i.GetDigest() != "":
		return digest(i.GetDigest())
	}
	return digest(i.GetId())
}

// pod is NAMESPACE/NAME, from the orchestrator or the labels that a kubelet puts
// on every container.
func pod(v *protov1.ContainerView) string {
	labels := v.GetContainer().GetLabels()
	name := cmp.Or(v.GetPod().GetName(), labels["io.kubernetes.pod.name"])
	namespace := cmp.Or(v.GetPod().GetNamespace(), labels["io.kubernetes.pod.namespace"])
	if name == "" || namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// mesh is MESH/ROLE.
func mesh(m *protov1.MeshFact) string {
	if role := wordOf(m.GetRole()); m.GetMesh() != "" && role != "" {
		return m.GetMesh() + "/" + role
	}
	return m.GetMesh()
}
