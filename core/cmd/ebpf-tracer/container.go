package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newContainer() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "container ID|NAME",
		Short: "Show all that is known of one container",
		Long: `Show all that is known of one container: what its sources tell of it and which one
told what, its limits, its namespaces and who shares them, and what it uses. It is
named by its whole id (or SCOPE/ID), its name, or the beginning of its id. Values of
environment variables are left out.`,
		Example: `  ebpf-tracer get container web-1
  ebpf-tracer get container 3f2a
  ebpf-tracer get container web-1 --json | jq .container.limits`,
		Args: words("ID or NAME"),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				v, err := askContainer(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				shared, err := askShared(cmd.Context(), c, v)
				if err != nil {
					return err
				}
				if a.json() {
					out := plain(v, false)
					out["shared_namespaces"] = all(shared, false)
					return writeJSON(cmd.OutOrStdout(), out)
				}
				s := &sheet{out: cmd.OutOrStdout()}
				showContainer(s, v, shared, time.Now())
				return s.err
			})
		}),
	}
	a.flags(cmd, "text", "json")
	return cmd
}

// askContainer finds a container, or says which ones may be meant.
func askContainer(ctx context.Context, c *client.Client, word string) (*protov1.ContainerView, error) {
	v, err := c.GetContainer(ctx, word)
	return v, explainContainer(ctx, c, word, err)
}

// explainContainer says more of an error about a word that should mean a container.
func explainContainer(ctx context.Context, c *client.Client, word string, err error) error {
	var several *client.AmbiguousError
	switch {
	case errors.As(err, &several):
		var b strings.Builder
		t := newTable(&b, "ID", "NAME", "IMAGE", "RUNTIME", "STATE")
		for _, v := range several.Containers {
			t.row(whole(v.GetContainer()), v.GetContainer().GetName(), imageOf(v), v.GetContainer().GetRuntime(), state(v))
		}
		if err := t.flush(); err != nil {
			return err
		}
		return fmt.Errorf("%q means several containers: give more of the id, or all of one of these\n\n%s", word, strings.TrimRight(b.String(), "\n"))
	case errors.Is(err, client.ErrNoContainer):
		list, listErr := c.ListContainers(ctx)
		if listErr != nil {
			return err
		}
		if near := nearContainers(word, list); len(near) > 0 {
			return fmt.Errorf("%w: did you mean %s?", err, strings.Join(mapped(near, clean), " or "))
		}
		return fmt.Errorf("%w: 'ebpf-tracer get containers' lists those that there are", err)
	}
	return err
}

// whole is what names a container without doubt.
func whole(c *protov1.Container) string {
	if c.GetScope() == "" {
		return c.GetId()
	}
	return c.GetScope() + "/" + c.GetId()
}

// nearContainers are the names of containers that may have been meant by a word: those
// that hold it, or else differ in few letters; three at most.
func nearContainers(word string, list []*protov1.ContainerView) []string {
	lower := strings.ToLower(word)
	far := map[string]int{}
	for _, v := range list {
		name := cmp.Or(v.GetContainer().GetName(), whole(v.GetContainer()))
		switch d := levenshtein.Distance(lower, strings.ToLower(name), nil); {
		case len(word) > 1 && strings.Contains(strings.ToLower(name), lower):
			far[name] = 0
		case d <= 1+len(word)/4 && d < len(word):
			far[name] = d
		}
	}
	var near []string
	for name := range far {
		near = append(near, name)
	}
	slices.SortFunc(near, func(a, b string) int { return cmp.Or(cmp.Compare(far[a], far[b]), cmp.Compare(a, b)) })
	return near[:min(len(near), 3)]
}

// askShared gives the container's namespaces that are not the host's.
func askShared(ctx context.Context, c *client.Client, v *protov1.ContainerView) ([]*protov1.Namespace, error) {
	var out []*protov1.Namespace
	for _, r := range v.GetNamespaces() {
		if r.GetHost() {
			continue
		}
		n, err := c.GetNamespace(ctx, client.NamespaceID(r))
		if errors.Is(err, client.ErrNoNamespace) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if len(n.Containers) > 1 {
			out = append(out, n.Namespace)
		}
	}
	return out, nil
}

