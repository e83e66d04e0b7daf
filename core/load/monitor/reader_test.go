package monitor

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// selfStat is the daemon's /proc/PID/stat.
func selfStat(user, system, pages int) string {
	return fmt.Sprintf("4242 (ebpf-tracer) S 1 4242 4242 0 -1 4194560 1 0 0 0 %d %d 0 0 20 0 9 0 100 1000000 %d 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
		user, system, pages)
}

func pressureFile(some string) string {
	return "some avg10=" + some + " avg60=1.00 avg300=2.00 total=49623945\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
}

const (
	pci     = "pci0000:00/0000:00:02.0/block"
	virtual = "virtual/block"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// busyHost has two CPUs, two cards and two disks, and what must not be counted twice. It
// is as it was at the start; half a second later it is as later makes it.
func busyHost(t testing.TB) host {
	h := newHost(t)
	h.write("proc/stat", "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 50 0 25 400 25 0 0 0 0 0\ncpu1 50 0 25 400 25 0 0 0 0 0\nintr 7 1 2\nctxt 1\nbtime 1\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n")
	h.link("proc/self", "4242")
	h.write("proc/4242/stat", selfStat(100, 50, 2560))
	h.write("proc/meminfo", "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n")
	h.write("proc/pressure/cpu", pressureFile("12.50"))
	h.write("proc/pressure/memory", pressureFile("0.25"))
	h.write("proc/pressure/io", pressureFile("41.00"))
	h.card("eth0", "1000", "full") // 125,000,000 bytes a second, each way
	h.card("eth1", "100", "half")  // 12,500,000 in all
	h.card("enP1", "50000", "full")
	h.virtual("lo")
	h.virtual("bond0")
	h.virtual("docker0")
	h.virtual("veth1234")
	h.link("sys/devices/pci0000:00/0000:00:03.0/net/eth0/master", "../../../../virtual/net/bond0")
	h.link("sys/devices/pci0000:00/0000:00:03.0/net/enP1/master", "../eth1") // as on Hyper-V
	h.netDev(map[string]traffic{
		"lo": {1, 1}, "bond0": {1, 1}, "docker0": {1, 1}, "veth1234": {1, 1},
		"eth0": {1_000_000_000, 500_000_000}, "eth1": {7, 8}, "enP1": {7, 8},
	})
	h.disk("sda", pci)
	h.disk("nvme0c0n1", pci) // a path of nvme0n1
	h.disk("nvme0n1", "virtual/nvme-subsystem/nvme-subsys0")
	h.disk("loop0", virtual)
	h.disk("dm-0", virtual)
	h.disk("zram0", virtual)
	h.diskStat("sda", pci, 10_000, 20_000, 7_000)
	h.diskStat("nvme0c0n1", pci, 0, 0, 0)
	h.diskStat("nvme0n1", "virtual/nvme-subsystem/nvme-subsys0", 0, 0, 0)
	for _, name := range []string{"loop0", "dm-0", "zram0"} {
		h.diskStat(name, virtual, 0, 0, 0)
	}
	return h
}

func (h host) later() {
	// User, system and stolen time 40 ticks, idle and waiting 60.
	h.write("proc/stat", "cpu  120 0 60 850 60 0 0 10 0 0\ncpu0 60 0 30 425 30 0 0 5 0 0\ncpu1 60 0 30 425 30 0 0 5 0 0\n")
	h.write("proc/4242/stat", selfStat(115, 60, 5120)) // 25 ticks: a quarter of a second
	h.netDev(map[string]traffic{
		"lo": {1e12, 1e12}, "bond0": {1e12, 1e12}, "docker0": {1e12, 1e12}, "veth1234": {1e12, 1e12},
		"eth0": {1_025_000_000, 505_000_000}, "eth1": {1_000_007, 2_000_008}, "enP1": {1_000_007, 2_000_008},
	})
	h.diskStat("sda", pci, 11_000, 23_000, 7_200)
	h.diskStat("nvme0c0n1", pci, 2_000, 0, 450)
	h.diskStat("nvme0n1", "virtual/nvme-subsystem/nvme-subsys0", 2_000, 0, 450)
	for _, name := range []string{"loop0", "dm-0", "zram0"} {
		h.diskStat(name, virtual, 1_000_000, 1_000_000, 500)
	}
}

func TestAReadingTellsWhatTheFilesSay(t *testing.T) {
	h := busyHost(t)
	r := h.reader()
	first, _ := r.read(start)
	told(t, "CPU utilization at first", first.CpuUtilization, nil)
	told(t, "daemon CPU at first", first.DaemonCpuCores, nil)
	told(t, "network rate at first", first.NetworkBytesPerSecond, nil)
	told(t, "network utilization at first", first.NetworkUtilization, nil)
	told(t, "disk rate at first", first.DiskBytesPerSecond, nil)
	told(t, "disk utilization at first", first.DiskUtilization, nil)

	h.later()
	got, busiest := r.read(start.Add(500 * time.Millisecond))
	told(t, "CPU utilization", got.CpuUtilization, new(0.4))
	told(t, "daemon CPU", got.DaemonCpuCores, new(0.5))
	// (25 + 5) MB of eth0 and (1 + 2) MB of eth1, in half a second.
	told(t, "network rate", got.NetworkBytesPerSecond, new(66e6))
	// eth0: 25 MB received of 62.5; eth1: 3 MB both ways of 6.25.
	told(t, "network utilization", got.NetworkUtilization, new(0.48))
	// (1,000 + 3,000 + 2,000) sectors of 512 bytes, in half a second.
	told(t, "disk rate", got.DiskBytesPerSecond, new(6_144_000.0))
	told(t, "disk utilization", got.DiskUtilization, new(0.9))
	if busiest[Network] != "eth1" || busiest[Disk] != "nvme0c0n1" {
		t.Errorf("busiest are %q and %q", busiest[Network], busiest[Disk])
	}
	if got.Cpus != 2 || got.MemoryTotalBytes != 8_192_000_000 || got.MemoryAvailableBytes != 2_048_000_000 {
		t.Errorf("%d CPUs, %d bytes of which %d are available", got.Cpus, got.MemoryTotalBytes, got.MemoryAvailableBytes)
	}
	if want := uint64(5120 * os.Getpagesize()); got.DaemonMemoryBytes != want {
		t.Errorf("daemon memory is %d, want %d", got.DaemonMemoryBytes, want)
	}
	told(t, "CPU pressure", &got.PressureCpu.Some, new(0.125))
	told(t, "memory pressure", &got.PressureMemory.Some, new(0.0025))
	told(t, "I/O pressure", &got.PressureIo.Some, new(0.41))
}

func TestWhatCantBeReadIsLeftOut(t *testing.T) {
	h := newHost(t)
	r := h.reader()
	r.read(start)
	got, _ := r.read(start.Add(time.Second))
	told(t, "CPU utilization", got.CpuUtilization, nil)
	told(t, "daemon CPU", got.DaemonCpuCores, nil)
	told(t, "network rate", got.NetworkBytesPerSecond, nil)
	told(t, "disk rate", got.DiskBytesPerSecond, nil)
	if got.PressureCpu != nil || got.PressureMemory != nil || got.PressureIo != nil || got.MemoryTotalBytes != 0 || got.Cpus == 0 {
		t.Errorf("%v", got)
	}
	r = newReader(h.root+"/nowhere", h.root+"/nowhere")
	r.read(start)
	if got, _ := r.read(start.Add(time.Second)); got.Cpus == 0 || got.CpuUtilization != nil {
		t.Errorf("without /proc: %v", got)
	}
}

func TestAFigureThatWasMissedHasNoRateUntilItHasTwoReadings(t *testing.T) {
	h := busyHost(t)
	r := h.reader()
	r.read(start)
	h.later()
	for _, name := range []string{"proc/stat", "proc/self", "proc/1/net/dev", "sys/devices/" + pci + "/sda/stat", "sys/devices/" + pci + "/nvme0c0n1/stat"} {
		h.remove(name)
	}
	none := func(when string, at time.Duration) {
		t.Helper()
		got, _ := r.read(start.Add(at))
		told(t, "CPU utilization "+when, got.CpuUtilization, nil)
		told(t, "daemon CPU "+when, got.DaemonCpuCores, nil)
		told(t, "network rate "+when, got.NetworkBytesPerSecond, nil)
		told(t, "disk rate "+when, got.DiskBytesPerSecond, nil)
	}
	none("without files", time.Second)
	h.write("proc/stat", "cpu  100 0 50 800 50 0 0 0 0 0\n")
	h.link("proc/self", "4242")
	h.netDev(map[string]traffic{"eth0": {5, 5}})
	h.diskStat("sda", pci, 1, 1, 1)
	none("when they are back", 2*time.Second)
	h.later()
	got, _ := r.read(start.Add(3 * time.Second))
	if got.CpuUtilization == nil || got.DaemonCpuCores == nil || got.NetworkBytesPerSecond == nil || got.DiskBytesPerSecond == nil {
		t.Errorf("after two readings: %v", got)
	}
}

func TestCountersThatGoBackAreOfAnotherDevice(t *testing.T) {
	h := busyHost(t)
	r := h.reader()
	r.read(start)
	h.later()
	h.netDev(map[string]traffic{"eth0": {5, 5}, "eth1": {500_007, 8}})
	h.diskStat("sda", pci, 5, 5, 5)
	got, busiest := r.read(start.Add(500 * time.Millisecond))
	told(t, "network rate", got.NetworkBytesPerSecond, new(1e6))     // of eth1
	told(t, "disk rate", got.DiskBytesPerSecond, new(2_000*512*2.0)) // of the NVMe disk
	told(t, "network utilization", got.NetworkUtilization, new(500_000/6_250_000.0))
	if busiest[Network] != "eth1" {
		t.Errorf("busiest is %q", busiest[Network])
	}
	told(t, "disk utilization", got.DiskUtilization, new(0.9))
}

func TestALinkWithoutASpeedHasARateButNoUtilization(t *testing.T) {
	for name, speed := range map[string]string{"virtio": "-1", "no file": "", "down": "0", "strange": "fast"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.card("eth0", speed, "full")
			h.netDev(map[string]traffic{"eth0": {0, 0}})
			r := h.reader()
			r.read(start)
			h.netDev(map[string]traffic{"eth0": {400, 100}})
			got, busiest := r.read(start.Add(250 * time.Millisecond))
			told(t, "network rate", got.NetworkBytesPerSecond, new(2000.0))
			told(t, "network utilization", got.NetworkUtilization, nil)
			if busiest[Network] != "" {
				t.Errorf("busiest is %q", busiest[Network])
			}
		})
	}
}

