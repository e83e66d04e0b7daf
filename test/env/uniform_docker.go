package env

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"google.golang.org/protobuf/proto"
)

// dockerLike is a runtime that is driven by docker's command line, or one like it.
type dockerLike struct {
	cli    func(ctx context.Context, args ...string) (string, error)
	socket string
	runtimeDaemon
	podman bool
}

// runtimeDaemon is a daemon that can be ended and started.
type runtimeDaemon struct {
	kill, start   func(context.Context) error
	pause, resume func() error
	close         func(context.Context) error
}

func (r runtimeDaemon) Kill(ctx context.Context) error  { return r.kill(ctx) }
func (r runtimeDaemon) Start(ctx context.Context) error { return r.start(ctx) }
func (r runtimeDaemon) PauseDaemon() error              { return r.pause() }
func (r runtimeDaemon) ResumeDaemon() error             { return r.resume() }
func (r runtimeDaemon) Close(ctx context.Context) error { return r.close(ctx) }

// NewDockerRow is a dockerd with a network for its containers, for a suite.
func NewDockerRow(ctx context.Context) (Runtime, error) {
	d, err := NewDocker(ctx, WithBridge(), WithArgs("--live-restore"))
	if err != nil {
		return nil, err
	}
	return &dockerLike{cli: d.CLI, socket: d.Socket, runtimeDaemon: runtimeDaemon{d.Kill, d.Start, d.Pause, d.Resume, d.Close}}, nil
}

// NewPodmanRow is a Podman with a network for its containers, for a suite.
func NewPodmanRow(ctx context.Context) (Runtime, error) {
	p, err := NewPodman(ctx, WithBridge())
	if err != nil {
		return nil, err
	}
	return &dockerLike{cli: p.CLI, socket: p.Socket, podman: true, runtimeDaemon: runtimeDaemon{p.Kill, p.Start, p.Pause, p.Resume, p.Close}}, nil
}

func (d *dockerLike) Discoverer() (name, hcl string) {
	timeout := "5s"
	if d.podman { // asked for its version, its service asks dpkg, which takes seconds on a busy machine
		timeout = "60s"
	}
	return "docker", fmt.Sprintf("discoverer \"docker\" {\n  host    = \"unix://%s\"\n  env     = true\n  timeout = %q\n}\n", d.socket, timeout)
}

func labelArgs(labels map[string]string) (args []string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		args = append(args, "--label", key+"="+labels[key])
	}
	return args
}

func (d *dockerLike) RunShort(ctx context.Context, name string, labels map[string]string, args ...string) (string, error) {
	create := append([]string{"create", "--rm", "--name", name, "--network", "none"}, labelArgs(labels)...)
	id, err := d.cli(ctx, append(append(create, NoopImage), args...)...)
	if err != nil {
		return "", err
	}
	// Not attached: there is nothing to read, and a client that waits for the end of the
	// streams of a container that lives for a moment has been seen to wait for ever.
	if _, err := d.cli(ctx, "start", id); err != nil {
		return id, err
	}
	if _, err := d.cli(ctx, "wait", id); err != nil && !isGone(err) {
		return id, err
	}
	return id, nil
}

// isGone tells whether a command failed because there is no such container any more.
func isGone(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "no such container")
}

func (d *dockerLike) RunDetached(ctx context.Context, spec Spec) (string, error) {
	args := append([]string{"run", "--detach", "--name", spec.Name}, labelArgs(spec.Labels)...)
	for _, e := range spec.Env {
		args = append(args, "--env", e)
	}
	add := func(option, value string) {
		if value != "" && value != "0" {
			args = append(args, option+"="+value)
		}
	}
	add("--hostname", spec.Hostname)
	add("--user", spec.User)
	add("--cap-add", spec.AddCap)
	add("--cap-drop", spec.DropCap)
	add("--memory", strconv.FormatInt(spec.MemoryBytes, 10))
	add("--cpu-quota", strconv.FormatInt(spec.CPUQuota, 10))
	add("--cpu-period", strconv.FormatInt(spec.CPUPeriod, 10))
	add("--cpu-shares", strconv.FormatInt(spec.CPUShares, 10))
	add("--pids-limit", strconv.FormatInt(spec.PIDs, 10))
	add("--entrypoint", spec.Entrypoint)
	if n := spec.OpenFiles; n != 0 {
		add("--ulimit", fmt.Sprintf("nofile=%d:%d", n, n))
	}
	if spec.ReadOnlyRoot {
		args = append(args, "--read-only")
	}
	if m := spec.Mount; m != nil {
		add("--mount", fmt.Sprintf("type=bind,source=%s,target=%s,readonly", m.Source, m.Destination))
	}
	if spec.Port != 0 {
		add("--publish", fmt.Sprintf("127.0.0.1:%d:%d", spec.Port, spec.Port))
	}
	return d.cli(ctx, append(append(args, spec.Image), spec.Args...)...)
}

func (d *dockerLike) Exec(ctx context.Context, id string, args ...string) error {
	_, err := d.cli(ctx, append([]string{"exec", id}, args...)...)
	return err
}

func (d *dockerLike) Stop(ctx context.Context, id string) error {
	_, err := d.cli(ctx, "stop", "--time", "0", id)
	return err
}

func (d *dockerLike) Pause(ctx context.Context, id string) error {
	_, err := d.cli(ctx, "pause", id)
	return err
}

func (d *dockerLike) Unpause(ctx context.Context, id string) error {
	_, err := d.cli(ctx, "unpause", id)
	return err
}

func (d *dockerLike) Remove(ctx context.Context, id string) error {
	_, err := d.cli(ctx, "rm", "--force", id)
	return err
}

