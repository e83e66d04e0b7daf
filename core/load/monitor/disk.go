package monitor

import (
	"path/filepath"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// disks reads whole disks that have a device: no partitions, and no loop, dm, md, zram,
// nbd and the like, whose bytes go through a disk as well, or through none.
// Of an NVMe disk with several paths it reads the paths, not what unites them.
//
// The figures are those of /proc/diskstats, but read for each of these disks from sysfs: a
// node may have hundreds of loop and dm devices, and whoever wants one line of diskstats
// pays for all of them.
type disks struct {
	fs  blockdevice.FS
	err error
	sys string

	scanned time.Time
	names   []string // that count
	before  map[string]blockdevice.IOStats
}

func newDisks(proc, sys string) *disks {
	fs, err := blockdevice.NewFS(proc, sys)
	return &disks{fs: fs, err: err, sys: sys, before: map[string]blockdevice.IOStats{}}
}

// known is how many figures of a disk must be there: up to the time with I/O under way.
const known = 10

// read tells what was read and written since the last reading, and the disk that had I/O
// under way for the longest time.
func (d *disks) read(out *protov1.HostLoad, now time.Time, elapsed float64) (busiest string) {
	if d.err != nil {
		return ""
	}
	if d.scanned.IsZero() || now.Sub(d.scanned) >= rescan {
		d.scan()
		d.scanned = now
	}
	var sectors uint64
	for _, name := range d.names {
		s, n, _ := d.fs.SysBlockDeviceStat(name) // an error with enough figures: of older kernels
		if n < known {
			delete(d.before, name)
			continue
		}
		b, ok := d.before[name]
		d.before[name] = s
		if !ok || elapsed <= 0 || s.ReadSectors < b.ReadSectors || s.WriteSectors < b.WriteSectors || s.IOsTotalTicks < b.IOsTotalTicks {
			continue // or it is another
		}
		sectors += s.ReadSectors - b.ReadSectors + s.WriteSectors - b.WriteSectors
		share := min(float64(s.IOsTotalTicks-b.IOsTotalTicks)/1000/elapsed, 1) // of milliseconds
		if out.DiskUtilization == nil || share > *out.DiskUtilization {
			out.DiskUtilization, busiest = &share, name
		}
	}
	if out.DiskUtilization != nil {
		out.DiskBytesPerSecond = new(float64(sectors*procfs.SectorSize) / elapsed)
	}
	return busiest
}

// scan finds out which disks count.
func (d *disks) scan() {
	d.names = d.names[:0]
	all, err := d.fs.SysBlockDevices()
	if err != nil {
		return
	}
	for _, name := range all {
		if device(filepath.Join(d.sys, "block", name)) {
			d.names = append(d.names, name)
		}
	}
}
