package main

import (
	"cmp"
	"encoding/json"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxJSON bounds what is decoded: the specification with a long seccomp profile has
// 50 KiB, and that of thousands of arguments or mounts is for the kernel to refuse.
const maxJSON = 1 << 20

// spec is what is read of an OCI runtime specification.
type spec struct {
	Hostname    string            `json:"hostname"`
	Domainname  string            `json:"domainname"`
	Annotations map[string]string `json:"annotations"`
	Process     struct {
		Args []string `json:"args"`
		Env  []string `json:"env"`
		User struct {
			UID      uint32 `json:"uid"`
			GID      uint32 `json:"gid"`
			Username string `json:"username"`
		} `json:"user"`
		Capabilities *struct {
			Bounding []string `json:"bounding"`
		} `json:"capabilities"`
		Rlimits []struct {
			Type string `json:"type"`
			Soft uint64 `json:"soft"`
			Hard uint64 `json:"hard"`
		} `json:"rlimits"`
		AppArmor string `json:"apparmorProfile"`
		SELinux  string `json:"selinuxLabel"`
	} `json:"process"`
	Root struct {
		ReadOnly bool `json:"readonly"`
	} `json:"root"`
	Mounts []struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options"`
	} `json:"mounts"`
	Linux struct {
		CgroupsPath string        `json:"cgroupsPath"`
		Seccomp     present       `json:"seccomp"`
		MaskedPaths []string      `json:"maskedPaths"`
		Resources   resources     `json:"resources"`
		Namespaces  []namespaceOf `json:"namespaces"`
	} `json:"linux"`
}

type namespaceOf struct {
	Type string `json:"type"`
	Path string `json:"path"` // of another's; "": its own
}

type resources struct {
	Devices []struct {
		Allow  bool   `json:"allow"`
		Type   string `json:"type"`
		Major  *int64 `json:"major"`
		Access string `json:"access"`
	} `json:"devices"`
	Memory struct {
		Limit       *int64 `json:"limit"`
		Reservation *int64 `json:"reservation"`
		Swap        *int64 `json:"swap"`
	} `json:"memory"`
	CPU struct {
		Shares *uint64 `json:"shares"`
		Quota  *int64  `json:"quota"`
		Period *uint64 `json:"period"`
		Cpus   string  `json:"cpus"`
	} `json:"cpu"`
	Pids struct {
		Limit *int64 `json:"limit"`
	} `json:"pids"`
	BlockIO struct {
		Weight    *uint16    `json:"weight"`
		ReadBps   []throttle `json:"throttleReadBpsDevice"`
		WriteBps  []throttle `json:"throttleWriteBpsDevice"`
		ReadIOPS  []throttle `json:"throttleReadIOPSDevice"`
		WriteIOPS []throttle `json:"throttleWriteIOPSDevice"`
	} `json:"blockIO"`
	Network struct {
		ClassID *uint32 `json:"classID"`
	} `json:"network"`
	Unified map[string]string `json:"unified"`
}

type throttle struct {
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	Rate  uint64 `json:"rate"`
}

// present tells whether there is something, without keeping it.
type present bool

func (p *present) UnmarshalJSON(b []byte) error {
	*p = string(b) != "null"
	return nil
}

// decode reads as much of a JSON object as can be read. It tells whether that was all:
// what is of another type than it should be is left out.
func decode(raw []byte, into any) bool {
	return len(raw) <= maxJSON && json.Unmarshal(raw, into) == nil
}

// readSpec completes a description with what the specification tells.
func (d *describer) readSpec(clip *clip, c *protov1.Container, s *spec) {
	c.Args = clip.words("args", s.Process.Args)
	if d.env {
		c.Env = clip.words("env", s.Process.Env)
	}
	c.Hostname = clip.text("hostname", s.Hostname)
	if s.Hostname != "" && s.Domainname != "" {
		c.Hostname = clip.text("hostname", s.Hostname+"."+s.Domainname)
	}
	c.Mounts = mounts(clip, s)
	c.Limits = limits(clip, s)
	c.Security = security(clip, s)
	c.CgroupPath = cgroupPath(s.Linux.CgroupsPath)
	if len(s.Linux.Namespaces) > 0 && !slices.ContainsFunc(s.Linux.Namespaces, isNetwork) {
		c.NetworkMode = "host"
	}
}