func TestAHostWithoutACardTellsOfItsDefaultRoute(t *testing.T) {
	h := newHost(t)
	h.virtual("lo")
	h.virtual("eth0") // a veth
	h.virtual("veth1")
	h.write("proc/1/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"+
		"eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"+
		"veth1\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n")
	h.netDev(map[string]traffic{"lo": {0, 0}, "eth0": {0, 0}, "veth1": {0, 0}})
	r := h.reader()
	r.read(start)
	h.netDev(map[string]traffic{"lo": {999, 999}, "eth0": {700, 300}, "veth1": {999, 999}})
	got, _ := r.read(start.Add(500 * time.Millisecond))
	told(t, "network rate", got.NetworkBytesPerSecond, new(2000.0))
	told(t, "network utilization", got.NetworkUtilization, nil) // what a veth claims is not so
}

func TestWhereTheFirstProcessCantBeReadTheOwnNetworkIs(t *testing.T) {
	h := newHost(t)
	h.card("eth0", "1000", "full")
	h.write("proc/net/dev", netDev(map[string]traffic{"eth0": {0, 0}}))
	r := h.reader()
	r.read(start)
	h.write("proc/net/dev", netDev(map[string]traffic{"eth0": {12_500_000, 1}}))
	got, _ := r.read(start.Add(time.Second))
	told(t, "network rate", got.NetworkBytesPerSecond, new(12_500_001.0))
	told(t, "network utilization", got.NetworkUtilization, new(0.1))
}

