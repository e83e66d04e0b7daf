package resource

// file is a file of a control group and what is read from it.
type file struct {
	controller controller
	name       string
	seldom     bool // it changes only when somebody changes a limit
	parse      func([]byte, *Usage)
}

// files1 and files2 are what is read, in this order: the working set wants to know the
// usage.
var (
	files1 = []file{
		{cpuacct, "cpuacct.usage", false, one(CPU)},
		{cpuacct, "cpuacct.stat", false, cpuTicks},
		{cpu, "cpu.stat", false, throttling1},
		{cpu, "cpu.cfs_quota_us", true, oneOf(Quota, 1000)},
		{cpu, "cpu.cfs_period_us", true, oneOf(Period, 1000)},
		{cpu, "cpu.shares", true, one(Shares)},
		{memory, "memory.usage_in_bytes", false, one(Memory)},
		{memory, "memory.stat", false, memoryStat1},
		{memory, "memory.max_usage_in_bytes", false, one(MemoryPeak)},
		{memory, "memory.oom_control", false, oomKills},
		{memory, "memory.limit_in_bytes", true, memoryLimit1},
		{blkio, "blkio.throttle.io_service_bytes_recursive", false, devices(ReadBytes, WrittenBytes)},
		{blkio, "blkio.throttle.io_serviced_recursive", false, devices(Reads, Writes)},
		{pids, "pids.current", false, one(Pids)},
		{pids, "pids.max", true, one(PidsLimit)},
	}
	files2 = []file{
		{cpuacct, "cpu.stat", false, cpuStat2},
		{cpu, "cpu.max", true, quota2},
		{cpu, "cpu.weight", true, weight2},
		{memory, "memory.current", false, one(Memory)},
		{memory, "memory.stat", false, memoryStat2},
		{memory, "memory.peak", false, one(MemoryPeak)}, // from 5.19 on
		{memory, "memory.swap.current", false, one(Swap)},
		{memory, "memory.events", false, oomKills},
		{memory, "memory.max", true, one(MemoryLimit)},
		{blkio, "io.stat", false, ioStat2},
		{pids, "pids.current", false, one(Pids)},
		{pids, "pids.max", true, one(PidsLimit)},
		{psi, "cpu.pressure", false, pressure(CPUSome10, CPUFull10, CPUSome, CPUFull)},
		{psi, "memory.pressure", false, pressure(MemorySome10, MemoryFull10, MemorySome, MemoryFull)},
		{psi, "io.pressure", false, pressure(IOSome10, IOFull10, IOSome, IOFull)},
	}
)

const (
	// ofNetwork are the figures that are from no file.
	ofNetwork = 1<<ReceivedBytes | 1<<ReceivedPackets | 1<<SentBytes | 1<<SentPackets
	// kept are those that stay from one reading to the next: also those of the files
	// that are seldom read.
	kept = ofNetwork | 1<<Quota | 1<<Period | 1<<Shares | 1<<MemoryLimit | 1<<PidsLimit
)
