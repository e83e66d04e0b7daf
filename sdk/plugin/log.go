package plugin

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// newLogger writes records to w as JSON lines that the daemon takes whole.
func newLogger(w io.Writer) *slog.Logger {
	var level slog.Level // Info
	if err := level.UnmarshalText([]byte(os.Getenv(wire.LogLevelKey))); err != nil {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(&lineWriter{w: w}, &slog.HandlerOptions{Level: level}))
}

// lineWriter passes lines on, one Write each, and stands in a short record for
// a line that is too long for the daemon.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(line []byte) (int, error) {
	n := len(line)
	if n >= wire.MaxLogLine {
		line = shorten(line)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.w.Write(line); err != nil {
		return 0, err
	}
	return n, nil
}

// shorten makes a record that holds the beginning of a line and its length.
func shorten(line []byte) []byte {
	const head = 4 << 10
	var b bytes.Buffer
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "log record was too long and is cut", 0)
	r.AddAttrs(slog.Int("bytes", len(line)), slog.String("begins", string(line[:head])))
	// A JSONHandler on a bytes.Buffer has no way to fail.
	_ = slog.NewJSONHandler(&b, nil).Handle(context.Background(), r)
	return b.Bytes()
}
