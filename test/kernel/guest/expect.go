package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// An expectation is one sentence about what was done: exactly one event of the
// kind matches, and each part of it is as the doer knows it.
type expectation struct {
	sentence string
	needs    string // the program that tells it
	kind     event.Kind
	match    func(*event.Event) bool
	parts    func(*event.Event) []part
}

// part is one thing that an event says. got and want are comparable.
type part struct {
	name      string
	got, want any
}

// met tells whether the expectation is, and if not, in what.
func (x expectation) met(events []event.Event) (bool, string) {
	var found []*event.Event
	for i := range events {
		if e := &events[i]; e.Kind == x.kind && x.match(e) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return false, fmt.Sprintf("%d such events", len(found))
	}
	var wrong []string
	for _, p := range x.parts(found[0]) {
		if p.got != p.want {
			wrong = append(wrong, fmt.Sprintf("%s is %v, not %v", p.name, p.got, p.want))
		}
	}
	return len(wrong) == 0, strings.Join(wrong, "; ")
}

// judge prints a line for each expectation and gives how many are not met.
func judge(out io.Writer, expected []expectation, events []event.Event) (wrong int) {
	for _, x := range expected {
		if ok, why := x.met(events); ok {
			fmt.Fprintf(out, "ok    %s\n", x.sentence)
		} else {
			wrong++
			fmt.Fprintf(out, "FAIL  %s: %s\n", x.sentence, why)
		}
	}
	return wrong
}

// expectations are what must have been told of the deeds.
func expectations(d *deeds) []expectation {
	all := append(cgroupExpectations(d), processExpectations(d)...)
	for _, c := range d.connections {
		all = append(all, connectionExpectations(d, c)...)
	}
	for _, r := range d.refusals {
		all = append(all, refusalExpectation(d, r))
	}
	return append(all, openExpectations(d)...)
}

func cgroupExpectations(d *deeds) []expectation {
	ours := func(e *event.Event) bool { return e.CgroupID == d.cgroup.id }
	path := func(e *event.Event) []part {
		return []part{{"path's last element", string(e.Cgroup.Path[bytes.LastIndexByte(e.Cgroup.Path, '/')+1:]), d.cgroup.name}}
	}
	return []expectation{
		{"a cgroup is told with id and path when it is made", "cgroup_create", event.CgroupCreate, ours, path},
		{"and when it is removed", "cgroup_remove", event.CgroupRemove, ours, path},
	}
}

// of matches the events of a process, by the pid that this program knows it by.
func (d *deeds) of(p process) func(*event.Event) bool {
	return func(e *event.Event) bool { return e.NSPID == p.pid && e.PIDNS == d.pidns }
}

// initialPIDNS is the inode of the host's pid namespace (PROC_PID_INIT_INO).
const initialPIDNS = 0xEFFFFFFC

// host is a pid that the host knows a process by. In a container it can't be
// known what it must be, other than another one.
func (d *deeds) host(name string, got uint32, p process) part {
	if d.pidns == initialPIDNS {
		return part{name, got, p.pid}
	}
	return part{name + " is told", got != 0, true}
}

// owner is what every event of a process in the cgroup says.
func (d *deeds) owner(e *event.Event, p process, more ...part) []part {
	return append([]part{
		{"cgroup id", e.CgroupID, d.cgroup.id},
		d.host("pid", e.PID, p),
		{"uid", e.UID, uint32(0)},
		{"pid namespace", e.PIDNS, d.pidns},
		{"mount namespace", e.MountNS, d.mntns},
		{"network namespace", e.NetNS, d.netns},
	}, more...)
}

func processExpectations(d *deeds) []expectation {
	exit := func(p process, priority event.Priority, code, signal uint32) func(*event.Event) []part {
		return func(e *event.Event) []part {
			return d.owner(e, p,
				part{"priority", e.Priority, priority},
				part{"code", e.Exit.Code, code},
				part{"signal", e.Exit.Signal, signal},
				part{"duration is sane", e.Exit.DurationNS > 0 && e.Exit.DurationNS < 1e11, true})
		}
	}
	return []expectation{
		{"a fork is told with child and parent", "process_fork", event.ProcessFork, d.of(d.exit),
			func(e *event.Event) []part {
				return d.owner(e, d.exit,
					d.host("parent", e.ParentPID, d.spawn),
					part{"parent's pid in its namespace", e.Fork.ParentNSPID, d.spawn.pid})
			}},
		{"an exec is told with path and arguments", "process_exec", event.ProcessExec, d.of(d.exit),
			func(e *event.Event) []part {
				return d.owner(e, d.exit,
					d.host("parent", e.ParentPID, d.spawn),
					part{"path", string(e.Exec.Path), d.exe},
					part{"arguments", string(e.Exec.Args), strings.Join(d.exit.args, "\x00") + "\x00"},
					part{"flags", e.Flags, event.Flags(0)})
			}},
		{"an exit is told once, with its code", d.exitProgram, event.ProcessExit, d.of(d.exit), exit(d.exit, event.Error, 7, 0)},
		{"an exit by a signal is told once, with the signal", d.exitProgram, event.ProcessExit, d.of(d.kill), exit(d.kill, event.Critical, 0, uint32(unix.SIGKILL))},
		{"an exit of a process of many threads is told once", d.exitProgram, event.ProcessExit, d.of(d.spawn), exit(d.spawn, event.Info, 0, 0)},
	}
}

