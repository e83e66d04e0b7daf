package monitor

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// host is a tree of files as a kernel shows them.
type host struct {
	t    testing.TB
	root string
}

func newHost(t testing.TB) host {
	h := host{t, t.TempDir()}
	h.write("proc/version", "") // the directories are there
	h.write("sys/kernel/notes", "")
	return h
}

func (h host) proc() string { return filepath.Join(h.root, "proc") }
func (h host) sys() string  { return filepath.Join(h.root, "sys") }

func (h host) reader() *reader { return newReader(h.proc(), h.sys()) }

func (h host) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) remove(name string) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.root, name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h host) link(name, to string) {
	h.t.Helper()
	path := filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		h.t.Fatal(err)
	}
}

// card makes an interface with a device; speed as the file has it, "": it has none.
func (h host) card(name, speed, duplex string) {
	where := "devices/pci0000:00/0000:00:03.0/net/" + name
	h.write("sys/"+where+"/ifindex", "2\n")
	h.write("sys/"+where+"/duplex", duplex+"\n")
	if speed != "" {
		h.write("sys/"+where+"/speed", speed+"\n")
	}
	h.link("sys/class/net/"+name, "../../"+where)
}

// virtual makes an interface without one; those of veth claim a speed.
func (h host) virtual(name string) {
	h.write("sys/devices/virtual/net/"+name+"/speed", "10000\n")
	h.link("sys/class/net/"+name, "../../devices/virtual/net/"+name)
}

// netDev writes the counters of interfaces, for the first process.
func (h host) netDev(of map[string]traffic) {
	h.write("proc/1/net/dev", netDev(of))
}

func netDev(of map[string]traffic) string {
	var b strings.Builder
	b.WriteString("Inter-|   Receive                                                |  Transmit\n")
	b.WriteString(" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n")
	for name, t := range of {
		fmt.Fprintf(&b, "%6s: %d 4190 0 0 0 0 0 0 %d 2207 0 0 0 0 0 0\n", name, t.received, t.sent)
	}
	return b.String()
}

// disk makes a disk or the like, as a link that points to where.
func (h host) disk(name, where string) {
	h.write("sys/devices/"+where+"/"+name+"/size", "1000\n")
	h.link("sys/block/"+name, "../devices/"+where+"/"+name)
}

// diskStat writes the counters of a disk: of sectors, and of milliseconds with I/O.
func (h host) diskStat(name, where string, read, written, busy int) {
	h.write("sys/devices/"+where+"/"+name+"/stat", fmt.Sprintf(
		"   33500     6099 %d    10245     4162    27049 %d     9170        0 %d    20034     4554       41   520800      598      311       19\n",
		read, written, busy))
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-9*max(1, math.Abs(want)) }

// told compares what may be absent; nil: it must be.
func told(t *testing.T, what string, got, want *float64) {
	t.Helper()
	switch {
	case got == nil && want == nil:
	case got == nil:
		t.Errorf("%s is not told, want %v", what, *want)
	case want == nil:
		t.Errorf("%s is %v, want that it is not told", what, *got)
	case !near(*got, *want):
		t.Errorf("%s is %v, want %v", what, *got, *want)
	}
}
