package exporter

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

func execEvent() *event.Event {
	return &event.Event{
		Kind: event.ProcessExec, PID: 1, TID: 1, NSPID: 1, Comm: []byte("c"),
		Exec: event.Exec{Path: []byte("/bin/true"), Args: []byte("true\x00")},
	}
}

func newJSON(t *testing.T, o JSONOptions) *JSON {
	t.Helper()
	o.Name = "json"
	j, err := NewJSON(o, NewEncoder("node", clock))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func wholeLines(t *testing.T, b []byte) (n uint64) {
	t.Helper()
	for line := range bytes.Lines(b) {
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		n++
	}
	return n
}

func TestEventsGoToAFileLineByLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "trace.json")
	j := newJSON(t, JSONOptions{Path: path, Kinds: []event.Kind{event.ProcessExec}})
	const events = 5000
	for range events {
		j.Export(execEvent(), pipeline.Attribution{})
		j.Export(&event.Event{Kind: event.ProcessExit}, pipeline.Attribution{})
	}
	j.Flush()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := j.Stats()
	closes(t, s)
	if n := wholeLines(t, b); n != events || s.Exported != events || s.ScopedOut != events || s.Bytes != uint64(len(b)) {
		t.Errorf("%d lines of %d bytes, %+v", n, len(b), s)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read the events: %v, %v", info.Mode(), err)
	}
}

func TestAFileIsRotatedAndNoLineIsBroken(t *testing.T) {
	dir := t.TempDir()
	j := newJSON(t, JSONOptions{Path: filepath.Join(dir, "trace.json"), MaxBytes: 1 << 20, MaxFiles: 100})
	const events = 20000
	for n := range events {
		j.Export(execEvent(), pipeline.Attribution{})
		if n%1000 == 0 {
			j.Flush()
			j.waitWritten(t)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	var lines uint64
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 1<<20 {
			t.Errorf("%s has %d bytes", f, len(b))
		}
		lines += wholeLines(t, b)
	}
	closes(t, j.Stats())
	if lines != events || j.Stats().Exported != events {
		t.Errorf("%d lines, %+v", lines, j.Stats())
	}
}

// waitWritten gives the writer time: these tests are not about a slow one.
func (j *JSON) waitWritten(t *testing.T) {
	t.Helper()
	for j.Stats().Queued > 0 {
		j.Flush()
		if s := j.Stats(); s.Failed > 0 {
			t.Fatalf("%+v", s)
		}
	}
}

// faulty writes what it is told to and then fails, until it is mended.
type faulty struct {
	mu   sync.Mutex
	room int
	b    []byte
}

var errFull = errors.New("no space")

func (f *faulty) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(b) > f.room {
		n := f.room
		f.b = append(f.b, b[:n]...)
		f.room = 0
		return n, errFull
	}
	f.room -= len(b)
	f.b = append(f.b, b...)
	return len(b), nil
}

func (f *faulty) mend(room int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = room
}

func TestAFullDiskIsCountedAndLinesAfterItAreWhole(t *testing.T) {
	out := &faulty{room: 1000}
	j := newJSON(t, JSONOptions{Path: "-", Stdout: out})
	export := func(n int) {
		for range n {
			j.Export(execEvent(), pipeline.Attribution{})
		}
		j.Flush()
		for j.Stats().Queued > 0 {
			j.Flush()
		}
	}
	export(100)
	export(10)
	out.mend(1 << 30)
	export(50)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	s := j.Stats()
	closes(t, s)
	var whole, broken uint64
	for line := range bytes.Lines(out.b) {
		if json.Valid(line) {
			whole++
		} else {
			broken++
		}
	}
	if whole != s.Exported || broken != 1 || s.Failed == 0 || s.Exported+s.Failed != 160 || s.LastError != errFull.Error() {
		t.Errorf("%d whole and %d broken lines, %+v", whole, broken, s)
	}
	if !strings.HasSuffix(string(out.b), "}\n") {
		t.Error("the last line is broken")
	}
}

func TestAWriterThatHangsCostsEventsButNeverBlocks(t *testing.T) {
	r, w := io.Pipe()
	j := newJSON(t, JSONOptions{Path: "-", Stdout: w})
	const events = 60000
	for range events {
		j.Export(execEvent(), pipeline.Attribution{})
	}
	j.Flush()
	s := j.Stats()
	closes(t, s)
	if s.QueueDropped == 0 || s.Queued == 0 || s.Exported != 0 {
		t.Errorf("%+v", s)
	}
	if depth, capacity := j.Queue(); depth == 0 || depth > capacity {
		t.Errorf("queue %d of %d", depth, capacity)
	}
	read := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		read <- b
	}()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s = j.Stats()
	closes(t, s)
	if n := wholeLines(t, <-read); n != s.Exported || s.Exported+s.QueueDropped != events {
		t.Errorf("%d lines, %+v", n, s)
	}
}

func TestNoEventAllocatesWhenItIsWritten(t *testing.T) {
	j := newJSON(t, JSONOptions{Path: "-", Stdout: io.Discard})
	e, a := execEvent(), pipeline.Attribution{Workload: workload()}
	round := func() {
		for range 2000 {
			j.Export(e, a)
		}
		j.Flush()
		for j.Stats().Queued > 0 {
			j.Flush()
		}
	}
	for range batchCount * 2 { // all batches are made
		round()
	}
	if n := testing.AllocsPerRun(20, round); n > 2 {
		t.Errorf("%v allocations for 2000 events", n)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
