package load

import (
	"runtime"
	"time"

	"github.com/prometheus/procfs"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// host reads how busy the machine and the daemon are. Rates are over the time
// between two readings; what can't be read is left out.
type host struct {
	fs    procfs.FS
	err   error
	last  time.Time
	total procfs.CPUStat
	own   float64 // CPU seconds
}

func newHost() *host {
	fs, err := procfs.NewDefaultFS()
	h := &host{fs: fs, err: err}
	return h
}

func (h *host) load(now time.Time) *protov1.HostLoad {
	out := &protov1.HostLoad{Cpus: uint32(runtime.NumCPU())}
	if h.err != nil {
		return out
	}
	elapsed := now.Sub(h.last).Seconds()
	if stat, err := h.fs.Stat(); err == nil {
		busy, all := used(stat.CPUTotal), sum(stat.CPUTotal)
		if before := sum(h.total); !h.last.IsZero() && all > before {
			// The kernel's idle time may step back by a tick.
			share := min(max((busy-used(h.total))/(all-before), 0), 1)
			out.CpuUtilization = &share
		}
		h.total = stat.CPUTotal
	}
	if self, err := h.fs.Self(); err == nil {
		if stat, err := self.Stat(); err == nil {
			if cpu := stat.CPUTime(); !h.last.IsZero() && elapsed > 0 {
				cores := (cpu - h.own) / elapsed
				out.DaemonCpuCores = &cores
				h.own = cpu
			} else {
				h.own = cpu
			}
			out.DaemonMemoryBytes = uint64(stat.ResidentMemory())
		}
	}
	if m, err := h.fs.Meminfo(); err == nil {
		out.MemoryTotalBytes = bytesOf(m.MemTotalBytes)
		out.MemoryAvailableBytes = bytesOf(m.MemAvailableBytes)
	}
	out.PressureCpu = h.pressure("cpu")
	out.PressureMemory = h.pressure("memory")
	out.PressureIo = h.pressure("io")
	h.last = now
	return out
}

// pressure is absent where the kernel keeps no PSI.
func (h *host) pressure(resource string) *protov1.Pressure {
	p, err := h.fs.PSIStatsForResource(resource)
	if err != nil || p.Some == nil {
		return nil
	}
	return &protov1.Pressure{Some: p.Some.Avg10 / 100}
}

func bytesOf(v *uint64) uint64 {
	if v == nil {
		return 0
	}
	return *v
}

func used(c procfs.CPUStat) float64 {
	return c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
}

func sum(c procfs.CPUStat) float64 { return used(c) + c.Idle + c.Iowait }
