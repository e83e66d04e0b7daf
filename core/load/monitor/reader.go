package monitor

import (
	"math"
	"runtime"
	"time"

	"github.com/prometheus/procfs"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// rescan is how often it is looked for interfaces and disks that came or went.
const rescan = 10 * time.Second

// reader makes rates of what the kernel counts. What can't be read is left out.
type reader struct {
	fs      procfs.FS
	err     error
	network *network
	disks   *disks

	last  time.Time
	total procfs.CPUStat
	own   float64 // CPU seconds; NaN: not known
}

// names are what the resources of which there are several are called, of each the
// busiest.
type names [Resources]string

func newReader(proc, sys string) *reader {
	fs, err := procfs.NewFS(proc)
	return &reader{fs: fs, err: err, own: math.NaN(), network: newNetwork(proc, sys), disks: newDisks(proc, sys)}
}

func (r *reader) read(now time.Time) (*protov1.HostLoad, names) {
	out, busiest := &protov1.HostLoad{Cpus: uint32(runtime.NumCPU())}, names{}
	if r.err != nil {
		return out, busiest
	}
	var elapsed float64 // 0: there is nothing to compare with
	if !r.last.IsZero() {
		elapsed = now.Sub(r.last).Seconds()
	}
	r.cpu(out)
	r.daemon(out, elapsed)
	if m, err := r.fs.Meminfo(); err == nil {
		out.MemoryTotalBytes = bytesOf(m.MemTotalBytes)
		out.MemoryAvailableBytes = bytesOf(m.MemAvailableBytes)
	}
	out.PressureCpu = r.pressure("cpu")
	out.PressureMemory = r.pressure("memory")
	out.PressureIo = r.pressure("io")
	busiest[Network] = r.network.read(out, now, elapsed)
	busiest[Disk] = r.disks.read(out, now, elapsed)
	r.last = now
	return out, busiest
}

// cpu tells the share of time that was not idle. Time that a hypervisor took for others
// was not idle either.
func (r *reader) cpu(out *protov1.HostLoad) {
	stat, err := r.fs.Stat()
	if err != nil {
		r.total = procfs.CPUStat{}
		return
	}
	if n := len(stat.CPU); n > 0 {
		out.Cpus = uint32(n) // of the host, whatever the daemon may run on
	}
	busy, all := used(stat.CPUTotal), sum(stat.CPUTotal)
	if before := sum(r.total); before > 0 && all > before {
		// The kernel's idle time may step back by a tick.
		out.CpuUtilization = new(min(max((busy-used(r.total))/(all-before), 0), 1))
	}
	r.total = stat.CPUTotal
}

func (r *reader) daemon(out *protov1.HostLoad, elapsed float64) {
	before := r.own
	r.own = math.NaN()
	self, err := r.fs.Self()
	if err != nil {
		return
	}
	stat, err := self.Stat()
	if err != nil {
		return
	}
	r.own = stat.CPUTime()
	if elapsed > 0 && !math.IsNaN(before) {
		out.DaemonCpuCores = new(max(r.own-before, 0) / elapsed)
	}
	out.DaemonMemoryBytes = uint64(stat.ResidentMemory())
}

// pressure is absent where the kernel keeps no PSI.
func (r *reader) pressure(resource string) *protov1.Pressure {
	p, err := r.fs.PSIStatsForResource(resource)
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