// showContainer writes all that is known of a container, section by section.
func showContainer(s *sheet, v *protov1.ContainerView, shared []*protov1.Namespace, now time.Time) {
	c := v.GetContainer()
	s.field("id", c.GetId())
	s.field("name", c.GetName())
	s.field("scope", c.GetScope())
	s.field("type", c.GetType())
	s.field("image", image(c.GetImage()))
	s.field("image digest", c.GetImage().GetDigest())
	s.field("image id", c.GetImage().GetId())
	s.field("runtime", c.GetRuntime())
	s.field("state", state(v))
	s.field("pid", number(c.GetPid()))
	s.field("created", moment(c.GetCreatedUnixNano(), now))
	s.field("started", moment(c.GetStartedUnixNano(), now))
	s.field("finished", moment(c.GetFinishedUnixNano(), now))
	s.field("exit code", optional(c.ExitCode))
	s.field("out of memory", yes(c.GetOomKilled()))
	s.field("restarts", optional(c.RestartCount))
	s.field("hostname", c.GetHostname())
	s.field("entrypoint", quoted(c.GetEntrypoint()))
	s.field("arguments", quoted(c.GetArgs()))
	s.field("cgroup", c.GetCgroupPath())
	s.field("cgroup ids", joined(v.GetCgroupIds(), count))
	s.field("sandbox", c.GetSandboxId())
	s.field("shortened", strings.Join(c.GetTruncated(), ", "))
	s.end("")

	showPod(s, v)
	showLimits(s, c.GetLimits())
	showUsage(s, v.GetUsage())
	showSecurity(s, c.GetSecurity())
	showNetworks(s, c)
	showMounts(s, c.GetMounts())
	showNamespaces(s, v, shared)
	pairs(s, "labels", c.GetLabels())
	pairs(s, "annotations", c.GetAnnotations())
	s.field("environment", joined(c.GetEnv(), func(e string) string {
		name, _, _ := strings.Cut(e, "=")
		return name
	}))
	s.end("")
	showSources(s, v)
}

func showPod(s *sheet, v *protov1.ContainerView) {
	s.field("pod", pod(v))
	s.field("pod uid", v.GetContainer().GetPodUid())
	s.field("in the pod", v.GetContainer().GetKubernetesName())
	s.field("phase", v.GetPod().GetPhase())
	s.field("addresses", strings.Join(v.GetPod().GetIps(), ", "))
	s.field("owners", joined(v.GetPod().GetOwners(), func(o *protov1.Owner) string { return o.GetKind() + "/" + o.GetName() }))
	s.field("service account", v.GetPod().GetServiceAccount())
	s.end("kubernetes")
	m := v.GetMesh()
	s.field("mesh", mesh(m))
	s.field("proxy", strings.TrimSpace(m.GetProxy()+" "+m.GetProxyVersion()))
	s.field("service", m.GetService())
	s.field("identity", m.GetIdentity())
	s.end("mesh")
}

func showLimits(s *sheet, l *protov1.Limits) {
	if l == nil {
		return
	}
	micro := func(n uint64) string { return count(n) + "us" }
	if l.GetCpuQuotaUs() > 0 && l.GetCpuPeriodUs() > 0 {
		s.field("cpu", fmt.Sprintf("%.4g CPUs (%dus of every %dus)", float64(l.GetCpuQuotaUs())/float64(l.GetCpuPeriodUs()), l.GetCpuQuotaUs(), l.GetCpuPeriodUs()))
	} else {
		s.field("cpu", limit(l.CpuQuotaUs, micro))
	}
	s.field("cpu shares", limit(l.CpuShares, count))
	s.field("cpu weight", limit(l.CpuWeight, count))
	s.field("cpuset", l.GetCpuset())
	s.field("memory", limit(l.MemoryBytes, size))
	s.field("swap", limit(l.SwapBytes, size))
	s.field("memory reservation", limit(l.MemoryReservationBytes, size))
	s.field("pids", limit(l.Pids, count))
	s.field("block I/O weight", limit(l.BlkioWeight, count))
	for _, b := range l.GetBlkioThrottles() {
		s.field("block I/O of "+clean(b.GetDevice()), some(
			rate("read", b.GetReadBytesPerSecond(), size), rate("write", b.GetWriteBytesPerSecond(), size),
			rate("reads", b.GetReadsPerSecond(), count), rate("writes", b.GetWritesPerSecond(), count)))
	}
	if n := l.GetNetwork(); n != nil {
		bits := func(n uint64) string { return count(n) + " bit/s" }
		s.field("network in", limit(n.IngressBitsPerSecond, bits))
		s.field("network out", limit(n.EgressBitsPerSecond, bits))
		s.field("network class", optional(n.ClassId))
	}
	for _, u := range l.GetUlimits() {
		s.field("ulimit "+clean(u.GetName()), fmt.Sprintf("soft %s, hard %s", limit(&u.Soft, count), limit(&u.Hard, count)))
	}
	s.end("limits")
}

