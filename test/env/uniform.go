package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// Runtime is a container runtime as one suite drives all of them. What a runtime has no
// notion of is [errors.ErrUnsupported]. The methods may be called from several goroutines,
// but for those that start, stop and end its daemon.
type Runtime interface {
	// Discoverer is the discoverer that finds its containers, and the block that
	// configures it, with the environment of containers.
	Discoverer() (name, hcl string)
	// RunShort runs a container of NoopImage with arguments, to its end, and removes it.
	// Nobody else may have used the name.
	RunShort(ctx context.Context, name string, labels map[string]string, args ...string) (id string, err error)
	// RunDetached starts a container and leaves it, whether it then runs or has ended.
	RunDetached(ctx context.Context, spec Spec) (id string, err error)
	// Exec runs a command in a container, to its end.
	Exec(ctx context.Context, id string, args ...string) error
	// Inspect is what the runtime itself tells of a container, in the words of the
	// discoverers' contract; what it does not tell is not set.
	Inspect(ctx context.Context, id string) (*protov1.Container, error)
	// Stop ends a container that does not wish to end, and keeps it.
	Stop(ctx context.Context, id string) error
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
	// Remove ends a container, if it runs, and removes it.
	Remove(ctx context.Context, id string) error

	// Kill ends the runtime's daemon by SIGKILL, Start starts it again; containers go on.
	Kill(ctx context.Context) error
	Start(ctx context.Context) error
	// PauseDaemon stops the daemon in its tracks until ResumeDaemon.
	PauseDaemon() error
	ResumeDaemon() error

	Close(ctx context.Context) error
}

// Spec describes a container. Zero values ask for nothing; a runtime leaves out what it
// has no option for.
type Spec struct {
	Name   string
	Image  string
	Args   []string
	Labels map[string]string
	Env    []string // NAME=value

	// Entrypoint is told apart from Args by the runtimes that do so.
	Entrypoint string

	Hostname     string
	User         string // a number
	ReadOnlyRoot bool
	AddCap       string // without CAP_
	DropCap      string
	Mount        *BindMount
	Port         uint32 // TCP, published at the same one of 127.0.0.1 where there is a bridge

	MemoryBytes int64
	CPUQuota    int64 // µs
	CPUPeriod   int64 // µs
	CPUShares   int64
	PIDs        int64
	OpenFiles   int64 // the soft and the hard limit
}

// command is the whole command line.
func (spec Spec) command() []string {
	if spec.Entrypoint == "" {
		return spec.Args
	}
	return append([]string{spec.Entrypoint}, spec.Args...)
}

// BindMount is a directory of the host that a container may read.
type BindMount struct{ Source, Destination string }

// FullSpec asks for something of everything, for a container of [BusyboxImage] that
// sleeps.
func FullSpec(name, hostDir string) Spec {
	return Spec{
		Name: name, Image: BusyboxImage, Entrypoint: "/bin/sleep", Args: []string{"1000"},
		Labels:   map[string]string{"team": "tracing", "org.example/with.dots": "yes"},
		Env:      []string{"COLOUR=blue", "EMPTY="},
		Hostname: "host-of-" + name, User: "1234:5678", ReadOnlyRoot: true, AddCap: "SYS_PTRACE", DropCap: "MKNOD",
		Mount: &BindMount{hostDir, "/data"}, Port: 18080,
		MemoryBytes: 64 << 20, CPUQuota: 50_000, CPUPeriod: 100_000, CPUShares: 512, PIDs: 100, OpenFiles: 1000,
	}
}

// reference splits an image's name as a user wrote it.
func reference(text string) *protov1.Image {
	name, digest, _ := strings.Cut(text, "@")
	image := &protov1.Image{Name: name, Digest: digest}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		image.Name, image.Tag = name[:i], name[i+1:]
	}
	return image
}

// nano reads a time as the runtimes print it; 0 is "not yet".
func nano(text string) int64 {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999 -0700 MST"} {
		if t, err := time.Parse(layout, text); err == nil && t.Year() >= 1970 {
			return t.UnixNano()
		}
	}
	return 0
}

// stateOf is a state by the words of Docker, Podman and runc.
func stateOf(word string) protov1.Container_State {
	switch word {
	case "stopped":
		word = "exited"
	case "configured", "initialized":
		word = "created"
	}
	return protov1.Container_State(protov1.Container_State_value["STATE_"+strings.ToUpper(word)])
}

// orNone is a limit as the contract has it: -1 is none.
func orNone(n int64) *int64 {
	if n <= 0 {
		n = -1
	}
	return proto.Int64(n)
}

