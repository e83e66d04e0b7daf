package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

const processAndNetwork = `
probe "process" {}
probe "network" {}
`

// tcpload finds the process of a run of tcpload by all of its arguments, of which one
// must be its own.
func tcpload(t *testing.T, events []harness.Event, programs *load.Programs, args []string) int {
	t.Helper()
	return one(t, "runs of tcpload", harness.Select(events, "process.exec", func(e *harness.Event) bool {
		return e.Process.Executable.Path == programs.TCP && slices.Equal(e.Process.Args[1:], args)
	})).Process.PID
}

// network are the network events of a process, by kind.
func network(events []harness.Event, pid int) map[string][]*harness.Event {
	out := map[string][]*harness.Event{}
	for i := range events {
		if e := &events[i]; e.Process.PID == pid && strings.HasPrefix(e.Kind, "network.") {
			out[e.Kind] = append(out[e.Kind], e)
		}
	}
	return out
}

func id(e *harness.Event) uint64 {
	if e.Network.Connection == nil {
		return 0
	}
	return e.Network.Connection.ID
}

func TestEveryConnectionIsToldWithBothOfItsSidesAndTheirBytes(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, processAndNetwork)
	type run struct {
		name, family, address string
		out, in               int64
		args                  []string
		did                   load.TCPCounts
	}
	runs := []run{
		{name: "IPv4", family: "ipv4", address: "127.0.0.1", out: 70001, in: 3, args: []string{"-n", "301", "-t", "2"}},
		{name: "IPv6", family: "ipv6", address: "::1", out: 5, in: 70003, args: []string{"-6", "-n", "302", "-t", "2"}},
		{name: "IPv4, not blocking", family: "ipv4", address: "127.0.0.1", out: 1000000, in: 1, args: []string{"-b", "-n", "23"}},
		{name: "IPv6, not blocking, without a byte", family: "ipv6", address: "::1", args: []string{"-6", "-b", "-n", "204"}},
	}
	total := map[string]int64{}
	for i := range runs {
		r := &runs[i]
		r.args = append([]string{"pairs"}, append(r.args, "-o", fmt.Sprint(r.out), "-i", fmt.Sprint(r.in))...)
		var err error
		if r.did, err = programs.RunTCP(t.Context(), r.args...); err != nil {
			t.Fatal(err)
		}
		total["network.connect"] += r.did.Connects
		total["network.accept"] += r.did.Accepts
		total["network.close"] += r.did.Closes
		total["network.listen"] += r.did.Listens
	}
	ledger := tr.Stop()
	events := tr.Events()
	for _, r := range runs {
		t.Run(r.name, func(t *testing.T) {
			pid := tcpload(t, events, programs, r.args)
			told := network(events, pid)
			for kind, want := range map[string]int64{
				"network.connect": r.did.Connects, "network.accept": r.did.Accepts,
				"network.close": r.did.Closes, "network.listen": r.did.Listens, "network.connect_failed": 0,
			} {
				if got := int64(len(told[kind])); got != want {
					t.Errorf("%d of %s were told, the load counted %d", got, kind, want)
				}
			}
			closed := map[uint64]*harness.Event{}
			for _, e := range told["network.close"] {
				if id(e) == 0 || closed[id(e)] != nil {
					t.Fatalf("a connection was closed twice, or has no id: %s", e.Line)
				}
				closed[id(e)] = e
			}
			listeners := map[int]bool{}
			for _, e := range told["network.listen"] {
				if e.Network.Backlog != 16 || e.Network.Local.Address != r.address || e.Network.Type != r.family || e.Network.Local.Port == 0 {
					t.Errorf("the listen is %s", e.Line)
				}
				listeners[e.Network.Local.Port] = true
			}
			// The two sides of a connection have each other's addresses.
			accepts := map[[2]harness.Endpoint]*harness.Event{}
			for _, e := range told["network.accept"] {
				accepts[[2]harness.Endpoint{*e.Network.Peer, e.Network.Local}] = e
			}
			var sent, received int64
			for _, c := range told["network.connect"] {
				n := c.Network
				if n.Type != r.family || n.Transport != "tcp" || n.Local.Address != r.address || n.Peer.Address != r.address || !listeners[n.Peer.Port] {
					t.Errorf("the connect is %s", c.Line)
				}
				a := accepts[[2]harness.Endpoint{n.Local, *n.Peer}]
				if a == nil {
					t.Fatalf("nobody accepted %s", c.Line)
				}
				if a.Process.Listener || a.Process.Comm != "tcpload" {
					t.Errorf("the accept is %s", a.Line)
				}
				cc, ca := closed[id(c)], closed[id(a)]
				if cc == nil || ca == nil {
					t.Fatalf("not closed:\n%s\n%s", c.Line, a.Line)
				}
				for _, side := range []struct {
					name           string
					begin, end     *harness.Event
					sent, received int64
				}{{"connecting", c, cc, r.out, r.in}, {"accepting", a, ca, r.in, r.out}} {
					e := side.end
					if e.Network.IO.Transmit != side.sent || e.Network.IO.Receive != side.received {
						t.Errorf("the %s side sent %d bytes and received %d: %s", side.name, side.sent, side.received, e.Line)
					}
					if e.Process.Listener || e.Process.Unknown || e.Process.Comm != "tcpload" {
						t.Errorf("the %s side's close is %s", side.name, e.Line)
					}
					if e.Network.Local != side.begin.Network.Local || *e.Network.Peer != *side.begin.Network.Peer {
						t.Errorf("the %s side's addresses change:\n%s\n%s", side.name, side.begin.Line, e.Line)
					}
					// Connected from before the event of its begin (an accept may come
					// late) until the close.
					if d := time.Duration(e.Network.Duration); d < e.Time.Sub(side.begin.Time) && side.name == "accepting" || d <= 0 {
						t.Errorf("the %s side was connected for %v: %s", side.name, d, e.Line)
					}
				}
				sent += cc.Network.IO.Transmit
				received += cc.Network.IO.Receive
			}
			if sent != r.did.BytesSent || received != r.did.BytesReceived {
				t.Errorf("%d bytes were told sent and %d received, the load counted %d and %d", sent, received, r.did.BytesSent, r.did.BytesReceived)
			}
		})
	}
	checkLedger(t, ledger, false, total)
}