func isNetwork(n namespaceOf) bool { return n.Type == "network" }

// mounts are those that the user asked for: not the kernel's file systems and the
// directories in memory that every container has.
func mounts(clip *clip, s *spec) []*protov1.Mount {
	var out []*protov1.Mount
	left := maxMountBytes
	for _, in := range s.Mounts {
		switch in.Type {
		case "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2":
			continue
		case "tmpfs":
			if slices.Contains([]string{"/dev", "/dev/shm", "/run"}, in.Destination) {
				continue
			}
		}
		m := &protov1.Mount{
			Type: clip.text("mounts", cmp.Or(in.Type, "bind")), Source: clip.text("mounts", in.Source), Destination: clip.text("mounts", in.Destination),
			ReadOnly: proto.Bool(slices.Contains(in.Options, "ro")),
		}
		if slices.Contains(in.Options, "rbind") || slices.Contains(in.Options, "bind") {
			m.Type = "bind"
		}
		if left -= proto.Size(m); left < 0 || !clip.room("mounts", len(out), maxMounts) {
			clip.shortened("mounts")
			return out
		}
		out = append(out, m)
	}
	return out
}

// limits: what a specification does not name has none.
func limits(clip *clip, s *spec) *protov1.Limits {
	r := &s.Linux.Resources
	l := &protov1.Limits{
		CpuQuotaUs: limit(r.CPU.Quota), Cpuset: clip.text("limits", r.CPU.Cpus),
		MemoryBytes: limit(r.Memory.Limit), SwapBytes: limit(nil), MemoryReservationBytes: limit(r.Memory.Reservation), Pids: limit(r.Pids.Limit),
	}
	if n := r.CPU.Period; n != nil && *n > 0 {
		l.CpuPeriodUs = proto.Int64(clampI64(*n))
	}
	if n := r.CPU.Shares; n != nil && *n > 0 {
		l.CpuShares = proto.Int64(clampI64(*n))
	}
	// The specification's is memory and swap together.
	if memory, all := r.Memory.Limit, r.Memory.Swap; memory != nil && all != nil && *memory > 0 && *all >= *memory {
		l.SwapBytes = proto.Int64(*all - *memory)
	}
	if n := r.BlockIO.Weight; n != nil && *n > 0 {
		l.BlkioWeight = proto.Int64(int64(*n))
	}
	if n, err := strconv.ParseInt(r.Unified["cpu.weight"], 10, 64); err == nil && n > 0 {
		l.CpuWeight = proto.Int64(n)
	}
	if n := r.Network.ClassID; n != nil && *n > 0 {
		l.Network = &protov1.NetworkLimit{ClassId: proto.Uint32(*n)}
	}
	l.BlkioThrottles = throttles(clip, r)
	for _, u := range s.Process.Rlimits {
		if !clip.room("limits", len(l.Ulimits), maxUlimits) {
			break
		}
		l.Ulimits = append(l.Ulimits, &protov1.Ulimit{
			Name: clip.text("limits", strings.ToLower(strings.TrimPrefix(u.Type, "RLIMIT_"))), Soft: ulimit(u.Soft), Hard: ulimit(u.Hard),
		})
	}
	return l
}

// throttles puts the four lists together, by device.
func throttles(clip *clip, r *resources) []*protov1.BlkioThrottle {
	var out []*protov1.BlkioThrottle
	of := func(t throttle) *protov1.BlkioThrottle {
		device := strconv.FormatInt(t.Major, 10) + ":" + strconv.FormatInt(t.Minor, 10)
		for _, o := range out {
			if o.Device == device {
				return o
			}
		}
		if !clip.room("limits", len(out), maxThrottles) {
			return &protov1.BlkioThrottle{}
		}
		out = append(out, &protov1.BlkioThrottle{Device: device})
		return out[len(out)-1]
	}
	for _, t := range r.BlockIO.ReadBps {
		of(t).ReadBytesPerSecond = t.Rate
	}
	for _, t := range r.BlockIO.WriteBps {
		of(t).WriteBytesPerSecond = t.Rate
	}
	for _, t := range r.BlockIO.ReadIOPS {
		of(t).ReadsPerSecond = t.Rate
	}
	for _, t := range r.BlockIO.WriteIOPS {
		of(t).WritesPerSecond = t.Rate
	}
	return out
}

