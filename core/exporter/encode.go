// Package exporter holds what takes events out of the daemon: json, prometheus
// and the live view of the local API.
//
// An exporter is called on the goroutine that reads the kernel's rings. It
// encodes there, by appending, and hands whole batches to a goroutine of its own
// that may block; between the two is a bounded queue, and what does not fit is
// dropped and counted. It keeps no event.
package exporter

import (
	"math"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

// Encoder writes events as JSON lines, with the nested names of OpenTelemetry's
// semantic conventions. It allocates nothing and is for one goroutine.
//
// Measured on a 2-CPU virtual machine by BenchmarkEncode; see there.
type Encoder struct {
	host   []byte // the fragment of the host, the same in every line
	clock  *Clock
	second int64 // of stamp
	stamp  [20]byte
	tasks  [256]taskText // by thread id
}

// Clock turns the kernel's times into those of the wall clock. Encoders share
// one, so that an event has one time wherever it goes. It is safe for use by
// several goroutines.
type Clock struct {
	read   func() (wall, monotonic int64)
	offset atomic.Int64 // wall less monotonic
	synced atomic.Int64 // monotonic
}

// NewClock makes a clock. read reads the wall clock and the events' clock at one
// time, in nanoseconds.
func NewClock(read func() (wall, monotonic int64)) *Clock {
	c := &Clock{read: read}
	c.sync()
	return c
}

func (c *Clock) sync() {
	wall, monotonic := c.read()
	c.offset.Store(wall - monotonic)
	c.synced.Store(monotonic)
}

// Sync reads the clocks again, once a second at most: the wall clock may have been
// set.
func (c *Clock) Sync() {
	if _, monotonic := c.read(); monotonic-c.synced.Load() > int64(time.Second) {
		c.sync()
	}
}

// NewEncoder makes an encoder for events of the node of that name.
func NewEncoder(node string, clock *Clock) *Encoder {
	e := &Encoder{clock: clock, second: math.MinInt64}
	if node != "" {
		e.host = append(AppendString([]byte(`,"host":{"name":`), node), '}')
	}
	return e
}

// Append appends one line to b.
func (x *Encoder) Append(b []byte, e *event.Event, a pipeline.Attribution) []byte {
	b = append(b, `{"time":"`...)
	if e.Life != nil {
		b = x.appendTime(b, e.Life.TimeUnixNano)
	} else {
		b = x.appendTime(b, int64(e.TimeNS)+x.clock.offset.Load())
	}
	b = append(b, `","kind":"`...)
	b = append(b, e.Kind.String()...)
	b = append(b, `","priority":"`...)
	b = append(b, e.Priority.String()...)
	b = append(b, `","weight":`...)
	if e.Threshold == 0 {
		b = append(b, '1')
	} else {
		b = strconv.AppendFloat(b, e.Weight(), 'g', -1, 64)
	}
	b = append(b, x.host...)
	if e.Life != nil {
		b = appendLife(b, e.Life)
	} else {
		b = x.appendProcess(b, e)
	}
	switch e.Kind {
	case event.NetworkConnect, event.NetworkConnectFailed, event.NetworkAccept,
		event.NetworkClose, event.NetworkListen:
		b = appendNetwork(b, e)
	case event.FileOpen:
		b = appendOpen(b, e)
	case event.CgroupCreate, event.CgroupRemove:
		b = append(b, `,"cgroup":{"id":`...)
		b = strconv.AppendUint(b, e.CgroupID, 10)
		b = append(b, `,"path":`...)
		b = AppendString(b, e.Cgroup.Path)
		b = append(b, '}')
	}
	switch {
	case a.Workload != nil:
		b = append(b, a.Workload.Fragment...)
	case a.Pending:
		if a.Hint != "" {
			b = append(b, `,"container":{"id":`...)
			b = AppendString(b, a.Hint)
			b = append(b, '}')
		}
		b = append(b, `,"pending":true`...)
	}
	return append(b, "}\n"...)
}

// appendLife writes what the runtime told of something that happened.
func appendLife(b []byte, l *event.Life) []byte {
	b = append(b, `,"lifecycle":{"source":`...)
	b = AppendString(b, l.Source)
	if l.Exited {
		b = append(b, `,"exit_code":`...)
		b = strconv.AppendInt(b, int64(l.ExitCode), 10)
	}
	if l.Signal != 0 {
		b = append(b, `,"signal":`...)
		b = strconv.AppendUint(b, uint64(l.Signal), 10)
		b = append(b, `,"signal_name":"`...)
		b = append(b, signalName(l.Signal)...)
		b = append(b, '"')
	}
	if l.Image != "" {
		b = append(b, `,"image":`...)
		b = AppendString(b, l.Image)
	}
	if l.Inferred {
		b = append(b, `,"inferred":true`...)
	}
	return append(b, '}')
}

// appendTime writes RFC 3339 with nine digits of a second, in UTC. The part down
// to the second is kept from one event to the next.
func (x *Encoder) appendTime(b []byte, nano int64) []byte {
	second := nano / 1e9
	rest := nano - second*1e9
	if rest < 0 {
		second--
		rest += 1e9
	}
	if second != x.second {
		x.second = second
		time.Unix(second, 0).UTC().AppendFormat(x.stamp[:0], "2006-01-02T15:04:05.")
	}
	b = append(b, x.stamp[:]...)
	var digits [10]byte
	for i := 8; i >= 0; i-- {
		digits[i] = byte('0' + rest%10)
		rest /= 10
	}
	digits[9] = 'Z'
	return append(b, digits[:]...)
}

func (x *Encoder) appendProcess(b []byte, e *event.Event) []byte {
	if e.PID == 0 && e.Flags&event.OwnerUnknown != 0 {
		return append(b, `,"process":{"unknown":true}`...)
	}
	b = x.appendTask(b, e)
	switch e.Kind {
	case event.ProcessExec:
		b = append(b, `,"executable":{"path":`...)
		b = AppendString(b, e.Exec.Path)
		if e.Flags&event.PathTruncated != 0 {
			b = append(b, `,"truncated":true`...)
		}
		if e.Flags&event.PathDeleted != 0 {
			b = append(b, `,"deleted":true`...)
		}
		if e.Flags&event.PathDetached != 0 {
			b = append(b, `,"detached":true`...)
		}
		b = append(b, `},"command_args":[`...)
		b = appendArgs(b, e.Exec.Args)
		b = append(b, ']')
		if e.Flags&event.ArgsTruncated != 0 {
			b = append(b, `,"command_args_truncated":true`...)
		}
		if e.Flags&event.Unreadable != 0 {
			b = append(b, `,"command_args_unreadable":true`...)
		}
	case event.ProcessExit:
		b = append(b, `,"exit":{"code":`...)
		b = strconv.AppendUint(b, uint64(e.Exit.Code), 10)
		if e.Exit.Signal != 0 {
			b = append(b, `,"signal":`...)
			b = strconv.AppendUint(b, uint64(e.Exit.Signal), 10)
			b = append(b, `,"signal_name":"`...)
			b = append(b, signalName(e.Exit.Signal)...)
			b = append(b, '"')
		}
		if e.Flags&event.CoreDumped != 0 {
			b = append(b, `,"core_dumped":true`...)
		}
		b = append(b, `},"duration":`...)
		b = appendSeconds(b, e.Exit.DurationNS)
	}
	if e.Flags&event.OwnerListener != 0 {
		b = append(b, `,"listener":true`...)
	}
	return append(b, '}')
}

func appendArgs(b, args []byte) []byte {
	for first := true; len(args) > 0; first = false {
		n := 0
		for n < len(args) && args[n] != 0 {
			n++
		}
		if !first {
			b = append(b, ',')
		}
		b = AppendString(b, args[:n])
		args = args[min(n+1, len(args)):]
	}
	return b
}

func appendNetwork(b []byte, e *event.Event) []byte {
	n := &e.Network
	b = append(b, `,"network":{"transport":"tcp","type":"`...)
	if len(n.LocalAddr) == 4 {
		b = append(b, `ipv4`...)
	} else {
		b = append(b, `ipv6`...)
	}
	b = append(b, `","local":{"address":"`...)
	b = appendAddress(b, n.LocalAddr)
	b = append(b, `","port":`...)
	b = strconv.AppendUint(b, uint64(n.LocalPort), 10)
	if e.Kind == event.NetworkListen {
		b = append(b, `},"backlog":`...)
		b = strconv.AppendUint(b, uint64(n.Backlog), 10)
		return append(b, '}')
	}
	b = append(b, `},"peer":{"address":"`...)
	b = appendAddress(b, n.PeerAddr)
	b = append(b, `","port":`...)
	b = strconv.AppendUint(b, uint64(n.PeerPort), 10)
	b = append(b, '}')
	if n.Cookie != 0 {
		b = append(b, `,"connection":{"id":`...)
		b = strconv.AppendUint(b, n.Cookie, 10)
		b = append(b, '}')
	}
	if e.Kind == event.NetworkClose {
		b = append(b, `,"io":{"transmit":`...)
		b = strconv.AppendUint(b, n.Sent, 10)
		b = append(b, `,"receive":`...)
		b = strconv.AppendUint(b, n.Received, 10)
		b = append(b, '}')
	}
	if n.DurationNS != 0 {
		b = append(b, `,"duration":`...)
		b = appendSeconds(b, n.DurationNS)
	}
	b = append(b, '}')
	if e.Kind == event.NetworkConnectFailed || n.Errno != 0 {
		b = appendError(b, uint32(n.Errno))
	}
	return b
}

// appendAddress writes an IP address; an IPv4 address in IPv6's clothes as IPv4.
func appendAddress(b, addr []byte) []byte {
	if len(addr) == 4 {
		return netip.AddrFrom4([4]byte(addr)).AppendTo(b)
	}
	return netip.AddrFrom16([16]byte(addr)).Unmap().AppendTo(b)
}

func appendOpen(b []byte, e *event.Event) []byte {
	o := &e.Open
	b = append(b, `,"file":{"path":`...)
	b = AppendString(b, o.Path)
	b = append(b, `,"flags":`...)
	b = strconv.AppendUint(b, uint64(o.Flags), 10)
	if o.DirFD != atFDCWD && (len(o.Path) == 0 || o.Path[0] != '/') {
		b = append(b, `,"directory_fd":`...)
		b = strconv.AppendInt(b, int64(o.DirFD), 10)
	}
	if o.Result >= 0 {
		b = append(b, `,"fd":`...)
		b = strconv.AppendInt(b, int64(o.Result), 10)
	}
	if e.Flags&event.PathTruncated != 0 {
		b = append(b, `,"truncated":true`...)
	}
	if e.Flags&event.Unreadable != 0 {
		b = append(b, `,"unreadable":true`...)
	}
	b = append(b, '}')
	if o.Result < 0 {
		b = appendError(b, uint32(-o.Result))
	}
	return b
}

const atFDCWD = -100

// appendError writes error.type, the errno's name, and its number.
func appendError(b []byte, errno uint32) []byte {
	b = append(b, `,"error":{"type":"`...)
	if errno == 0 {
		return append(b, `given_up"}`...)
	}
	b = append(b, errnoName(errno)...)
	b = append(b, `","errno":`...)
	b = strconv.AppendUint(b, uint64(errno), 10)
	return append(b, '}')
}

// appendSeconds writes nanoseconds as seconds, exactly.
func appendSeconds(b []byte, nano uint64) []byte {
	b = strconv.AppendUint(b, nano/1e9, 10)
	rest := nano % 1e9
	if rest == 0 {
		return b
	}
	var digits [9]byte
	for i := 8; i >= 0; i-- {
		digits[i] = byte('0' + rest%10)
		rest /= 10
	}
	n := 9
	for digits[n-1] == '0' {
		n--
	}
	b = append(b, '.')
	return append(b, digits[:n]...)
}

// AppendString appends s as a JSON string: valid UTF-8 whatever the bytes. What is
// no UTF-8 becomes U+FFFD.
func AppendString[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := decodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, "\uFFFD"...)
			i++
			start = i
		case r == '\u2028' || r == '\u2029': // ends a line in some readers
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
			i += size
			start = i
		default:
			i += size
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func decodeRune[T string | []byte](s T) (rune, int) {
	var buf [utf8.UTFMax]byte
	n := copy(buf[:], s)
	return utf8.DecodeRune(buf[:n])
}

const hex = "0123456789abcdef"

var plain = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()