func TestEachSideOfAConnectionBelongsToItsOwnProcess(t *testing.T) {
	programs := load.Build(t)
	for _, family := range []string{"-4", "-6"} {
		t.Run("with "+family, func(t *testing.T) {
			tr := harness.Start(t, processAndNetwork)
			options := []string{"-n", "40", "-o", "111", "-i", "222"}
			if family == "-6" {
				options = append([]string{"-6"}, options...)
			}
			server := exec.Command(programs.TCP, append([]string{"serve"}, options...)...)
			out, err := server.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			server.Stderr = os.Stderr
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Process.Kill() }() // gone already when all is well
			lines := bufio.NewReader(out)
			var listening struct{ Port int }
			if line, err := lines.ReadBytes('\n'); err != nil || json.Unmarshal(line, &listening) != nil {
				t.Fatalf("the server printed %q: %v", line, err)
			}
			clientArgs := append([]string{"connect"}, append(options, "-P", fmt.Sprint(listening.Port))...)
			client, err := programs.RunTCP(t.Context(), clientArgs...)
			if err != nil {
				t.Fatal(err)
			}
			var served load.TCPCounts
			if line, err := lines.ReadBytes('\n'); err != nil || json.Unmarshal(line, &served) != nil {
				t.Fatalf("the server printed %q: %v", line, err)
			}
			if err := server.Wait(); err != nil {
				t.Fatal(err)
			}
			ledger := tr.Stop()
			events := tr.Events()
			theirs, ours := network(events, server.Process.Pid), network(events, tcpload(t, events, programs, clientArgs))
			for _, c := range []struct {
				who            string
				told           map[string][]*harness.Event
				want           map[string]int64
				sent, received int64
			}{
				{"server", theirs, map[string]int64{"network.listen": 1, "network.accept": served.Accepts, "network.close": served.Closes}, 222, 111},
				{"client", ours, map[string]int64{"network.connect": client.Connects, "network.close": client.Closes}, 111, 222},
			} {
				got := map[string]int64{}
				for kind, events := range c.told {
					got[kind] = int64(len(events))
				}
				if !maps.Equal(got, c.want) {
					t.Errorf("of the %s were told %v, it counted %v", c.who, got, c.want)
				}
				for _, e := range c.told["network.close"] {
					if e.Network.IO.Transmit != c.sent || e.Network.IO.Receive != c.received || e.Process.Listener {
						t.Errorf("a close of the %s is %s", c.who, e.Line)
					}
				}
			}
			checkLedger(t, ledger, false, map[string]int64{
				"network.connect": client.Connects, "network.accept": served.Accepts, "network.close": client.Closes + served.Closes,
			})
		})
	}
}

