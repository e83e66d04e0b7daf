package recording

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Reader reads a recording, of which it believes nothing. Its memory does not grow,
// whatever it reads. It is for one goroutine.
type Reader struct {
	header Header
	from   *bufio.Reader
	zip    *bufio.Reader // what was compressed
	offset int64         // in it

	columns [columns + 1]column
	left    int // events of the block
	read    uint64

	at     uint64 // of the last event, in units
	groups uint64 // the greatest number
	lives  uint64 // the greatest number
	err    error  // the first, io.EOF included
}

// column is what is left of a block's.
type column struct {
	room   []byte
	bytes  []byte
	offset int64 // of them
}

// NewReader reads the header. Errors wrap ErrMalformed, or are those of from.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{from: bufio.NewReader(from)}
	var b [headerSize]byte
	if n, err := io.ReadFull(r.from, b[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it ends at byte %d, within the header", ErrMalformed, n)
		}
		return nil, fmt.Errorf("read the recording: %w", err)
	}
	var err error
	if r.header, err = decodeHeader(b[:]); err != nil {
		return nil, err
	}
	zip, err := gzip.NewReader(r.from) // reads no byte more than it needs of a bufio.Reader
	if err != nil {
		return nil, fmt.Errorf("%w: at byte %d: the events: %w", ErrMalformed, headerSize, err)
	}
	zip.Multistream(false)
	r.zip = bufio.NewReader(zip)
	return r, nil
}

// Header is the recording's.
func (r *Reader) Header() Header { return r.header }

// Next gives the next event; io.EOF: there are no more, and the whole recording was
// sound. Other errors wrap ErrMalformed and say where: by the offset in what the events
// are when they are not compressed.
func (r *Reader) Next(e *Event) error {
	if r.err != nil {
		return r.err
	}
	if r.left == 0 {
		if r.err = r.block(); r.err != nil {
			return r.err
		}
	}
	r.err = r.event(e)
	return r.err
}

// block reads the next one; io.EOF: it was the end.
func (r *Reader) block() error {
	at := r.offset
	n, err := r.number()
	if err != nil {
		return err
	}
	switch {
	case n == 0:
		return r.end()
	case n > blockEvents:
		return malformed(at, "a block of %d events: there are at most %d", n, blockEvents)
	case n > r.header.Events-r.read:
		return malformed(at, "more events than the %d of the header", r.header.Events)
	}
	r.left = int(n)
	for i := range r.columns {
		if i == columns && !r.header.CPUs {
			break
		}
		if err := r.column(&r.columns[i], n); err != nil {
			return err
		}
	}
	return nil
}

// column reads one of a block of n events.
func (r *Reader) column(c *column, n uint64) error {
	at := r.offset
	size, err := r.number()
	if err != nil {
		return err
	}
	if size < n || size > n*binary.MaxVarintLen64 {
		return malformed(at, "a column of %d bytes for %d events", size, n)
	}
	if uint64(cap(c.room)) < size {
		c.room = make([]byte, size)
	}
	c.bytes, c.offset = c.room[:size], r.offset
	got, err := io.ReadFull(r.zip, c.bytes)
	r.offset += int64(got)
	return r.failure(err)
}

// end checks that nothing is left.
func (r *Reader) end() error {
	if r.read != r.header.Events {
		return malformed(r.offset, "the end after %d events: the header says %d", r.read, r.header.Events)
	}
	switch _, err := r.zip.ReadByte(); {
	case err == nil:
		return malformed(r.offset, "something follows the end")
	case !errors.Is(err, io.EOF):
		return r.failure(err)
	}
	switch _, err := r.from.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something follows the compressed events", ErrMalformed)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read the recording: %w", err)
	}
	return io.EOF
}

// event takes one from the columns.
func (r *Reader) event(e *Event) error {
	var values [columns]uint64
	for i := range values {
		c := &r.columns[i]
		if i == 1 {
			if len(c.bytes) == 0 {
				return malformed(c.offset, "a column of classes is too short")
			}
			values[i], c.bytes, c.offset = uint64(c.bytes[0]), c.bytes[1:], c.offset+1
			continue
		}
		v, n := binary.Uvarint(c.bytes)
		if n <= 0 {
			return malformed(c.offset, "a number without an end")
		}
		values[i], c.bytes = v, c.bytes[n:]
		c.offset += int64(n)
	}
	*e = Event{}
	if err := r.fill(e, values); err != nil {
		return err
	}
	if c := &r.columns[columns]; r.header.CPUs {
		if len(c.bytes) == 0 {
			return malformed(c.offset, "a column of CPUs is too short")
		}
		e.CPU, c.bytes, c.offset = c.bytes[0], c.bytes[1:], c.offset+1
	}
	r.read++
	if r.left--; r.left > 0 {
		return nil
	}
	for i := range r.columns {
		if c := &r.columns[i]; len(c.bytes) > 0 && (i < columns || r.header.CPUs) {
			return malformed(c.offset, "a column is longer than its events")
		}
	}
	return nil
}

// fill checks what an event's columns say.
func (r *Reader) fill(e *Event, values [columns]uint64) error {
	delta, class, group, life, attribute := values[0], values[1], values[2], values[3], values[4]
	before := func(i int) int64 { return r.columns[i].offset - 1 } // in its last byte
	if most := uint64(r.header.Duration) / uint64(unit); delta > most-r.at {
		return malformed(before(0), "an event after the recording's %v", r.header.Duration)
	}
	r.at += delta
	e.At = int64(r.at) * unit
	e.Kind, e.Priority = event.Kind(class>>3), event.Priority(class&7)
	if !written(e.Kind) || e.Priority >= event.Priorities {
		return malformed(before(1), "an event of kind %d and priority %d, which this program does not know", e.Kind, e.Priority)
	}
	if group > r.groups+1 || group > 1<<32-1 {
		return malformed(before(2), "an event of group %d: there were %d", group, r.groups)
	}
	r.groups = max(r.groups, group)
	e.Group = uint32(group)
	switch {
	case life == 0:
	case life == 1:
		r.lives++
		e.Lifecycle = r.lives
	case life-2 >= r.lives:
		return malformed(before(3), "an event of a life %d before the last: there were %d", life-2, r.lives)
	default:
		e.Lifecycle = r.lives - (life - 2)
	}
	if attribute > 1<<16-1 {
		return malformed(before(4), "an event of attribute %d", attribute)
	}
	e.Attribute = uint16(attribute)
	return nil
}

// number reads one that stands alone.
func (r *Reader) number() (uint64, error) {
	at := r.offset
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		b, err := r.zip.ReadByte()
		if err != nil {
			return 0, r.failure(err)
		}
		r.offset++
		if shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, malformed(at, "a number without an end")
}

// failure is what reading has failed with.
func (r *Reader) failure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return malformed(r.offset, "it is cut off")
	default:
		return fmt.Errorf("%w: at byte %d of the events: %w", ErrMalformed, r.offset, err)
	}
}

func malformed(offset int64, format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d of the events: %s", ErrMalformed, offset, fmt.Sprintf(format, args...))
}