const maxThrottles = 64

func limit(n *int64) *int64 {
	none := int64(-1)
	if n == nil || *n <= 0 {
		return &none
	}
	return n
}

// ulimit is -1 where there is no limit.
func ulimit(n uint64) int64 {
	if n == math.MaxUint64 {
		return -1
	}
	return clampI64(n)
}

func clampI64(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// security says what sets a container apart from those with containerd's defaults.
func security(clip *clip, s *spec) *protov1.Security {
	out := &protov1.Security{
		User:         clip.text("security", s.Process.User.Username),
		Privileged:   proto.Bool(privileged(s)),
		ReadOnlyRoot: proto.Bool(s.Root.ReadOnly),
		Apparmor:     clip.text("security", s.Process.AppArmor), Selinux: clip.text("security", s.Process.SELinux), Seccomp: "unconfined",
	}
	if out.User == "" {
		out.User = strconv.FormatUint(uint64(s.Process.User.UID), 10) + ":" + strconv.FormatUint(uint64(s.Process.User.GID), 10)
	}
	if s.Linux.Seccomp {
		out.Seccomp = "filtered"
	}
	if has := s.Process.Capabilities; has != nil {
		var added, dropped []string
		for _, c := range has.Bounding {
			if c = strings.TrimPrefix(c, "CAP_"); !slices.Contains(defaultCapabilities, c) {
				added = append(added, c)
			}
		}
		for _, c := range defaultCapabilities {
			if !slices.Contains(has.Bounding, "CAP_"+c) {
				dropped = append(dropped, c)
			}
		}
		out.CapabilitiesAdded, out.CapabilitiesDropped = clip.words("security", added), clip.words("security", dropped)
	}
	return out
}

// defaultCapabilities are containerd's, and Docker's.
var defaultCapabilities = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
	"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

// privileged tells whether nothing keeps the container from the host's devices and the
// kernel's settings. A specification has no word for it, but this is what the option of
// that name comes to.
func privileged(s *spec) bool {
	if s.Process.Capabilities == nil || !slices.Contains(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN") || len(s.Linux.MaskedPaths) > 0 {
		return false
	}
	for _, d := range s.Linux.Resources.Devices {
		if d.Allow && (d.Type == "" || d.Type == "a") && d.Major == nil && strings.ContainsRune(d.Access, 'w') {
			return true
		}
	}
	return false
}

// cgroupPath gives the path that a low-level runtime makes of the one in a
// specification: itself, or with systemd slice:prefix:name. One that is relative to the
// runtime's own cgroup is not known.
func cgroupPath(s string) string {
	if len(s) > maxPath {
		return ""
	}
	if path.IsAbs(s) {
		return cleanPath(path.Clean(s))
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 || parts[2] == "" || strings.ContainsRune(parts[1]+parts[2], '/') {
		return ""
	}
	dir, ok := expandSlice(cmp.Or(parts[0], "system.slice"))
	if !ok {
		return ""
	}
	name := parts[2]
	if !strings.HasSuffix(name, ".slice") {
		if parts[1] != "" {
			name = parts[1] + "-" + name
		}
		name += ".scope"
	}
	return cleanPath(path.Join(dir, name))
}

// cleanPath is "" for one that is no container's.
func cleanPath(p string) string {
	if p == "/" || len(p) > maxPath || cut(p, maxPath) != p {
		return ""
	}
	return p
}

// expandSlice gives the directory of a systemd slice: a-b.slice is in a.slice.
func expandSlice(slice string) (string, bool) {
	name, ok := strings.CutSuffix(path.Base(slice), ".slice")
	if !ok || name == "" {
		return "", false
	}
	if name == "-" {
		return "/", true
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", false
		}
		dir = path.Join(dir, prefix+part+".slice")
		prefix += part + "-"
	}
	return dir, true
}
