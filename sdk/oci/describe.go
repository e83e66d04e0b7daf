package oci

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Describe completes a container with what its specification tells: args, env,
// hostname, mounts, network_mode, limits, security, annotations and, where the
// specification has it, cgroup_path. Security is told relative to the runtime, which
// is to be set before.
//
// Texts are bounded by clip. Env and annotations are as they are in the specification,
// and share its memory: they are for a describe.Filter to choose and to bound.
func Describe(c *protov1.Container, clip *describe.Clip, s *specs.Spec) {
	DescribePart(c, clip, s)
	c.Mounts = mounts(clip, s)
	c.Limits = limits(clip, s)
	c.Security = security(c.Runtime, clip, s)
}

// DescribePart is Describe without what would be wrong, not just missing, if part of
// the specification could not be read: limits, security and mounts.
func DescribePart(c *protov1.Container, clip *describe.Clip, s *specs.Spec) {
	if p := s.Process; p != nil {
		c.Args, c.Env = clip.Words("args", p.Args), p.Env
	}
	c.Hostname = clip.Text("hostname", s.Hostname)
	if s.Hostname != "" && s.Domainname != "" {
		c.Hostname = clip.Text("hostname", s.Hostname+"."+s.Domainname)
	}
	c.Annotations = s.Annotations
	if l := s.Linux; l != nil {
		c.NetworkMode = networkMode(clip, l.Namespaces)
		c.CgroupPath = CgroupPath(l.CgroupsPath)
	}
}

// networkMode says whose network a container is in: "host", or "ns:PATH" for a network
// namespace that somebody made before; "" for its own, of which a specification does not
// say what it is connected to, and when nothing is said of any namespace.
func networkMode(clip *describe.Clip, namespaces []specs.LinuxNamespace) string {
	if len(namespaces) == 0 {
		return ""
	}
	for _, n := range namespaces {
		switch {
		case n.Type != specs.NetworkNamespace:
		case n.Path != "":
			return clip.Text("network_mode", "ns:"+n.Path)
		default:
			return ""
		}
	}
	return "host"
}

// mounts are those that the user asked for: not the kernel's file systems and the
// directories in memory that every container has.
func mounts(clip *describe.Clip, s *specs.Spec) []*protov1.Mount {
	var out []*protov1.Mount
	left := describe.MaxMountBytes
	for _, in := range s.Mounts {
		bind := in.Type == "bind" || slices.Contains(in.Options, "rbind") || slices.Contains(in.Options, "bind")
		if !bind && everywhere(in) {
			continue
		}
		m := &protov1.Mount{
			Type: clip.Text("mounts", in.Type), Source: clip.Text("mounts", in.Source), Destination: clip.Text("mounts", in.Destination),
			ReadOnly: proto.Bool(slices.Contains(in.Options, "ro") || slices.Contains(in.Options, "rro")),
		}
		if bind || m.Type == "" {
			m.Type = "bind"
		}
		if left -= proto.Size(m); left < 0 || !clip.Room("mounts", len(out), describe.MaxMounts) {
			clip.Shortened("mounts")
			return out
		}
		out = append(out, m)
	}
	return out
}

// everywhere tells the mounts that runtimes make in every container.
func everywhere(m specs.Mount) bool {
	switch m.Type {
	case "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2":
		return true
	case "tmpfs":
		return slices.Contains([]string{"/dev", "/dev/shm", "/run", "/run/lock"}, m.Destination)
	}
	return false
}

// security says what sets a container apart from those with the runtime's defaults.
func security(runtime string, clip *describe.Clip, s *specs.Spec) *protov1.Security {
	out := &protov1.Security{Privileged: proto.Bool(Privileged(s)), Seccomp: "unconfined"}
	if s.Root != nil {
		out.ReadOnlyRoot = proto.Bool(s.Root.Readonly)
	}
	if s.Linux != nil && s.Linux.Seccomp != nil {
		out.Seccomp = "filtered"
	}
	p := s.Process
	if p == nil {
		return out
	}
	out.User = strconv.FormatUint(uint64(p.User.UID), 10) + ":" + strconv.FormatUint(uint64(p.User.GID), 10)
	out.Apparmor, out.Selinux = clip.Text("security", p.ApparmorProfile), clip.Text("security", p.SelinuxLabel)
	if p.Capabilities == nil {
		return out
	}
	usual := usualCapabilities(runtime)
	var has, added, dropped []string
	for _, c := range p.Capabilities.Bounding {
		c = strings.TrimPrefix(c, "CAP_")
		has = append(has, c)
		if !slices.Contains(usual, c) {
			added = append(added, c)
		}
	}
	for _, c := range usual {
		if !slices.Contains(has, c) {
			dropped = append(dropped, c)
		}
	}
	out.CapabilitiesAdded, out.CapabilitiesDropped = clip.Words("security", added), clip.Words("security", dropped)
	return out
}

// usualCapabilities are those that a runtime gives where nobody says anything; "oci"
// stands for runc and crun by themselves, whose command spec writes them. Docker's are
// containerd's too, and taken where the runtime is not known.
func usualCapabilities(runtime string) []string {
	switch runtime {
	case "oci":
		return []string{"AUDIT_WRITE", "KILL", "NET_BIND_SERVICE"}
	case "cri-o":
		return []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETPCAP", "SETUID"}
	case "podman":
		return []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
	}
	return []string{
		"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
		"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
	}
}

// Privileged guesses whether a container was asked for as privileged. A specification
// has no word for it; this is what the option of that name comes to: the capabilities
// that give the host away, no seccomp filter, no path of /proc and /sys masked, and no
// user namespace of the container's own, in which capabilities would not count.
// Whether it may use all devices is not looked at.
func Privileged(s *specs.Spec) bool {
	if s.Process == nil || s.Process.Capabilities == nil {
		return false
	}
	for _, c := range []string{"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"} {
		if !slices.Contains(s.Process.Capabilities.Bounding, c) {
			return false
		}
	}
	l := s.Linux
	return l == nil || l.Seccomp == nil && len(l.MaskedPaths) == 0 &&
		!slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

func clampI64(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
