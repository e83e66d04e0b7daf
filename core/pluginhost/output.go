package pluginhost

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

const (
	tailLines  = 20      // lines that are kept
	tailBytes  = 1 << 10 // of each
	linesPerS  = 500     // lines that are passed on each second
	cutMessage = " [cut]"
)

// output takes what a plugin writes to its standard error, over all its
// instances: it keeps the last lines and passes each on to the daemon's log. A
// line that is too long is cut, a flood is thinned and counted; the plugin never
// waits for the daemon's log.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	tail    []string
	fresh   int    // how many of them the last process wrote
	crash   string // the line by which its runtime began to tell of a crash; "": none
	second  time.Time
	lines   int    // of this second
	dropped uint64 // lines not passed on and not told of yet
	telling *time.Timer
}

// read takes lines until r ends. It returns when the pipe is closed, at its
// deadline, or on any other error, which all mean that nothing more will come.
func (o *output) read(r io.Reader, stream string) {
	defer o.tell() // nothing may follow that would
	b := bufio.NewReaderSize(r, wire.MaxLogLine)
	for {
		line, err := b.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 {
			o.line(line, cut, stream)
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = b.ReadSlice('\n') // the rest of it
		}
		if err != nil {
			return
		}
	}
}

// line takes one line. It does not keep the slice.
func (o *output) line(raw []byte, cut bool, stream string) {
	raw = bytes.TrimRight(raw, "\r\n")
	if len(bytes.TrimSpace(raw)) == 0 {
		return
	}
	text := strings.ToValidUTF8(string(raw[:min(len(raw), tailBytes)]), "\uFFFD")
	if cut || len(raw) > tailBytes {
		text += cutMessage
	}
	o.mu.Lock()
	if len(o.tail) == tailLines {
		o.tail = append(o.tail[:0], o.tail[1:]...)
	}
	o.tail = append(o.tail, text)
	o.fresh = min(o.fresh+1, tailLines)
	if o.crash == "" && (strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ")) {
		o.crash = text
	}
	if now := time.Now(); now.Sub(o.second) >= time.Second {
		o.second, o.lines = now, 0
	}
	o.lines++
	pass := o.lines <= linesPerS
	if !pass {
		o.dropped++
		if o.telling == nil {
			o.telling = time.AfterFunc(time.Second, o.tell)
		}
	}
	o.mu.Unlock()
	if pass {
		o.forward(raw, text, stream)
	}
}

// tell says how many lines were left out since it last did, in a flood once a second.
func (o *output) tell() {
	o.mu.Lock()
	lines := o.dropped
	o.dropped = 0
	if o.telling != nil {
		o.telling.Stop()
		o.telling = nil
	}
	o.mu.Unlock()
	if lines > 0 {
		o.log.Warn("plugin logs too much, lines were left out", "lines", lines)
	}
}

// forward writes a line to the daemon's log: a record of the SDK as the record
// that it is, anything else as text.
func (o *output) forward(raw []byte, text, stream string) {
	ctx := context.Background()
	var fields map[string]any
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &fields) != nil {
		o.log.LogAttrs(ctx, slog.LevelInfo, text, slog.String("stream", stream))
		return
	}
	msg, _ := fields[slog.MessageKey].(string)
	name, _ := fields[slog.LevelKey].(string)
	var level slog.Level
	if msg == "" || level.UnmarshalText([]byte(name)) != nil {
		o.log.LogAttrs(ctx, slog.LevelInfo, text, slog.String("stream", stream))
		return
	}
	delete(fields, slog.MessageKey)
	delete(fields, slog.LevelKey)
	delete(fields, slog.TimeKey)
	attrs := make([]slog.Attr, 0, len(fields))
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		attrs = append(attrs, slog.Any(k, fields[k]))
	}
	o.log.LogAttrs(ctx, level, msg, attrs...)
}

// begin says that what follows is another process's.
func (o *output) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fresh, o.crash = 0, ""
}

// lastWords are what the last process wrote at its end, in short: what says most.
// "": it wrote nothing.
func (o *output) lastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	const shown = 3
	if o.crash != "" {
		return strconv.Quote(o.crash)
	}
	n := min(o.fresh, shown)
	quoted := make([]string, 0, n)
	for _, line := range o.tail[len(o.tail)-n:] {
		quoted = append(quoted, strconv.Quote(line))
	}
	return strings.Join(quoted, ", ")
}

// last are the lines kept, oldest first.
func (o *output) last() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.tail...)
}

// after puts the lines that another output kept before its own.
func (o *output) after(before *output) {
	lines := before.last()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(lines, o.tail...)
	o.tail = o.tail[max(0, len(o.tail)-tailLines):]
}
