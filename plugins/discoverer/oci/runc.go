package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runcState is runc's state.json, as far as it is read: from runc 1.0 to 1.4 its fields
// are the same.
type runcState struct {
	PID     uint32            `json:"init_process_pid"`
	Start   uint64            `json:"init_process_start"`
	Created time.Time         `json:"created"`
	Cgroups map[string]string `json:"cgroup_paths"`
	Config  *runcConfig       `json:"config"`
}

// runcConfig is what runc made of the bundle's specification. It has not all that the
// specification says of the process: no arguments, no environment, no user.
type runcConfig struct {
	ReadOnly     bool            `json:"readonlyfs"`
	Mounts       []runcMount     `json:"mounts"`
	Hostname     string          `json:"hostname"`
	Domainname   string          `json:"domainname"`
	Namespaces   []runcNamespace `json:"namespaces"`
	Capabilities *struct {
		Bounding []string
	} `json:"capabilities"`
	Cgroups      *runcCgroup `json:"cgroups"`
	AppArmor     string      `json:"apparmor_profile"`
	ProcessLabel string      `json:"process_label"`
	Masked       []string    `json:"mask_paths"`
	Seccomp      present     `json:"seccomp"`
	Labels       []string    `json:"labels"`
}

type runcMount struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Device      string `json:"device"` // its type
	Flags       int64  `json:"flags"`
}

type runcNamespace struct {
	Type string `json:"type"`
	Path string `json:"path"`
}

// runcCgroup are the limits, which runc update changes. 0: not told.
type runcCgroup struct {
	Memory      int64                       `json:"memory"`
	Reservation int64                       `json:"memory_reservation"`
	Swap        int64                       `json:"memory_swap"`
	Shares      uint64                      `json:"cpu_shares"`
	Quota       int64                       `json:"cpu_quota"`
	Period      uint64                      `json:"cpu_period"`
	Cpus        string                      `json:"cpuset_cpus"`
	Pids        int64                       `json:"pids_limit"`
	Weight      uint16                      `json:"blkio_weight"`
	ReadBps     []specs.LinuxThrottleDevice `json:"blkio_throttle_read_bps_device"`
	WriteBps    []specs.LinuxThrottleDevice `json:"blkio_throttle_write_bps_device"`
	ReadIOPS    []specs.LinuxThrottleDevice `json:"blkio_throttle_read_iops_device"`
	WriteIOPS   []specs.LinuxThrottleDevice `json:"blkio_throttle_write_iops_device"`
	ClassID     uint32                      `json:"net_cls_classid_u"`
	Unified     map[string]string           `json:"unified"`
}

// present tells whether there is something, without keeping it.
type present bool

func (p *present) UnmarshalJSON(b []byte) error {
	*p = string(b) != "null"
	return nil
}

// readRunc reads a state.json. Where a part is of another type than it should be the
// rest is used, and the error says so.
func readRunc(raw []byte) (*state, error) {
	var s runcState
	err := json.Unmarshal(raw, &s)
	if wrong := (*json.UnmarshalTypeError)(nil); err != nil && !errors.As(err, &wrong) {
		return nil, fmt.Errorf("read %s: %w", stateFile, err)
	} else if err != nil {
		err = fmt.Errorf("read %s: %.100s is no %v, but %.100s", stateFile, wrong.Field, wrong.Type, wrong.Value)
	}
	if s.Config == nil && s.Cgroups == nil && s.PID == 0 {
		return nil, errors.Join(err, fmt.Errorf("read %s: it is the state of no runtime that is known here", stateFile))
	}
	out := &state{
		pid: s.PID, start: s.Start, created: unixNano(s.Created), cgroup: onDefault(s.Cgroups), freezer: s.Cgroups["freezer"],
		running: s.PID != 0,
	}
	if s.Config != nil {
		out.spec, out.sure = s.Config.spec(), err == nil
		if l := out.spec.Linux; l != nil {
			out.limits = l.Resources
		}
		out.bundle = out.spec.Annotations["bundle"]
		delete(out.spec.Annotations, "bundle")
	}
	return out, err
}

// spec is the specification that the configuration was made of, as far as that can be
// told. Its annotations have the bundle too, which runc adds.
func (c *runcConfig) spec() *specs.Spec {
	s := &specs.Spec{
		Hostname: c.Hostname, Domainname: c.Domainname, Annotations: map[string]string{},
		Root:    &specs.Root{Readonly: c.ReadOnly},
		Process: &specs.Process{ApparmorProfile: c.AppArmor, SelinuxLabel: c.ProcessLabel},
		Linux:   &specs.Linux{MaskedPaths: c.Masked},
	}
	for _, l := range c.Labels {
		if k, v, ok := strings.Cut(l, "="); ok {
			s.Annotations[k] = v
		}
	}
	if c.Capabilities != nil {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: c.Capabilities.Bounding}
	}
	if c.Seccomp {
		s.Linux.Seccomp = &specs.LinuxSeccomp{}
	}
	for _, m := range c.Mounts {
		out := specs.Mount{Type: m.Device, Source: m.Source, Destination: m.Destination}
		if m.Flags&unix.MS_BIND != 0 {
			out.Options = append(out.Options, "bind")
		}
		if m.Flags&unix.MS_RDONLY != 0 {
			out.Options = append(out.Options, "ro")
		}
		s.Mounts = append(s.Mounts, out)
	}
	for _, n := range c.Namespaces {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: namespaceType(n.Type), Path: n.Path})
	}
	if c.Cgroups != nil {
		s.Linux.Resources = c.Cgroups.resources()
	}
	return s
}

// namespaceType is the specification's word for runc's.
func namespaceType(s string) specs.LinuxNamespaceType {
	names := []string{"NEWNET", "NEWPID", "NEWNS", "NEWUTS", "NEWIPC", "NEWUSER", "NEWCGROUP", "NEWTIME"}
	types := []specs.LinuxNamespaceType{
		specs.NetworkNamespace, specs.PIDNamespace, specs.MountNamespace, specs.UTSNamespace, specs.IPCNamespace,
		specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace,
	}
	if i := slices.Index(names, s); i >= 0 {
		return types[i]
	}
	return specs.LinuxNamespaceType(strings.ToLower(s))
}

func (c *runcCgroup) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: told(c.Memory), Reservation: told(c.Reservation), Swap: told(c.Swap)},
		CPU:    &specs.LinuxCPU{Shares: told(c.Shares), Quota: told(c.Quota), Period: told(c.Period), Cpus: c.Cpus},
		BlockIO: &specs.LinuxBlockIO{
			Weight: told(c.Weight), ThrottleReadBpsDevice: c.ReadBps, ThrottleWriteBpsDevice: c.WriteBps,
			ThrottleReadIOPSDevice: c.ReadIOPS, ThrottleWriteIOPSDevice: c.WriteIOPS,
		},
		Network: &specs.LinuxNetwork{ClassID: told(c.ClassID)},
		Pids:    &specs.LinuxPids{Limit: told(c.Pids)},
		Unified: c.Unified,
	}
	return r
}

// told is nil for a zero, which stands for nothing.
func told[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
