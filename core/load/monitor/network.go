package monitor

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/sysfs"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// network reads the interfaces through which the host talks to others.
//
// An interface counts if a device stands behind it: a card of the machine or of the
// hypervisor. lo, veth, bridges, bonds, VLANs, tunnels, tap and the like don't: their
// bytes never leave the host, or go through one that counts and would be counted twice.
// Nor does one whose master has a device of its own, such as the virtual function under
// an interface of Hyper-V, which counts for both. Where no interface has a device (the
// host is itself a container), those of the default route count, and their speed is not
// taken from anywhere: a veth claims one that it doesn't have.
//
// The interfaces are those of the first process, so that a daemon in a container that
// sees the host's processes tells of the host's network whatever network it has itself.
type network struct {
	views []procfs.FS // of the network, the best first
	sysfs *sysfs.FS   // nil: there is none
	path  string      // of the interfaces in sysfs

	scanned time.Time
	links   map[string]link // that count
	before  map[string]traffic
}

// link is how fast an interface is.
type link struct {
	speed float64 // bytes a second; 0: not told
	half  bool    // both directions share it
}

type traffic struct{ received, sent uint64 } // bytes

func newNetwork(proc, sys string) *network {
	n := &network{path: filepath.Join(sys, "class/net"), before: map[string]traffic{}}
	for _, path := range []string{filepath.Join(proc, "1"), proc} {
		if fs, err := procfs.NewFS(path); err == nil {
			n.views = append(n.views, fs)
		}
	}
	if fs, err := sysfs.NewFS(sys); err == nil {
		n.sysfs = &fs
	}
	return n
}

// read tells what went through since the last reading, and the name of the interface
// that is busiest, measured by its speed.
func (n *network) read(out *protov1.HostLoad, now time.Time, elapsed float64) (busiest string) {
	fs, all := n.devices()
	if n.scanned.IsZero() || now.Sub(n.scanned) >= rescan {
		n.scan(fs, all)
		n.scanned = now
	}
	var bytes uint64
	var counted bool
	for name, l := range n.links {
		d, ok := all[name]
		if !ok {
			delete(n.before, name)
			continue
		}
		b, ok := n.before[name]
		n.before[name] = traffic{d.RxBytes, d.TxBytes}
		if !ok || elapsed <= 0 || d.RxBytes < b.received || d.TxBytes < b.sent { // or it is another
			continue
		}
		received, sent := d.RxBytes-b.received, d.TxBytes-b.sent
		bytes, counted = bytes+received+sent, true
		if l.speed == 0 {
			continue
		}
		most := max(received, sent)
		if l.half {
			most = received + sent
		}
		share := min(float64(most)/elapsed/l.speed, 1)
		if out.NetworkUtilization == nil || share > *out.NetworkUtilization {
			out.NetworkUtilization, busiest = &share, name
		}
	}
	if counted {
		out.NetworkBytesPerSecond = new(float64(bytes) / elapsed)
	}
	return busiest
}

// devices reads the counters of all interfaces, nil when they can't be read.
func (n *network) devices() (procfs.FS, procfs.NetDev) {
	for _, fs := range n.views {
		if all, err := fs.NetDev(); err == nil {
			return fs, all
		}
	}
	return procfs.FS{}, nil
}

// scan finds out which interfaces count. It does so now and then only, for a driver may
// take its time to tell its speed.
func (n *network) scan(fs procfs.FS, all procfs.NetDev) {
	n.links = map[string]link{}
	for name := range all {
		path := filepath.Join(n.path, name)
		if !device(path) {
			continue
		}
		if master, err := os.Readlink(filepath.Join(path, "master")); err == nil && device(filepath.Join(n.path, filepath.Base(master))) {
			continue
		}
		n.links[name] = n.link(path)
	}
	if len(n.links) == 0 && all != nil {
		if routes, err := fs.NetRoute(); err == nil {
			for _, r := range routes {
				if _, ok := all[r.Iface]; ok && r.Destination == 0 && r.Mask == 0 {
					n.links[r.Iface] = link{}
				}
			}
		}
	}
	for name := range n.before {
		if _, ok := n.links[name]; !ok {
			delete(n.before, name)
		}
	}
}

// link reads the speed of an interface, which a driver tells as -1 or not at all when it
// has none or is down.
func (n *network) link(path string) link {
	var i sysfs.NetClassIface
	if n.sysfs == nil ||
		sysfs.ParseNetClassAttribute(path, "speed", &i) != nil || i.Speed == nil || *i.Speed <= 0 ||
		sysfs.ParseNetClassAttribute(path, "duplex", &i) != nil {
		return link{}
	}
	const megabit = 1e6 / 8 // bytes
	return link{speed: float64(*i.Speed) * megabit, half: i.Duplex == "half"}
}

// device tells whether the link of an interface or a disk in sysfs leads to a device, not
// to something that the kernel made up.
func device(path string) bool {
	to, err := os.Readlink(path)
	return err == nil && !strings.Contains(to, "/devices/virtual/")
}