func showUsage(s *sheet, u *protov1.Usage) {
	if u == nil {
		return
	}
	part := func(name string, value *uint64, unit func(uint64) string) string {
		if value == nil {
			return ""
		}
		return name + " " + unit(*value)
	}
	span := func(name string, value *float64) string {
		if value == nil {
			return ""
		}
		return name + " " + seconds(*value)
	}
	s.field("cpu", some(span("in all", u.CpuSeconds), span("user", u.CpuUserSeconds), span("system", u.CpuSystemSeconds),
		span("throttled", u.CpuThrottledSeconds), part("throttled periods", u.CpuThrottledPeriods, count)))
	s.field("memory", some(part("now", u.MemoryBytes, size), part("working set", u.MemoryWorkingSetBytes, size),
		part("peak", u.MemoryPeakBytes, size), part("limit", u.MemoryLimitBytes, size), part("swap", u.SwapBytes, size),
		part("out of memory kills", u.OomKills, count)))
	s.field("block I/O", some(part("read", u.ReadBytes, size), part("written", u.WrittenBytes, size),
		part("reads", u.Reads, count), part("writes", u.Writes, count)))
	s.field("network", some(part("received", u.ReceivedBytes, size), part("sent", u.SentBytes, size),
		part("packets received", u.ReceivedPackets, count), part("packets sent", u.SentPackets, count)))
	s.field("pids", some(part("now", u.Pids, count), part("limit", u.PidsLimit, count)))
	for _, p := range u.GetPressure() {
		s.field("stalled for "+clean(p.GetResource()), fmt.Sprintf("%s in all, %.1f %% of the last 10s; all at once %s, %.1f %%",
			seconds(p.GetSomeSeconds()), 100*p.GetSomeAvg10Ratio(), seconds(p.GetFullSeconds()), 100*p.GetFullAvg10Ratio()))
	}
	s.field("as told by", u.GetSource())
	s.end("usage")
}

func showSecurity(s *sheet, c *protov1.Security) {
	if c == nil {
		return
	}
	s.field("user", c.GetUser())
	s.field("privileged", answer(c.Privileged))
	s.field("capabilities added", strings.Join(c.GetCapabilitiesAdded(), ", "))
	s.field("capabilities dropped", strings.Join(c.GetCapabilitiesDropped(), ", "))
	s.field("seccomp", c.GetSeccomp())
	s.field("apparmor", c.GetApparmor())
	s.field("selinux", c.GetSelinux())
	s.field("read-only root", answer(c.ReadOnlyRoot))
	s.end("security")
}

func showNetworks(s *sheet, c *protov1.Container) {
	s.field("mode", c.GetNetworkMode())
	for _, n := range c.GetNetworks() {
		s.field("network "+clean(n.GetName()), some(strings.Join(n.GetIps(), ", "), with("gateway ", n.GetGateway()), with("mac ", n.GetInterfaceMac())))
	}
	for _, p := range c.GetPorts() {
		host := ""
		if p.GetHostPort() != 0 {
			host = fmt.Sprintf("the host's %s:%d", cmp.Or(p.GetHostIp(), "*"), p.GetHostPort())
		}
		s.field(fmt.Sprintf("port %d/%s", p.GetContainerPort(), clean(p.GetProtocol())), cmp.Or(host, "not published"))
	}
	s.end("network")
}

func showMounts(s *sheet, mounts []*protov1.Mount) {
	if len(mounts) == 0 {
		return
	}
	t := s.table("MOUNT", "TYPE", "FROM", "ACCESS")
	for _, m := range mounts {
		access := ""
		if m.ReadOnly != nil {
			access = "read-write"
			if m.GetReadOnly() {
				access = "read-only"
			}
		}
		t.row(m.GetDestination(), m.GetType(), cmp.Or(m.GetName(), m.GetSource()), access)
	}
	s.keep(t.flush())
}

// showNamespaces writes a container's namespaces, and the other containers in them.
func showNamespaces(s *sheet, v *protov1.ContainerView, shared []*protov1.Namespace) {
	if len(v.GetNamespaces()) == 0 {
		return
	}
	others := map[string]string{}
	for _, n := range shared {
		var names []string
		for _, m := range n.GetContainers() {
			if m.GetContainer().GetId() != v.GetContainer().GetId() || m.GetContainer().GetScope() != v.GetContainer().GetScope() {
				names = append(names, called(m.GetName(), m.GetContainer().GetId()))
			}
		}
		others[client.NamespaceID(n.GetRef())] = list(names, 4)
	}
	t := s.table("NAMESPACE", "INODE", "SHARED WITH")
	for _, r := range v.GetNamespaces() {
		with := others[client.NamespaceID(r)]
		if r.GetHost() {
			with = "the host"
		}
		t.row(r.GetType(), count(r.GetInode()), with)
	}
	s.keep(t.flush())
}

func showSources(s *sheet, v *protov1.ContainerView) {
	s.field("described by", strings.Join(v.GetSources(), ", "))
	of := map[string][]string{}
	for field, source := range v.GetFields() {
		of[source] = append(of[source], field)
	}
	if len(of) > 1 {
		for _, source := range v.GetSources() {
			slices.Sort(of[source])
			s.field("from "+clean(source), strings.Join(of[source], ", "))
		}
	}
	s.end("sources")
}
