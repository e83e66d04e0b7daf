package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newContainers() *cobra.Command {
	var a asking
	var pid uint32
	var only selection
	cmd := &cobra.Command{
		Use:   "containers",
		Short: "List the containers that are known now",
		Long: `List the containers that are known now. One whose discoverer is away is stale: this
is what was told last. The age is since the start, and where nobody told that, since
the creation. JSON has everything that is known, but for the values of environment
variables.`,
		Example: `  ebpf-tracer get containers
  ebpf-tracer get containers --state running --label app=web --sort age
  ebpf-tracer get containers --runtime docker --json | jq -r '.[].container.name'
  ebpf-tracer get containers --pid 4242`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				list, err := askContainers(cmd, c, pid)
				if err != nil {
					return err
				}
				list = only.of(list)
				if a.json() {
					return writeJSON(cmd.OutOrStdout(), all(list, false))
				}
				return showContainers(cmd.OutOrStdout(), list, time.Now())
			})
		}),
	}
	a.flags(cmd, "table", "json")
	only.flags(cmd)
	cmd.Flags().Uint32Var(&pid, "pid", 0, "the container that the process with this `pid` of the host belongs to")
	return cmd
}

func askContainers(cmd *cobra.Command, c *client.Client, pid uint32) ([]*protov1.ContainerView, error) {
	if cmd.Flags().Changed("pid") {
		one, err := c.GetContainerByPID(cmd.Context(), pid)
		return []*protov1.ContainerView{one}, err
	}
	return c.ListContainers(cmd.Context())
}

// selection says which containers to show, and in which order.
type selection struct {
	labels  []string // NAME or NAME=VALUE
	runtime string
	state   choice
	sort    choice
}

// orders are those that there are, by their names.
func orders() map[string]func(a, b *protov1.ContainerView) int {
	return map[string]func(a, b *protov1.ContainerView) int{
		"name":  func(a, b *protov1.ContainerView) int { return 0 },                                // among what is equal otherwise
		"age":   func(a, b *protov1.ContainerView) int { return -cmp.Compare(birth(a), birth(b)) }, // the youngest first
		"image": func(a, b *protov1.ContainerView) int { return cmp.Compare(imageOf(a), imageOf(b)) },
		"runtime": func(a, b *protov1.ContainerView) int {
			return cmp.Compare(a.GetContainer().GetRuntime(), b.GetContainer().GetRuntime())
		},
		"state": func(a, b *protov1.ContainerView) int {
			return cmp.Compare(a.GetContainer().GetState(), b.GetContainer().GetState())
		},
	}
}

func (s *selection) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&s.labels, "label", "l", nil, "only those with this `label`, as NAME or NAME=VALUE; with several, only those with all")
	cmd.Flags().StringVar(&s.runtime, "runtime", "", "only those of this `runtime`, such as docker")
	names := protov1.Container_State(0).Descriptor().Values()
	for i := 1; i < names.Len(); i++ {
		s.state.of = append(s.state.of, wordOf(protov1.Container_State(names.Get(i).Number())))
	}
	s.sort.of, s.sort.is = slices.Sorted(maps.Keys(orders())), "name"
	for name, f := range map[string]struct {
		choice *choice
		usage  string
	}{
		"state": {&s.state, "only those in this `state`: " + s.state.words(" or ")},
		"sort":  {&s.sort, "the `order`: by " + s.sort.words(" or ")},
	} {
		cmd.Flags().Var(f.choice, name, f.usage)
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(f.choice.of, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // there is no such flag
		}
	}
}

// of gives the containers that are selected, in order.
func (s *selection) of(list []*protov1.ContainerView) []*protov1.ContainerView {
	out := slices.DeleteFunc(slices.Clone(list), func(v *protov1.ContainerView) bool { return !s.has(v.GetContainer()) })
	first := orders()[s.sort.is]
	slices.SortFunc(out, func(a, b *protov1.ContainerView) int {
		return cmp.Or(first(a, b), cmp.Compare(a.GetContainer().GetName(), b.GetContainer().GetName()),
			cmp.Compare(a.GetContainer().GetId(), b.GetContainer().GetId()), cmp.Compare(a.GetContainer().GetScope(), b.GetContainer().GetScope()))
	})
	return out
}

func (s *selection) has(c *protov1.Container) bool {
	for _, want := range s.labels {
		name, value, exact := strings.Cut(want, "=")
		if got, ok := c.GetLabels()[name]; !ok || exact && got != value {
			return false
		}
	}
	return (s.runtime == "" || s.runtime == c.GetRuntime()) && (s.state.is == "" || s.state.is == wordOf(c.GetState()))
}

func showContainers(out io.Writer, list []*protov1.ContainerView, now time.Time) error {
	t := newTable(out, "ID", "NAME", "IMAGE", "RUNTIME", "STATE", "PID", "AGE", "POD", "MESH")
	for _, v := range list {
		c := v.GetContainer()
		t.row(short(c.GetId()), c.GetName(), imageOf(v), c.GetRuntime(), state(v), number(c.GetPid()), age(birth(v), now),
			pod(v), mesh(v.GetMesh()))
	}
	return t.flush()
}

// state of a container, and whether that is what was told last.
func state(v *protov1.ContainerView) string {
	state := wordOf(v.GetContainer().GetState())
	if v.GetStale() {
		state = strings.TrimPrefix(state+" (stale)", " ")
	}
	return state
}

// birth is when a container was started, or else created.
func birth(v *protov1.ContainerView) int64 {
	return cmp.Or(v.GetContainer().GetStartedUnixNano(), v.GetContainer().GetCreatedUnixNano())
}

// short is an id as runtimes show it.
func short(id string) string { return id[:min(len(id), 12)] }

// called is a container's name, with its short id.
func called(name, id string) string {
	if name == "" || name == id {
		return short(id)
	}
	return fmt.Sprintf("%s (%s)", name, short(id))
}

func imageOf(v *protov1.ContainerView) string { return image(v.GetContainer().GetImage()) }

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
