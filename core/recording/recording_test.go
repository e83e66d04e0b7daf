package recording

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// file is one to write to.
func file(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "trace"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// recorded writes events and gives the file's bytes.
func recorded(t testing.TB, cpus bool, duration time.Duration, lost uint64, events ...Event) []byte {
	t.Helper()
	f := file(t)
	w, err := NewWriter(f, cpus)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(duration, lost); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// all reads a recording to its end, or to an error other than io.EOF.
func all(b []byte) (h Header, events []Event, err error) {
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return h, nil, err
	}
	for {
		var e Event
		switch err := r.Next(&e); {
		case errors.Is(err, io.EOF):
			return r.Header(), events, nil
		case err != nil:
			return r.Header(), events, err
		}
		events = append(events, e)
	}
}

// several events in which every part of an event takes several values.
func several(n int) []Event {
	rng := rand.New(rand.NewPCG(1, 2))
	kinds := []event.Kind{event.ProcessFork, event.ProcessExit, event.NetworkClose, event.FileOpen}
	out := make([]Event, n)
	var at int64
	var group uint32
	var lives uint64
	for i := range out {
		at += rng.Int64N(300) * 1000
		e := Event{
			At: at, Group: rng.Uint32N(group + 2), Kind: kinds[rng.IntN(len(kinds))], Priority: event.Priority(rng.IntN(int(event.Priorities))),
			Attribute: uint16(rng.Uint32()), Lifecycle: rng.Uint64N(lives + 2),
		}
		group, lives = max(group, e.Group), max(lives, e.Lifecycle)
		out[i] = e
	}
	return out
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, test := range []struct {
		name   string
		events []Event
	}{
		{"nothing", nil},
		{"one event at the beginning", []Event{{Kind: event.ProcessExec}}},
		{"a block that is just full", several(blockEvents)},
		{"several blocks", several(2*blockEvents + 100)},
	} {
		for _, cpus := range []bool{false, true} {
			want := append([]Event(nil), test.events...)
			for i := range want {
				if cpus {
					want[i].CPU = uint8(i)
				}
			}
			duration := time.Hour
			h, got, err := all(recorded(t, cpus, duration, 0, want...))
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if wantHeader := (Header{duration, uint64(len(want)), 0, true, cpus}); h != wantHeader {
				t.Errorf("%s: %+v, want %+v", test.name, h, wantHeader)
			}
			if !reflect.DeepEqual(got, want) && len(want) > 0 {
				t.Errorf("%s, CPUs %v: other events are read", test.name, cpus)
			}
		}
	}
}

func TestTimesAreOfWholeMicrosecondsAndNeverFall(t *testing.T) {
	_, got, err := all(recorded(t, false, 0, 0, Event{At: 1999}, Event{At: 5000}, Event{At: 3000}, Event{At: 5999}, Event{At: 6000}))
	if err != nil {
		t.Fatal(err)
	}
	var at []int64
	for _, e := range got {
		at = append(at, e.At)
	}
	if want := []int64{1000, 5000, 5000, 5000, 6000}; !reflect.DeepEqual(at, want) {
		t.Errorf("%v, want %v", at, want)
	}
}

func TestARecordingThatLacksEventsIsNotCalledComplete(t *testing.T) {
	h, _, err := all(recorded(t, false, time.Second, 3, Event{}))
	if err != nil || h.Complete || h.Lost != 3 || h.Events != 1 || h.Duration != time.Second {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestARecordingLastsAsLongAsItsEvents(t *testing.T) {
	h, _, err := all(recorded(t, false, time.Millisecond, 0, Event{At: 5_000_000}))
	if err != nil || h.Duration != 5*time.Millisecond {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestARecordingThatWasNotEndedIsNone(t *testing.T) {
	f := file(t)
	w, err := NewWriter(f, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range several(3 * blockEvents) {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := all(b); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "not ended") {
		t.Errorf("it is read: %v", err)
	}
}

func TestWhatTheFormatHasNoRoomForIsNotWritten(t *testing.T) {
	for _, test := range []struct {
		what  string
		event Event
	}{
		{"a kind of the daemon's own", Event{Kind: event.CgroupCreate}},
		{"a kind of a runtime", Event{Kind: event.ContainerDied}},
		{"a priority that there is not", Event{Priority: event.Priorities}},
		{"a group out of turn", Event{Group: 2}},
		{"a life out of turn", Event{Lifecycle: 2}},
	} {
		w, err := NewWriter(file(t), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(test.event); err == nil {
			t.Errorf("%s is written", test.what)
		}
		if err := w.Write(Event{Group: 1, Lifecycle: 1}); err != nil {
			t.Errorf("after %s: %v", test.what, err)
		}
	}
}

func TestAClosedRecordingTakesNothing(t *testing.T) {
	w, err := NewWriter(file(t), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(0, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Event{}); err == nil {
		t.Error("an event is written")
	}
	if _, err := w.Close(0, 0); err == nil {
		t.Error("it is closed twice")
	}
}

// fullDisk takes so many bytes.
type fullDisk struct{ room int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.room -= len(b); d.room < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(b), nil
}

func (*fullDisk) Seek(int64, int) (int64, error) { return 0, nil }

func TestAFullDiskIsAnErrorAtTheLatestAtTheEnd(t *testing.T) {
	events := several(4 * blockEvents)
	for _, room := range []int{0, headerSize, headerSize + 10, 50_000} {
		w, err := NewWriter(&fullDisk{room}, false)
		for i := 0; err == nil && i < len(events); i++ {
			err = w.Write(events[i])
		}
		if w != nil {
			_, err = w.Close(0, 0)
		}
		if err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("with room for %d bytes: %v", room, err)
		}
	}
}

// made makes a recording of a header and what is to be compressed.
func made(h Header, events []byte) []byte {
	var b bytes.Buffer
	b.Write(h.encode())
	zip := gzip.NewWriter(&b)
	zip.Write(events)
	zip.Close()
	return b.Bytes()
}

// headed is a header with something changed, and the checksum made right again.
func headed(change func(b []byte)) []byte {
	b := made(Header{}, []byte{0})
	change(b)
	clear(b[12:16])
	binary.LittleEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

func TestARecordingIsNotBelieved(t *testing.T) {
	one, second := Header{Events: 1, Duration: time.Second}, []byte{1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0}
	if _, _, err := all(made(one, second)); err != nil {
		t.Fatal(err)
	}
	// with another byte at a place
	with := func(at int, b byte) []byte {
		c := bytes.Clone(second)
		c[at] = b
		return made(one, c)
	}
	endless := append(append([]byte{1, 10}, bytes.Repeat([]byte{0x80}, 10)...), second[3:]...)
	for _, test := range []struct {
		what string
		b    []byte
		want string // of the error
	}{
		{"an empty file", nil, "ends at byte 0"},
		{"a file that ends in the header", []byte(magic), "ends at byte 8"},
		{"something else", bytes.Repeat([]byte("text"), 20), "at byte 0"},
		{"another version", headed(func(b []byte) { b[8] = 2 }), "version 2, and this program reads version 1"},
		{"unknown flags", headed(func(b []byte) { b[10] = 4 }), "at byte 10"},
		{"a broken header", func() []byte { b := made(one, second); b[24]++; return b }(), "checksum"},
		{"a duration below 0", headed(func(b []byte) { b[23] = 0x80 }), "at byte 16"},
		{"complete and not", headed(func(b []byte) { b[10], b[32] = flagComplete, 1 }), "1 events are missing"},
		{"no events behind the header", one.encode(), "the events"},
		{"another compression", append(one.encode(), "zstd, or so it seems"...), "the events"},
		{"a block that is too large", made(Header{Events: 1 << 40}, []byte{0x81, 0x40}), "at byte 0 of the events: a block of 8193"},
		{"more events than the header says", made(Header{}, second), "more events than the 0"},
		{"fewer events than the header says", made(Header{Events: 2, Duration: time.Second}, second), "after 1 events"},
		{"a number that is too large", made(one, bytes.Repeat([]byte{0xff}, 20)), "at byte 0 of the events: a number without an end"},
		{"a column that is too short", with(1, 0), "at byte 1 of the events: a column of 0 bytes"},
		{"a column that is too long", with(1, 11), "at byte 1 of the events: a column of 11 bytes"},
		{"a number in a column without an end", made(one, endless), "at byte 2 of the events: a number without an end"},
		{"an event after the end", made(Header{Events: 1}, append([]byte{1, 1, 1}, second[3:]...)), "at byte 2 of the events: an event after the recording's 0s"},
		{"a kind of the daemon's own", with(4, byte(event.CgroupCreate)<<3), "at byte 4"},
		{"a priority that there is not", with(4, 5), "priority 5"},
		{"a group out of turn", with(6, 2), "at byte 6 of the events: an event of group 2: there were 0"},
		{"a life before the first", with(8, 2), "at byte 8"},
		{"a column that is longer than its events", made(one, append([]byte{1, 2, 0, 0}, second[3:]...)), "at byte 3 of the events: a column is longer"},
		{"something behind the end", made(one, append(bytes.Clone(second), 0)), "at byte 12 of the events: something follows"},
		{"something behind what is compressed", append(made(one, second), 0), "follows the compressed"},
		{"a wrong checksum", func() []byte { b := made(one, second); b[len(b)-5] ^= 1; return b }(), "checksum"},
		{"an attribute that is too large", made(one, append(bytes.Clone(second[:9]), 3, 0xff, 0xff, 0x07, 0)), "an event of attribute 131071"},
	} {
		_, _, err := all(test.b)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.what, err, test.want)
		}
	}
}

func TestARecordingThatIsCutAnywhereIsAnError(t *testing.T) {
	b := recorded(t, true, time.Hour, 0, several(200)...)
	for n := range b {
		if _, _, err := all(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("of %d bytes the first %d are taken: %v", len(b), n, err)
		}
	}
}

// After an error there is nothing more to be had.
func TestAnErrorStays(t *testing.T) {
	r, err := NewReader(bytes.NewReader(made(Header{Events: 2}, []byte{1, 1, 0, 1, 7, 1, 0, 1, 0, 1, 0})))
	if err != nil {
		t.Fatal(err)
	}
	var e Event
	first := r.Next(&e)
	if again := r.Next(&e); first == nil || !errors.Is(again, first) {
		t.Errorf("%v, then %v", first, again)
	}
}

func TestReadingAndWritingAllocateNothingForEachEvent(t *testing.T) {
	events := several(8 * blockEvents)
	b := recorded(t, false, time.Hour, 0, events...)
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(file(t), false)
	if err != nil {
		t.Fatal(err)
	}
	var e Event
	step := func() {
		if err := errors.Join(r.Next(&e), w.Write(e)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 * blockEvents {
		step()
	}
	if n := testing.AllocsPerRun(5*blockEvents, step); n != 0 {
		t.Errorf("an event allocates %v times", n)
	}
}

// What is read is either refused or written again as the same events.
func FuzzReader(f *testing.F) {
	f.Add(recorded(f, false, time.Hour, 0, several(50)...))
	f.Add(recorded(f, true, time.Hour, 7, several(9)...))
	f.Add(made(Header{Events: 1, Duration: time.Second}, []byte{1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, events, err := all(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("the error is of another sort: %v", err)
			}
			return
		}
		again, same, err := all(recorded(t, h.CPUs, h.Duration, h.Lost, events...))
		again.Complete = h.Complete // may be false without a loss
		if err != nil || again != h || !reflect.DeepEqual(same, events) {
			t.Errorf("%+v is written again as %+v: %v", h, again, err)
		}
	})
}

// The checksums stand in a fuzzer's way: here they are always right.
func FuzzEvents(f *testing.F) {
	f.Add(uint64(1), []byte{1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0}, false)
	f.Add(uint64(1), []byte{1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0}, true)
	f.Add(uint64(2), []byte{2, 2, 0, 9, 2, 8, 16, 2, 1, 0, 2, 1, 2, 2, 1, 1, 0}, false)
	f.Fuzz(func(t *testing.T, n uint64, body []byte, cpus bool) {
		h, events, err := all(made(Header{Events: n, Duration: time.Second, CPUs: cpus}, body))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("the error is of another sort: %v", err)
			}
			return
		}
		_, same, err := all(recorded(t, h.CPUs, h.Duration, h.Lost, events...))
		if err != nil || !reflect.DeepEqual(same, events) {
			t.Errorf("written again it has other events: %v", err)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	trace := recorded(b, false, time.Hour, 0, several(1<<18)...)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		r, err := NewReader(bytes.NewReader(trace))
		if err != nil {
			b.Fatal(err)
		}
		for e := (Event{}); n < b.N && r.Next(&e) == nil; n++ {
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	events := several(1 << 16)
	w, err := NewWriter(file(b), false)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := range b.N {
		if err := w.Write(events[n%len(events)]); err != nil {
			b.Fatal(err)
		}
	}
}
