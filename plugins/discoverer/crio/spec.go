package main

import (
	"encoding/json"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// spec is what is read of an OCI runtime specification.
type spec struct {
	Hostname    string            `json:"hostname"`
	Annotations map[string]string `json:"annotations"`
	Process     struct {
		Args []string `json:"args"`
		Env  []string `json:"env"`
		User struct {
			UID uint32 `json:"uid"`
			GID uint32 `json:"gid"`
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
	Linux struct {
		CgroupsPath string          `json:"cgroupsPath"`
		Seccomp     json.RawMessage `json:"seccomp"`
		Resources   struct {
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
		} `json:"resources"`
	} `json:"linux"`
}

// readSpec completes a description with what the specification tells.
func (d *describer) readSpec(clip *describe.Clip, c *protov1.Container, raw json.RawMessage) *spec {
	s := &spec{}
	if len(raw) == 0 {
		return s
	}
	if err := json.Unmarshal(raw, s); err != nil {
		d.unread.Add(1)
	}
	c.Args = clip.Words("args", s.Process.Args)
	c.Env = s.Process.Env
	if h := s.Hostname; h != "" {
		c.Hostname = clip.Text("hostname", h)
	}
	c.Security = d.security(clip, s)
	told := c.Limits
	c.Limits = specLimits(clip, s)
	if told != nil {
		put(c.Limits.ProtoReflect(), told.ProtoReflect())
	}
	c.CgroupPath, c.CgroupId = d.cgroup(s.Linux.CgroupsPath)
	return s
}

func (d *describer) security(clip *describe.Clip, s *spec) *protov1.Security {
	out := &protov1.Security{
		User:    strconv.FormatUint(uint64(s.Process.User.UID), 10) + ":" + strconv.FormatUint(uint64(s.Process.User.GID), 10),
		Seccomp: "unconfined", Apparmor: clip.Text("security", s.Process.AppArmor), Selinux: clip.Text("security", s.Process.SELinux),
		ReadOnlyRoot: proto.Bool(s.Root.ReadOnly),
	}
	if len(s.Linux.Seccomp) > 0 && string(s.Linux.Seccomp) != "null" {
		out.Seccomp = "filtered"
	}
	return out
}

func specLimits(clip *describe.Clip, s *spec) *protov1.Limits {
	r := s.Linux.Resources
	l := &protov1.Limits{CpuQuotaUs: limitOf(r.CPU.Quota), Cpuset: clip.Text("limits", r.CPU.Cpus), MemoryBytes: limitOf(r.Memory.Limit),
		MemoryReservationBytes: limitOf(r.Memory.Reservation), SwapBytes: limit(0), Pids: limitOf(r.Pids.Limit)}
	if p := r.CPU.Period; p != nil && *p > 0 {
		l.CpuPeriodUs = proto.Int64(int64(min(*p, 1<<62)))
	}
	if n := r.CPU.Shares; n != nil && *n > 0 {
		l.CpuShares = proto.Int64(int64(min(*n, 1<<62)))
	}
	if m, all := r.Memory.Limit, r.Memory.Swap; m != nil && all != nil && *m > 0 && *all >= *m {
		l.SwapBytes = proto.Int64(*all - *m)
	}
	for _, u := range s.Process.Rlimits {
		if clip.Room("limits", len(l.Ulimits), describe.MaxUlimits) {
			l.Ulimits = append(l.Ulimits, &protov1.Ulimit{Name: clip.Text("limits", strings.ToLower(strings.TrimPrefix(u.Type, "RLIMIT_"))),
				Soft: int64(min(u.Soft, 1<<62)), Hard: int64(min(u.Hard, 1<<62))})
		}
	}
	return l
}

func limitOf(n *int64) *int64 {
	if n == nil {
		return limit(0)
	}
	return limit(*n)
}

// cgroup gives the path of a container on the default hierarchy and the cgroup's id, if
// it is there: it may not be made yet, and a runtime that itself runs in a container has
// its cgroups elsewhere.
func (d *describer) cgroup(specified string) (string, uint64) {
	p := cgroupPath(specified)
	if p == "" || len(p) > describe.MaxName || d.root == "" {
		return "", 0
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(d.root, p), &st); err != nil {
		return "", 0
	}
	return p, st.Ino
}

// cgroupPath gives the path that a low-level runtime makes of the one in a
// specification: itself, or with systemd slice:prefix:name.
func cgroupPath(s string) string {
	if path.IsAbs(s) {
		return path.Clean(s)
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return ""
	}
	dir, ok := describe.ExpandSlice(parts[0])
	if !ok || strings.ContainsRune(parts[1]+parts[2], '/') || parts[2] == "" {
		return ""
	}
	name := parts[2]
	if parts[1] != "" {
		name = parts[1] + "-" + name
	}
	return path.Join(dir, name+".scope")
}