// locate adds where a container's first process is on the default hierarchy, by the
// kernel's word.
func locate(c *protov1.Container) error {
	if c.GetPid() == 0 {
		return nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.GetPid()))
	if err != nil {
		return fmt.Errorf("find the cgroup of container %s: %w", c.GetId(), err)
	}
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			c.CgroupPath = path
		}
	}
	for _, m := range mounts {
		if m.fstype != "cgroup2" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(path.Join(m.point, c.CgroupPath), &st); err != nil {
			return fmt.Errorf("find the cgroup of container %s: %w", c.GetId(), err)
		}
		c.CgroupId = st.Ino
	}
	return nil
}

// fromSpec describes a container by the specification that its runtime made for it.
// defaults are the capabilities that the runtime gives to those who ask for nothing.
func fromSpec(c *protov1.Container, text []byte, defaults []string) error {
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("read the specification of container %s: %w", c.GetId(), err)
	}
	if s.Process == nil || s.Linux == nil || s.Root == nil {
		return fmt.Errorf("read the specification of container %s: it lacks a part", c.GetId())
	}
	c.Args, c.Env, c.Hostname = s.Process.Args, s.Process.Env, s.Hostname
	c.Annotations = maps.Clone(s.Annotations)
	for _, m := range s.Mounts {
		if slices.Contains(m.Options, "rbind") || slices.Contains(m.Options, "bind") {
			c.Mounts = append(c.Mounts, &protov1.Mount{
				Type: "bind", Source: m.Source, Destination: m.Destination, ReadOnly: proto.Bool(slices.Contains(m.Options, "ro")),
			})
		}
	}
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }) {
		c.NetworkMode = "host"
	}
	c.Limits = &protov1.Limits{
		CpuQuotaUs: orNone(0), MemoryBytes: orNone(0), SwapBytes: orNone(0), MemoryReservationBytes: orNone(0), Pids: orNone(0),
	}
	if r := s.Linux.Resources; r != nil {
		limitsOf(c.Limits, r)
	}
	for _, l := range s.Process.Rlimits {
		c.Limits.Ulimits = append(c.Limits.Ulimits, &protov1.Ulimit{
			Name: strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_")), Soft: int64(l.Soft), Hard: int64(l.Hard),
		})
	}
	c.Security = &protov1.Security{
		User:         fmt.Sprintf("%d:%d", s.Process.User.UID, s.Process.User.GID),
		ReadOnlyRoot: proto.Bool(s.Root.Readonly), Apparmor: s.Process.ApparmorProfile, Selinux: s.Process.SelinuxLabel,
		Seccomp: "unconfined",
	}
	if s.Linux.Seccomp != nil {
		c.Security.Seccomp = "filtered"
	}
	c.Security.Privileged = proto.Bool(len(s.Linux.MaskedPaths) == 0)
	if s.Process.Capabilities != nil {
		has := s.Process.Capabilities.Bounding
		for _, name := range has {
			if !slices.Contains(defaults, strings.TrimPrefix(name, "CAP_")) {
				c.Security.CapabilitiesAdded = append(c.Security.CapabilitiesAdded, name)
			}
		}
		for _, name := range defaults {
			if !slices.Contains(has, "CAP_"+name) {
				c.Security.CapabilitiesDropped = append(c.Security.CapabilitiesDropped, name)
			}
		}
	}
	return nil
}

