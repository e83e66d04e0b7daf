package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
)

// lineReader reads a growing file of events, each line once.
type lineReader struct {
	offset int64
	events []Event
}

func (r *lineReader) read(path string) error {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(r.offset, io.SeekStart); err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return nil // the rest of the line is still to come
		}
		e, err := Parse(b[:end])
		if err != nil {
			return fmt.Errorf("%s, at byte %d: %w", path, r.offset, err)
		}
		r.events = append(r.events, e)
		r.offset += int64(end) + 1
		b = b[end+1:]
	}
}

// Events are all events that the daemon has written so far, in the order of the file.
// The test fails when a line is not what it must be.
func (tr *Tracer) Events() []Event {
	tr.t.Helper()
	if err := tr.lines.read(tr.JSON); err != nil {
		tr.t.Fatal(err)
	}
	return tr.lines.events
}

// Until waits until the events written so far satisfy a condition, and returns them;
// what tells in the failure what was waited for.
func (tr *Tracer) Until(what string, enough func([]Event) bool) []Event {
	tr.t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		events := tr.Events()
		if enough(events) {
			return events
		}
		if !tr.Running() {
			tr.t.Fatalf("the daemon ended while the test waited for %s", what)
		}
		if time.Now().After(deadline) {
			tr.t.Fatalf("waited in vain for %s; %d events were written", what, len(events))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// UntilCount waits until n events of a kind match; match may be nil. It returns those
// that do, which may be more.
func (tr *Tracer) UntilCount(n int, kind string, match func(*Event) bool) []*Event {
	tr.t.Helper()
	var found []*Event
	tr.Until(fmt.Sprintf("%d events %s", n, kind), func(events []Event) bool {
		found = Select(events, kind, match)
		return len(found) >= n
	})
	return found
}