func connectionExpectations(d *deeds, c connection) []expectation {
	family := "IPv4"
	if c.serverAddr.Addr().Is6() {
		family = "IPv6"
	}
	// from is what an event says of the socket at one end.
	from := func(e *event.Event, p process, local, peer netip.AddrPort, sent, received uint64) []part {
		return d.owner(e, p,
			part{"local address", address(e.Network.LocalAddr, e.Network.LocalPort), local},
			part{"peer's address", address(e.Network.PeerAddr, e.Network.PeerPort), peer},
			part{"bytes sent", e.Network.Sent, sent},
			part{"bytes received", e.Network.Received, received},
			part{"flags", e.Flags, event.Flags(0)},
			part{"socket has a cookie", e.Network.Cookie != 0, true})
	}
	lasted := func(e *event.Event, parts []part) []part {
		return append(parts, part{"duration is sane", e.Network.DurationNS > 0 && e.Network.DurationNS < 1e11, true})
	}
	return []expectation{
		{family + ": a listener is told", "network_state", event.NetworkListen, d.of(c.server),
			func(e *event.Event) []part {
				return d.owner(e, c.server,
					part{"local address", address(e.Network.LocalAddr, e.Network.LocalPort), c.serverAddr},
					part{"it has a backlog", e.Network.Backlog > 0, true})
			}},
		{family + ": a connect is told", "network_state", event.NetworkConnect, d.of(c.client),
			func(e *event.Event) []part { return lasted(e, from(e, c.client, c.clientAddr, c.serverAddr, 0, 0)) }},
		{family + ": an accept is told", "network_accept4", event.NetworkAccept, d.of(c.server),
			func(e *event.Event) []part { return from(e, c.server, c.serverAddr, c.clientAddr, 0, 0) }},
		{family + ": the client's close is told with its bytes", "network_state", event.NetworkClose, d.of(c.client),
			func(e *event.Event) []part {
				return lasted(e, from(e, c.client, c.clientAddr, c.serverAddr, request, response))
			}},
		{family + ": the server's close is told with its bytes", "network_state", event.NetworkClose, d.of(c.server),
			func(e *event.Event) []part {
				return lasted(e, from(e, c.server, c.serverAddr, c.clientAddr, response, request))
			}},
	}
}

func refusalExpectation(d *deeds, r refusal) expectation {
	return expectation{
		fmt.Sprintf("a connect to %v is told to have failed with %v", r.to, unix.Errno(r.errno)),
		"network_connect_exit", event.NetworkConnectFailed, d.of(r.process),
		func(e *event.Event) []part {
			return d.owner(e, r.process,
				part{"peer's address", address(e.Network.PeerAddr, e.Network.PeerPort), r.to},
				part{"errno", int(e.Network.Errno), r.errno},
				part{"priority", e.Priority, event.Error})
		},
	}
}

func openExpectations(d *deeds) []expectation {
	path := func(name string) func(*event.Event) bool {
		return func(e *event.Event) bool { return string(e.Open.Path) == d.dir+"/"+name }
	}
	all := []expectation{{
		"an open that fails is told with its errno", "file_openat", event.FileOpen, path("missing"),
		func(e *event.Event) []part {
			return d.owner(e, d.open,
				part{"result", e.Open.Result, -int32(unix.ENOENT)},
				part{"priority", e.Priority, event.Warning})
		},
	}}
	for _, c := range openCalls {
		all = append(all, expectation{
			c.name + " is told with path and result", c.program, event.FileOpen, path(c.name),
			func(e *event.Event) []part {
				return d.owner(e, d.open,
					part{"flags", e.Open.Flags, c.flags},
					part{"result is a descriptor", e.Open.Result > 2, true},
					part{"priority", e.Priority, event.Debug})
			},
		})
	}
	return all
}

func address(b []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(b) // the zero address is nobody's
	return netip.AddrPortFrom(a, port)
}