func TestAFailedConnectIsToldOnceWithItsError(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, processAndNetwork)
	type run struct {
		kind, errno, peer string // peer: "" for one that the kernel never knew
		options           []string
		args              []string
		did               load.TCPCounts
	}
	kinds := []struct{ kind, errno, v4, v6 string }{
		{"refused", "ECONNREFUSED", "127.0.0.1", "::1"},
		{"timeout", "ETIMEDOUT", "127.0.0.1", "::1"},
		{"unreachable", "ENETUNREACH", "192.0.2.1", "2001:db8::1"},
		{"hostunreach", "EHOSTUNREACH", "192.0.2.1", "2001:db8::1"},
		{"noaddress", "EADDRNOTAVAIL", "127.0.0.1", "::1"},
		{"family", "EAFNOSUPPORT", "", ""},
		{"fault", "EFAULT", "", ""},
	}
	var runs []*run
	n := 11
	for _, k := range kinds {
		for _, options := range [][]string{nil, {"-6"}, {"-b"}, {"-6", "-b"}} {
			r := &run{kind: k.kind, errno: k.errno, peer: k.v4, options: options}
			if slices.Contains(options, "-6") {
				r.peer = k.v6
			}
			n++ // a number of its own, by which its process is found
			r.args = append([]string{"fail", "-n", fmt.Sprint(n)}, append(slices.Clone(options), k.kind)...)
			runs = append(runs, r)
		}
	}
	// All at once: those that time out wait for seconds.
	done := make(chan error)
	for _, r := range runs {
		go func() {
			var err error
			r.did, err = programs.RunTCP(t.Context(), r.args...)
			done <- err
		}()
	}
	for range runs {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ledger := tr.Stop()
	events := tr.Events()
	total := map[string]int64{}
	for _, r := range runs {
		t.Run(strings.Join(append([]string{r.kind}, r.options...), " "), func(t *testing.T) {
			told := network(events, tcpload(t, events, programs, r.args))
			errors := map[string]int64{}
			sockets := map[uint64]bool{}
			for _, e := range told["network.connect_failed"] {
				errors[e.Error.Type]++
				if e.Priority != "error" || e.Process.Unknown || e.Process.Comm != "tcpload" {
					t.Errorf("the failure is %s", e.Line)
				}
				if got := e.Network.Peer.Address; r.peer != "" && got != r.peer {
					t.Errorf("the peer is %s, want %s: %s", got, r.peer, e.Line)
				}
				if i := id(e); i != 0 {
					if sockets[i] {
						t.Errorf("a failure of the same socket was told before: %s", e.Line)
					}
					sockets[i] = true
				}
			}
			if !maps.Equal(errors, r.did.Errors) || r.did.Errors[r.errno] == 0 {
				t.Errorf("told were failures %v, the load counted %v of %s", errors, r.did.Errors, r.errno)
			}
			for kind, want := range map[string]int64{
				"network.connect": r.did.Connects, "network.accept": r.did.Accepts, "network.close": r.did.Closes, "network.listen": r.did.Listens,
			} {
				if got := int64(len(told[kind])); got != want {
					t.Errorf("%d of %s were told, the load counted %d", got, kind, want)
				}
				total[kind] += want
			}
			total["network.connect_failed"] += r.did.Errors[r.errno]
		})
	}
	checkLedger(t, ledger, false, total)
}

func TestAConnectionThatNobodyAcceptedBelongsToItsListener(t *testing.T) {
	tr := harness.Start(t, processAndNetwork)
	server := openSocket(t)
	if err := unix.Bind(server, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(server, 7); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(server)
	if err != nil {
		t.Fatal(err)
	}
	port := at.(*unix.SockaddrInet4).Port
	client, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(server); err != nil { // resets the connection
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	ledger := tr.Stop()
	told := network(tr.Events(), os.Getpid())
	listen := one(t, "listens", slices.DeleteFunc(told["network.listen"], func(e *harness.Event) bool { return e.Network.Local.Port != port }))
	if listen.Network.Backlog != 7 {
		t.Errorf("the listen is %s", listen.Line)
	}
	child := one(t, "closes of the listener's side", slices.DeleteFunc(told["network.close"], func(e *harness.Event) bool { return e.Network.Local.Port != port }))
	if !child.Process.Listener {
		t.Errorf("the close of what was never accepted is %s", child.Line)
	}
	checkLedger(t, ledger, false, map[string]int64{"network.listen": 1, "network.connect": 1, "network.close": 2})
}

func openSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestASocketOlderThanTheDaemonIsClosedByAnUnknownProcess(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	tr := harness.Start(t, processAndNetwork)
	if _, err := client.Write(bytes.Repeat([]byte{1}, 321)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 321)
	if _, err := server.Read(got); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	port := client.LocalAddr().(*net.TCPAddr).Port
	ledger := tr.Stop()
	closes := harness.Select(tr.Events(), "network.close", func(e *harness.Event) bool {
		return e.Network.Local.Port == port || e.Network.Peer.Port == port
	})
	if len(closes) != 2 {
		t.Fatalf("%d closes were told, want both sides'", len(closes))
	}
	for _, e := range closes {
		if !e.Process.Unknown || e.Process.PID != 0 {
			t.Errorf("the close is %s", e.Line)
		}
		sent, received := int64(321), int64(0)
		if e.Network.Peer.Port == port {
			sent, received = 0, 321
		}
		if e.Network.IO.Transmit != sent || e.Network.IO.Receive != received {
			t.Errorf("want %d sent and %d received: %s", sent, received, e.Line)
		}
	}
	checkLedger(t, ledger, false, map[string]int64{"network.close": 2})
}
