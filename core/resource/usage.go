package resource

import (
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Field is one figure of what a container uses. Times are in nanoseconds. Totals are
// since the container was started.
type Field uint8

const (
	CPU              Field = iota // time used
	CPUUser                       // of it in user mode
	CPUSystem                     // of it in the kernel
	Periods                       // in which the quota was in force and tasks ran
	ThrottledPeriods              // of them those in which it was used up
	ThrottledTime                 // that tasks waited for the next period, of all CPUs together
	Quota                         // time in each period; absent: no limit
	Period                        // of the quota
	Shares                        // relative weight, as cgroup v1 has it

	Memory       // bytes charged
	WorkingSet   // of them without the file pages that have not been used for long
	MemoryLimit  // absent: no limit
	MemoryPeak   // the most that were charged
	Swap         // bytes swapped out
	OOMKills     // processes killed for want of memory
	ReadBytes    // from block devices, all of them together
	WrittenBytes // to block devices
	Reads        // operations
	Writes

	Pids      // tasks: threads count
	PidsLimit // absent: no limit

	ReceivedBytes // by sockets
	ReceivedPackets
	SentBytes
	SentPackets

	// Stalls for want of a resource: some tasks waited, or all at once, in the last ten
	// seconds on average (in hundredths of a percent) and in all.
	CPUSome10
	CPUFull10
	CPUSome
	CPUFull
	MemorySome10
	MemoryFull10
	MemorySome
	MemoryFull
	IOSome10
	IOFull10
	IOSome
	IOFull

	fields
)

// Usage is what a container used at one time. Its zero value knows nothing.
type Usage struct {
	time int64 // unix, nanoseconds; 0: never read
	has  uint64
	from origin
	v    [fields]uint64
}

// Get gives a figure; false: this host does not tell it.
func (u *Usage) Get(f Field) (uint64, bool) { return u.v[f], u.has&(1<<f) != 0 }

func (u *Usage) set(f Field, v uint64) {
	u.v[f] = v
	u.has |= 1 << f
}

func (u *Usage) drop(f Field) { u.has &^= 1 << f }

// clear forgets figures.
func (u *Usage) clear(of ...Field) {
	for _, f := range of {
		u.drop(f)
	}
}

func (u *Usage) setTraffic(t kernel.Traffic) {
	u.set(ReceivedBytes, t.ReceivedBytes)
	u.set(ReceivedPackets, t.ReceivedPackets)
	u.set(SentBytes, t.SentBytes)
	u.set(SentPackets, t.SentPackets)
}

// origin says where the figures are from.
type origin uint8

const (
	v1 origin = 1 << iota
	v2
)

func (o origin) String() string {
	switch o {
	case v1:
		return "cgroup1"
	case v2:
		return "cgroup2"
	case v1 | v2:
		return "cgroup1+2"
	}
	return ""
}

// Proto is the usage as the API tells it.
func (u *Usage) Proto() *protov1.Usage {
	out := &protov1.Usage{TimeUnixNano: u.time, Source: u.from.String()}
	for f, to := range map[Field]**float64{
		CPU: &out.CpuSeconds, CPUUser: &out.CpuUserSeconds, CPUSystem: &out.CpuSystemSeconds, ThrottledTime: &out.CpuThrottledSeconds,
	} {
		if v, ok := u.Get(f); ok {
			*to = proto.Float64(seconds(v))
		}
	}
	for f, to := range map[Field]**uint64{
		Periods: &out.CpuPeriods, ThrottledPeriods: &out.CpuThrottledPeriods,
		Memory: &out.MemoryBytes, WorkingSet: &out.MemoryWorkingSetBytes, MemoryLimit: &out.MemoryLimitBytes,
		MemoryPeak: &out.MemoryPeakBytes, Swap: &out.SwapBytes, OOMKills: &out.OomKills,
		ReadBytes: &out.ReadBytes, WrittenBytes: &out.WrittenBytes, Reads: &out.Reads, Writes: &out.Writes,
		Pids: &out.Pids, PidsLimit: &out.PidsLimit,
		ReceivedBytes: &out.ReceivedBytes, ReceivedPackets: &out.ReceivedPackets,
		SentBytes: &out.SentBytes, SentPackets: &out.SentPackets,
	} {
		if v, ok := u.Get(f); ok {
			*to = proto.Uint64(v)
		}
	}
	for _, p := range []struct {
		resource                   string
		some10, full10, some, full Field
	}{
		{"cpu", CPUSome10, CPUFull10, CPUSome, CPUFull},
		{"memory", MemorySome10, MemoryFull10, MemorySome, MemoryFull},
		{"io", IOSome10, IOFull10, IOSome, IOFull},
	} {
		if _, ok := u.Get(p.some); ok {
			out.Pressure = append(out.Pressure, &protov1.UsagePressure{
				Resource:       p.resource,
				SomeAvg10Ratio: float64(u.v[p.some10]) / 10_000, FullAvg10Ratio: float64(u.v[p.full10]) / 10_000,
				SomeSeconds: seconds(u.v[p.some]), FullSeconds: seconds(u.v[p.full]),
			})
		}
	}
	return out
}

func seconds(nano uint64) float64 { return float64(nano) / 1e9 }
