package recording

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// ErrMalformed is what every error about what is in a recording wraps.
var ErrMalformed = errors.New("no sound recording")

// Header says what a recording is as a whole.
type Header struct {
	Duration time.Duration
	Events   uint64 // in it
	Lost     uint64 // that happened meanwhile and are not in it
	// Complete: it ended in good order, and nothing is missing.
	Complete bool
	CPUs     bool // it is known on which CPU each event was
}

// Event is one event.
type Event struct {
	At        int64          // ns since the recording began, never falling, of whole µs
	Group     uint32         // the cgroup's number, from 1; 0: the host
	Kind      event.Kind     // of the kernel, none of the daemon's own
	Priority  event.Priority //
	Attribute uint16         // the number of a path or peer, from 1; 0: none
	CPU       uint8          // 0 where CPUs are not known
	Lifecycle uint64         // the number of its process or socket, from 1; 0: none
}

const (
	magic      = "\x89EBTR\r\n\x1a"
	version    = 1
	headerSize = 40

	flagComplete = 1 << 0
	flagCPUs     = 1 << 1

	blockEvents = 8192
	columns     = 5 // and one more where CPUs are known

	unit = int64(time.Microsecond)
)

func (h Header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint16(b[8:], version)
	var flags uint16
	if h.Complete {
		flags |= flagComplete
	}
	if h.CPUs {
		flags |= flagCPUs
	}
	binary.LittleEndian.PutUint16(b[10:], flags)
	binary.LittleEndian.PutUint64(b[16:], uint64(h.Duration))
	binary.LittleEndian.PutUint64(b[24:], h.Events)
	binary.LittleEndian.PutUint64(b[32:], h.Lost)
	binary.LittleEndian.PutUint32(b[12:], crc32.ChecksumIEEE(b))
	return b
}

// decodeHeader is for headerSize bytes.
func decodeHeader(b []byte) (h Header, err error) {
	if string(b[:8]) == string(make([]byte, 8)) {
		return h, fmt.Errorf("%w: it was not ended: the command that wrote it was killed", ErrMalformed)
	}
	if string(b[:8]) != magic {
		return h, fmt.Errorf("%w: at byte 0: it does not begin as one; 'ebpf-tracer record' makes them", ErrMalformed)
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v != version {
		return h, fmt.Errorf("%w: at byte 8: it is of version %d, and this program reads version %d", ErrMalformed, v, version)
	}
	sum := binary.LittleEndian.Uint32(b[12:])
	whole := append([]byte(nil), b...)
	clear(whole[12:16])
	if crc32.ChecksumIEEE(whole) != sum {
		return h, fmt.Errorf("%w: at byte 12: the header's checksum is wrong", ErrMalformed)
	}
	flags := binary.LittleEndian.Uint16(b[10:])
	duration := binary.LittleEndian.Uint64(b[16:])
	h = Header{
		Duration: time.Duration(duration), Events: binary.LittleEndian.Uint64(b[24:]), Lost: binary.LittleEndian.Uint64(b[32:]),
		Complete: flags&flagComplete != 0, CPUs: flags&flagCPUs != 0,
	}
	switch {
	case flags&^(flagComplete|flagCPUs) != 0:
		return h, fmt.Errorf("%w: at byte 10: unknown flags %#x", ErrMalformed, flags)
	case duration > math.MaxInt64:
		return h, fmt.Errorf("%w: at byte 16: a duration of %d ns", ErrMalformed, duration)
	case h.Complete && h.Lost > 0:
		return h, fmt.Errorf("%w: at byte 32: it is called complete, and %d events are missing", ErrMalformed, h.Lost)
	}
	return h, nil
}
