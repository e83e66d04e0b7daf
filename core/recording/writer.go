package recording

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Writer writes a recording. Its memory does not grow. It is for one goroutine.
type Writer struct {
	to      io.WriteSeeker
	zip     *gzip.Writer
	header  Header
	columns [columns + 1][]byte
	waiting int // events in columns

	at     int64  // of the last event, in units
	groups uint32 // the greatest number
	lives  uint64 // the greatest number
	closed bool
	err    error // the first
}

// NewWriter begins a recording. cpus says that the events' CPUs are known. Until Close
// has returned, what was written is no recording.
func NewWriter(to io.WriteSeeker, cpus bool) (*Writer, error) {
	if _, err := to.Write(make([]byte, headerSize)); err != nil {
		return nil, fmt.Errorf("write the recording: %w", err)
	}
	zip, err := gzip.NewWriterLevel(to, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	return &Writer{to: to, zip: zip, header: Header{CPUs: cpus}}, nil
}

// Write adds an event. One that is earlier than the one before it gets its time; a
// kind, priority or number that the format has no room for, or that is out of turn, is
// an error, and so is what an earlier call or the file has failed with.
func (w *Writer) Write(e Event) error {
	if w.err != nil {
		return w.err
	}
	if err := w.check(&e); err != nil {
		return err
	}
	at := max(e.At/unit, w.at)
	w.columns[0] = binary.AppendUvarint(w.columns[0], uint64(at-w.at))
	w.columns[1] = append(w.columns[1], byte(e.Kind)<<3|byte(e.Priority))
	w.columns[2] = binary.AppendUvarint(w.columns[2], uint64(e.Group))
	w.columns[3] = binary.AppendUvarint(w.columns[3], w.life(e.Lifecycle))
	w.columns[4] = binary.AppendUvarint(w.columns[4], uint64(e.Attribute))
	if w.header.CPUs {
		w.columns[5] = append(w.columns[5], e.CPU)
	}
	w.at, w.groups = at, max(w.groups, e.Group)
	w.header.Events++
	if w.waiting++; w.waiting == blockEvents {
		w.err = w.flush()
	}
	return w.err
}

func (w *Writer) check(e *Event) error {
	switch {
	case w.closed:
		return errors.New("write to a recording that is closed")
	case !written(e.Kind) || e.Priority >= event.Priorities:
		return fmt.Errorf("record an event of kind %s, priority %s: it is not of the kernel", e.Kind, e.Priority)
	case e.Group > w.groups+1:
		return fmt.Errorf("record an event of group %d: there were %d", e.Group, w.groups)
	case e.Lifecycle > w.lives+1:
		return fmt.Errorf("record an event of life %d: there were %d", e.Lifecycle, w.lives)
	}
	return nil
}

// written tells a kind that can be in a recording.
func written(k event.Kind) bool { return k < event.KernelKinds && k < 1<<5 && !k.Internal() }

func (w *Writer) life(number uint64) uint64 {
	switch {
	case number == 0:
		return 0
	case number > w.lives:
		w.lives = number
		return 1
	default:
		return w.lives - number + 2
	}
}

// flush writes the events that wait as a block.
func (w *Writer) flush() error {
	if w.waiting == 0 {
		return nil
	}
	err := w.number(uint64(w.waiting))
	for i := range w.columns {
		if i == columns && !w.header.CPUs {
			break
		}
		err = errors.Join(err, w.number(uint64(len(w.columns[i]))), w.bytes(w.columns[i]))
		w.columns[i] = w.columns[i][:0]
	}
	w.waiting = 0
	return err
}

func (w *Writer) number(n uint64) error {
	var b [binary.MaxVarintLen64]byte
	return w.bytes(b[:binary.PutUvarint(b[:], n)])
}

func (w *Writer) bytes(b []byte) error {
	if _, err := w.zip.Write(b); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	return nil
}

// Events is how many were written.
func (w *Writer) Events() uint64 { return w.header.Events }

// Groups is how many groups they are of, the host left out.
func (w *Writer) Groups() uint32 { return w.groups }

// Close ends the recording, which took duration and during which lost events went
// missing: only without any is it called complete. It gives what the header says. The
// file itself is the caller's to close.
func (w *Writer) Close(duration time.Duration, lost uint64) (Header, error) {
	if w.closed {
		return w.header, errors.New("close a recording that is closed")
	}
	w.closed = true
	w.header.Duration = max(duration, time.Duration(w.at*unit))
	w.header.Lost, w.header.Complete = lost, lost == 0
	if w.err != nil {
		return w.header, w.err
	}
	err := errors.Join(w.flush(), w.number(0))
	if err != nil {
		return w.header, err
	}
	err = w.zip.Close()
	if err == nil {
		_, err = w.to.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = w.to.Write(w.header.encode())
	}
	if err == nil {
		_, err = w.to.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return w.header, fmt.Errorf("write the recording: %w", err)
	}
	return w.header, nil
}
