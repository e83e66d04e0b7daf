package recording

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"reflect"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// taken are events as they are read after a Recorder took them.
func taken(t *testing.T, start uint64, events ...event.Event) (out []Event, raw []byte) {
	t.Helper()
	f := file(t)
	w, err := NewWriter(f, false)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder(w, start)
	for i := range events {
		if err := r.Add(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(0, 0); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	_, out, err = all(b)
	if err != nil {
		t.Fatal(err)
	}
	return out, b
}

func TestNumbersAreGivenInTheOrderOfAppearance(t *testing.T) {
	exec := func(at, cgroup, random uint64, path string) event.Event {
		return event.Event{Kind: event.ProcessExec, Priority: event.Info, TimeNS: at, CgroupID: cgroup, Random: random, Exec: event.Exec{Path: []byte(path)}}
	}
	exit := exec(9_000, 700, 0xabc, "")
	exit.Kind = event.ProcessExit
	open := event.Event{Kind: event.FileOpen, TimeNS: 10_000, CgroupID: 1, Open: event.Open{Path: []byte("/bin/b")}}
	got, _ := taken(t, 5_000,
		exec(4_000, 700, 0xabc, "/bin/a"), exec(6_000, 300, 0xdef, "/bin/b"), exec(7_000, 700, 0x123, "/bin/a"), exec(8_000, 0, 0xdef, "/bin/c"),
		exit, exec(9_000, 700, 0xabc, "/bin/a"), open,
		event.Event{Kind: event.CgroupCreate, TimeNS: 11_000, CgroupID: 900})
	want := []Event{
		{0, 1, event.ProcessExec, event.Info, 1, 0, 1},
		{1_000, 2, event.ProcessExec, event.Info, 2, 0, 2},
		{2_000, 1, event.ProcessExec, event.Info, 1, 0, 3},
		{3_000, 0, event.ProcessExec, event.Info, 3, 0, 2},
		{4_000, 1, event.ProcessExit, event.Info, 0, 0, 1},
		{4_000, 1, event.ProcessExec, event.Info, 1, 0, 4}, // another, after the exit
		{5_000, 0, event.FileOpen, event.Debug, 2, 0, 0},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// A client's port is another for each connection, and its own number for each would say
// nothing: both ends are told by the service.
func TestAConnectionIsToldByItsService(t *testing.T) {
	const connect, accept, failed, listen, close_ = event.NetworkConnect, event.NetworkAccept, event.NetworkConnectFailed, event.NetworkListen, event.NetworkClose
	net := func(kind event.Kind, random uint64, local, peer uint16, host byte) event.Event {
		return event.Event{Kind: kind, Random: random, Network: event.Network{PeerAddr: []byte{10, 0, 0, host}, LocalPort: local, PeerPort: peer}}
	}
	got, _ := taken(t, 0,
		net(connect, 1, 40_000, 50_051, 2), net(close_, 1, 40_000, 50_051, 2),
		net(connect, 2, 40_001, 50_051, 2), net(connect, 3, 40_001, 50_052, 2), net(connect, 4, 40_001, 50_051, 3),
		net(accept, 5, 80, 40_000, 2), net(accept, 6, 80, 40_001, 2), net(close_, 6, 80, 40_001, 2), net(close_, 5, 80, 40_000, 2),
		net(failed, 7, 40_000, 50_051, 2), net(listen, 0, 80, 0, 0),
		net(close_, 8, 40_007, 80, 2), // of one that was there before
	)
	var attributes []uint16
	for _, e := range got {
		attributes = append(attributes, e.Attribute)
	}
	if want := []uint16{1, 1, 1, 2, 3, 4, 4, 4, 4, 1, 5, 4}; !reflect.DeepEqual(attributes, want) {
		t.Errorf("%v, want %v", attributes, want)
	}
}

func TestNothingOfTheHostIsWritten(t *testing.T) {
	secret := event.Event{
		Kind: event.ProcessExec, TimeNS: 1_000, CgroupID: 0x1122334455667788, Random: 0x99aabbccddeeff, StartNS: 0x0102030405060708,
		PID: 0x31415926, TID: 0x31415926, UID: 0x27182818, Comm: []byte("topsecret"),
		Exec: event.Exec{Path: []byte("/opt/customer-database"), Args: []byte("--password\x00hunter2\x00")},
	}
	open := secret
	open.Kind, open.Open = event.FileOpen, event.Open{Path: []byte("/etc/shadow-of-mine")}
	connect := secret
	connect.Kind, connect.Network = event.NetworkConnect, event.Network{
		PeerAddr: []byte{203, 0, 113, 77}, LocalAddr: []byte{198, 51, 100, 9}, PeerPort: 0x4d2e, LocalPort: 0x7a69, Cookie: 0x1213141516171819,
	}
	_, b := taken(t, 0, secret, open, connect)
	zip, err := gzip.NewReader(bytes.NewReader(b[headerSize:]))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	if zip.Name != "" || zip.Comment != "" || !zip.ModTime.IsZero() {
		t.Errorf("the compressed part has a name, a comment or a time: %+v", zip.Header)
	}
	if want := 1 + 5 + 3*5 + 3 + 1; len(plain) > want { // a class each, and numbers that fit into a byte or two
		t.Errorf("there are %d bytes for three events, want at most %d: %x", len(plain), want, plain)
	}
	for _, e := range []event.Event{secret, open, connect} {
		for _, part := range [][]byte{e.Comm, e.Exec.Path, e.Open.Path, e.Network.PeerAddr, e.Network.LocalAddr} {
			for n := 3; n <= len(part); n++ {
				if bytes.Contains(plain, part[:n]) {
					t.Errorf("it has %q", part[:n])
				}
			}
		}
	}
	for _, id := range []uint64{secret.CgroupID, secret.Random, secret.StartNS, connect.Network.Cookie, uint64(secret.PID)} {
		if bytes.Contains(plain, binary.LittleEndian.AppendUint64(nil, id)[:4]) || bytes.Contains(plain, binary.AppendUvarint(nil, id)) {
			t.Errorf("it has the id %#x", id)
		}
	}
}

func TestTheTablesOfARecorderAreBounded(t *testing.T) {
	w, err := NewWriter(file(t), false)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder(w, 0)
	e := event.Event{Kind: event.ProcessExec}
	const n = 3 * mostLives
	first := event.Event{Kind: event.ProcessExec, Random: 1 << 50}
	for i := range uint64(n) {
		e.CgroupID, e.Random, e.Exec.Path = 2+i, 1+i, fmt.Appendf(e.Exec.Path[:0], "/%d", i)
		if err := r.Add(&e); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 { // one that goes on meanwhile
			if err := r.Add(&first); err != nil {
				t.Fatal(err)
			}
		}
	}
	if g, a, l := len(r.groups), len(r.attributes), len(r.young)+len(r.old); g > mostGroups || a > mostAttributes || l > 2*mostLives {
		t.Errorf("%d groups, %d attributes, %d lives", g, a, l)
	}
	if l := r.life(&first); l.number != 2 {
		t.Errorf("a process that was seen all the time is number %d now, and was 2", l.number)
	}
	if g := r.group(n + 100); g != mostGroups {
		t.Errorf("a cgroup for which there is no number left gets %d", g)
	}
}