// containerdCapabilities are what containerd gives to those who ask for nothing, and
// smallCapabilities what runc does by its own default specification.
var (
	containerdCapabilities = []string{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
		"NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
	smallCapabilities = []string{"AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"}
	crioCapabilities  = []string{"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "KILL"}
)

func limitsOf(l *protov1.Limits, r *specs.LinuxResources) {
	if m := r.Memory; m != nil {
		if m.Limit != nil {
			l.MemoryBytes = orNone(*m.Limit)
		}
		if m.Reservation != nil {
			l.MemoryReservationBytes = orNone(*m.Reservation)
		}
		if m.Swap != nil && m.Limit != nil && *m.Limit > 0 && *m.Swap >= *m.Limit { // its is both together
			l.SwapBytes = proto.Int64(*m.Swap - *m.Limit)
		}
	}
	if cpu := r.CPU; cpu != nil {
		l.Cpuset = cpu.Cpus
		if cpu.Quota != nil {
			l.CpuQuotaUs = orNone(*cpu.Quota)
		}
		if cpu.Period != nil && *cpu.Period > 0 {
			l.CpuPeriodUs = proto.Int64(int64(*cpu.Period))
		}
		if cpu.Shares != nil && *cpu.Shares > 0 {
			l.CpuShares = proto.Int64(int64(*cpu.Shares))
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		l.Pids = orNone(*r.Pids.Limit)
	}
}

// runcRow is bare runc. A container's name is its id; labels are annotations.
type runcRow struct{ *Runc }

// NewRuncRow is runc alone, for a suite.
func NewRuncRow(ctx context.Context, opts ...Option) (Runtime, error) {
	r, err := NewRunc(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return runcRow{r}, nil
}

func (r runcRow) Discoverer() (name, hcl string) {
	return "oci", fmt.Sprintf("discoverer \"oci\" {\n  roots   = [%q]\n  bundles = [%q]\n  env     = true\n}\n", r.Root, r.Bundles)
}

func (r runcRow) RunShort(ctx context.Context, name string, labels map[string]string, args ...string) (string, error) {
	_, err := r.Run(ctx, name, NoopImage, func(s *specs.Spec) { s.Annotations = labels }, append([]string{"/noop"}, args...)...)
	return name, err
}

func (r runcRow) RunDetached(ctx context.Context, spec Spec) (string, error) {
	return spec.Name, r.Runc.RunDetached(ctx, spec.Name, spec.Image, spec.apply, spec.command()...)
}

// apply asks for what a specification can express.
func (spec Spec) apply(s *specs.Spec) {
	s.Annotations = spec.Labels
	s.Process.Env = append(s.Process.Env, spec.Env...)
	s.Root.Readonly = spec.ReadOnlyRoot
	if spec.Hostname != "" {
		s.Hostname = spec.Hostname
	}
	if uid, gid, ok := strings.Cut(spec.User, ":"); ok {
		u, _ := strconv.ParseUint(uid, 10, 32)
		g, _ := strconv.ParseUint(gid, 10, 32)
		s.Process.User = specs.User{UID: uint32(u), GID: uint32(g)}
	}
	if spec.AddCap != "" {
		for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
			*set = append(*set, "CAP_"+spec.AddCap)
		}
	}
	if m := spec.Mount; m != nil {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: []string{"rbind", "ro"}})
	}
	if spec.MemoryBytes > 0 {
		r := s.Linux.Resources
		shares, period := uint64(spec.CPUShares), uint64(spec.CPUPeriod)
		r.Memory = &specs.LinuxMemory{Limit: &spec.MemoryBytes}
		r.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &spec.CPUQuota, Period: &period}
		r.Pids = &specs.LinuxPids{Limit: &spec.PIDs}
	}
}

func (r runcRow) Exec(ctx context.Context, id string, args ...string) error {
	_, err := r.Call(ctx, append([]string{"exec", id}, args...)...)
	return err
}

func (r runcRow) Inspect(ctx context.Context, id string) (*protov1.Container, error) {
	out, err := r.Call(ctx, "state", id)
	if err != nil {
		return nil, err
	}
	var state struct {
		ID      string `json:"id"`
		PID     uint32 `json:"pid"`
		Status  string `json:"status"`
		Bundle  string `json:"bundle"`
		Created string `json:"created"`
	}
	if err := json.Unmarshal([]byte(out), &state); err != nil {
		return nil, fmt.Errorf("read the state of container %s: %w", id, err)
	}
	c := &protov1.Container{
		Id: state.ID, Name: state.ID, State: stateOf(state.Status), Pid: state.PID, CreatedUnixNano: nano(state.Created),
	}
	text, err := os.ReadFile(path.Join(state.Bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the bundle of container %s: %w", id, err)
	}
	if err := fromSpec(c, text, smallCapabilities); err != nil {
		return nil, err
	}
	c.Scope = "oci:" + r.Root
	return c, locate(c)
}

func (r runcRow) Stop(ctx context.Context, id string) error {
	_, err := r.Call(ctx, "kill", id, "KILL")
	return err
}

func (r runcRow) Pause(ctx context.Context, id string) error {
	_, err := r.Call(ctx, "pause", id)
	return err
}

func (r runcRow) Unpause(ctx context.Context, id string) error {
	_, err := r.Call(ctx, "resume", id)
	return err
}

func (runcRow) Kill(context.Context) error  { return errors.ErrUnsupported }
func (runcRow) Start(context.Context) error { return errors.ErrUnsupported }
func (runcRow) PauseDaemon() error          { return errors.ErrUnsupported }
func (runcRow) ResumeDaemon() error         { return errors.ErrUnsupported }
