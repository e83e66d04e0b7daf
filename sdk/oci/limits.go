package oci

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// limits: what a specification does not name has none.
func limits(clip *describe.Clip, s *specs.Spec) *protov1.Limits {
	l := &protov1.Limits{CpuQuotaUs: limit(nil), MemoryBytes: limit(nil), SwapBytes: limit(nil), MemoryReservationBytes: limit(nil), Pids: limit(nil)}
	if s.Linux != nil && s.Linux.Resources != nil {
		r := s.Linux.Resources
		cpu(clip, l, r.CPU)
		memory(l, r.Memory)
		if r.Pids != nil {
			l.Pids = limit(r.Pids.Limit)
		}
		if b := r.BlockIO; b != nil {
			if b.Weight != nil && *b.Weight > 0 {
				l.BlkioWeight = proto.Int64(int64(*b.Weight))
			}
			l.BlkioThrottles = throttles(clip, b)
		}
		if n := r.Network; n != nil && n.ClassID != nil && *n.ClassID > 0 {
			l.Network = &protov1.NetworkLimit{ClassId: proto.Uint32(*n.ClassID)}
		}
		unified(l, r.Unified)
	}
	if s.Process == nil {
		return l
	}
	for _, u := range s.Process.Rlimits {
		if !clip.Room("limits", len(l.Ulimits), describe.MaxUlimits) {
			break
		}
		l.Ulimits = append(l.Ulimits, &protov1.Ulimit{
			Name: clip.Text("limits", strings.ToLower(strings.TrimPrefix(describe.Cut(u.Type, describe.MaxName), "RLIMIT_"))), Soft: ulimit(u.Soft), Hard: ulimit(u.Hard),
		})
	}
	return l
}

func cpu(clip *describe.Clip, l *protov1.Limits, c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	l.CpuQuotaUs, l.Cpuset = limit(c.Quota), clip.Text("limits", c.Cpus)
	if c.Period != nil && *c.Period > 0 {
		l.CpuPeriodUs = proto.Int64(clampI64(*c.Period))
	}
	if c.Shares != nil && *c.Shares > 0 {
		l.CpuShares = proto.Int64(clampI64(*c.Shares))
	}
}

func memory(l *protov1.Limits, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	l.MemoryBytes, l.MemoryReservationBytes = limit(m.Limit), limit(m.Reservation)
	// The specification's swap is memory and swap together.
	if both := m.Swap; both != nil && *l.MemoryBytes > 0 && *both >= *l.MemoryBytes {
		l.SwapBytes = proto.Int64(*both - *l.MemoryBytes)
	}
}

// unified reads the files of cgroup v2 that a specification sets by their names; they
// win over the rest of it.
func unified(l *protov1.Limits, files map[string]string) {
	for file, into := range map[string]**int64{
		"memory.max": &l.MemoryBytes, "memory.swap.max": &l.SwapBytes, "memory.low": &l.MemoryReservationBytes, "pids.max": &l.Pids, "cpu.weight": &l.CpuWeight,
	} {
		if n, ok := bound(files[file]); ok {
			*into = &n
		}
	}
	quota, period, _ := strings.Cut(files["cpu.max"], " ")
	if n, ok := bound(quota); ok {
		l.CpuQuotaUs = &n
		if n, ok := bound(period); ok && n > 0 {
			l.CpuPeriodUs = &n
		}
	}
}

// bound reads a number as cgroup v2 writes it.
func bound(s string) (int64, bool) {
	if s == "max" {
		return -1, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0
}

// throttles puts the four lists together, by device.
func throttles(clip *describe.Clip, b *specs.LinuxBlockIO) []*protov1.BlkioThrottle {
	var out []*protov1.BlkioThrottle
	each := func(list []specs.LinuxThrottleDevice, set func(t *protov1.BlkioThrottle, rate uint64)) {
		for _, in := range list {
			device := strconv.FormatInt(in.Major, 10) + ":" + strconv.FormatInt(in.Minor, 10)
			t := describe.Throttle(clip, &out, device)
			if t == nil {
				return
			}
			set(t, in.Rate)
		}
	}
	each(b.ThrottleReadBpsDevice, func(t *protov1.BlkioThrottle, n uint64) { t.ReadBytesPerSecond = n })
	each(b.ThrottleWriteBpsDevice, func(t *protov1.BlkioThrottle, n uint64) { t.WriteBytesPerSecond = n })
	each(b.ThrottleReadIOPSDevice, func(t *protov1.BlkioThrottle, n uint64) { t.ReadsPerSecond = n })
	each(b.ThrottleWriteIOPSDevice, func(t *protov1.BlkioThrottle, n uint64) { t.WritesPerSecond = n })
	return out
}

// limit is -1 where there is none.
func limit(n *int64) *int64 {
	if n == nil || *n <= 0 {
		return proto.Int64(-1)
	}
	return proto.Int64(*n)
}

// ulimit is -1 where there is no limit.
func ulimit(n uint64) int64 {
	if n == 1<<64-1 {
		return -1
	}
	return clampI64(n)
}