// words are a list that one writes as such and the other as one string.
type words []string

func (w *words) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*w = nil
		if one != "" {
			*w = strings.Fields(one)
		}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(w))
}

// inspected is what docker inspect and podman inspect print, as far as they agree.
type inspected struct {
	ID           string `json:"Id"`
	Name         string
	Created      string
	Image        string // its id
	ImageDigest  string // Podman's
	RestartCount uint32
	ProcessLabel string
	AppArmor     string `json:"AppArmorProfile"`
	State        struct {
		Status     string
		Pid        uint32
		ExitCode   int32
		OOMKilled  bool
		StartedAt  string
		FinishedAt string
	}
	Config struct {
		Hostname   string
		User       string
		Env        []string
		Cmd        []string
		Entrypoint words
		Image      string
		Labels     map[string]string
	}
	HostConfig struct {
		NetworkMode       string
		Memory            int64
		MemoryReservation int64
		MemorySwap        int64
		CPUQuota          int64 `json:"CpuQuota"`
		CPUPeriod         int64 `json:"CpuPeriod"`
		CPUShares         int64 `json:"CpuShares"`
		CpusetCpus        string
		PidsLimit         *int64
		Privileged        bool
		ReadonlyRootfs    bool
		CapAdd, CapDrop   []string
		Ulimits           []struct {
			Name       string
			Soft, Hard int64
		}
	}
	Mounts []struct {
		Type, Name, Source, Destination string
		RW                              bool
	}
	NetworkSettings struct {
		Ports    map[string][]struct{ HostIP, HostPort string }
		Networks map[string]struct{ IPAddress, MacAddress, Gateway string }
	}
}

func (d *dockerLike) Inspect(ctx context.Context, id string) (*protov1.Container, error) {
	out, err := d.cli(ctx, "inspect", "--type", "container", id)
	if err != nil {
		return nil, err
	}
	var all []inspected
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		return nil, fmt.Errorf("read the inspection of container %s: %w in %s", id, err, out)
	}
	in := &all[0]
	c := &protov1.Container{
		Id: in.ID, Name: strings.TrimPrefix(in.Name, "/"), Image: reference(in.Config.Image),
		State: stateOf(in.State.Status), OomKilled: proto.Bool(in.State.OOMKilled), Pid: in.State.Pid,
		CreatedUnixNano: nano(in.Created), StartedUnixNano: nano(in.State.StartedAt), FinishedUnixNano: nano(in.State.FinishedAt),
		Labels: in.Config.Labels, Entrypoint: in.Config.Entrypoint, Args: in.Config.Cmd, Env: in.Config.Env,
		NetworkMode: in.HostConfig.NetworkMode, Hostname: in.Config.Hostname, RestartCount: proto.Uint32(in.RestartCount),
	}
	c.Image.Id = "sha256:" + strings.TrimPrefix(in.Image, "sha256:")
	c.Image.Digest = in.ImageDigest
	if c.State == protov1.Container_STATE_EXITED {
		c.ExitCode = proto.Int32(in.State.ExitCode)
	}
	for _, m := range in.Mounts {
		c.Mounts = append(c.Mounts, &protov1.Mount{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, ReadOnly: proto.Bool(!m.RW),
		})
	}
	for _, key := range slices.Sorted(maps.Keys(in.NetworkSettings.Ports)) {
		number, protocol, _ := strings.Cut(key, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read port %q of container %s: %w", key, id, err)
		}
		for _, at := range in.NetworkSettings.Ports[key] {
			host, err := strconv.ParseUint(cmp.Or(at.HostPort, "0"), 10, 16)
			if err != nil {
				return nil, fmt.Errorf("read port %q of container %s: %w", at.HostPort, id, err)
			}
			c.Ports = append(c.Ports, &protov1.Port{Protocol: protocol, ContainerPort: uint32(n), HostPort: uint32(host), HostIp: at.HostIP})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.NetworkSettings.Networks)) {
		n := in.NetworkSettings.Networks[name]
		network := &protov1.Network{Name: name, InterfaceMac: n.MacAddress, Gateway: n.Gateway}
		if n.IPAddress != "" {
			network.Ips = []string{n.IPAddress}
		}
		c.Networks = append(c.Networks, network)
	}
	h := &in.HostConfig
	c.Limits = &protov1.Limits{
		CpuQuotaUs: orNone(h.CPUQuota), Cpuset: h.CpusetCpus, MemoryBytes: orNone(h.Memory),
		MemoryReservationBytes: orNone(h.MemoryReservation), SwapBytes: orNone(0), Pids: orNone(0),
	}
	if h.CPUPeriod > 0 {
		c.Limits.CpuPeriodUs = proto.Int64(h.CPUPeriod)
	}
	if h.CPUShares > 0 {
		c.Limits.CpuShares = proto.Int64(h.CPUShares)
	}
	if h.Memory > 0 && h.MemorySwap >= h.Memory { // theirs is both together
		c.Limits.SwapBytes = proto.Int64(h.MemorySwap - h.Memory)
	}
	if h.PidsLimit != nil {
		c.Limits.Pids = orNone(*h.PidsLimit)
	}
	for _, u := range h.Ulimits {
		c.Limits.Ulimits = append(c.Limits.Ulimits, &protov1.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	c.Security = &protov1.Security{
		User: in.Config.User, Privileged: proto.Bool(h.Privileged), ReadOnlyRoot: proto.Bool(h.ReadonlyRootfs),
		CapabilitiesAdded: h.CapAdd, CapabilitiesDropped: h.CapDrop, Apparmor: in.AppArmor, Selinux: in.ProcessLabel, Seccomp: "default",
	}
	return c, locate(c)
}