func TestDevicesThatComeAreFoundAndHaveARateFromTheirSecondReadingOn(t *testing.T) {
	h := newHost(t)
	h.netDev(nil)
	r := h.reader()
	r.read(start)
	h.card("eth0", "1000", "full")
	h.netDev(map[string]traffic{"eth0": {1_000_000, 0}})
	h.disk("sda", pci)
	h.diskStat("sda", pci, 1_000_000, 0, 0)
	got, _ := r.read(start.Add(rescan))
	told(t, "network rate at first", got.NetworkBytesPerSecond, nil)
	told(t, "disk rate at first", got.DiskBytesPerSecond, nil)
	h.netDev(map[string]traffic{"eth0": {1_000_500, 0}})
	h.diskStat("sda", pci, 1_000_002, 0, 250)
	got, _ = r.read(start.Add(rescan + time.Second))
	told(t, "network rate", got.NetworkBytesPerSecond, new(500.0))
	told(t, "disk rate", got.DiskBytesPerSecond, new(1024.0))
	told(t, "disk utilization", got.DiskUtilization, new(0.25))
}

func TestADiskOfAnOldKernelIsRead(t *testing.T) {
	h := newHost(t)
	h.disk("sda", pci)
	stat := func(sectors, busy int) { // before 4.18 there were 11 figures
		h.write("sys/devices/"+pci+"/sda/stat", fmt.Sprintf("33500 6099 %d 10245 4162 27049 0 9170 0 %d 20034\n", sectors, busy))
	}
	stat(0, 0)
	r := h.reader()
	r.read(start)
	stat(10, 300)
	got, _ := r.read(start.Add(time.Second))
	told(t, "disk rate", got.DiskBytesPerSecond, new(5120.0))
	told(t, "disk utilization", got.DiskUtilization, new(0.3))
}

func TestUtilizationIsNeverMoreThanWhole(t *testing.T) {
	h := busyHost(t)
	r := h.reader()
	r.read(start)
	h.later()
	got, _ := r.read(start.Add(10 * time.Millisecond)) // more than could have been
	told(t, "network utilization", got.NetworkUtilization, new(1.0))
	told(t, "disk utilization", got.DiskUtilization, new(1.0))
}
