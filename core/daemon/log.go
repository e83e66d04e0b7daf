package daemon

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// logSettings are what of a log can change while it is written.
type logSettings struct {
	level slog.LevelVar
	json  atomic.Bool
}

func (s *logSettings) set(c config.Log) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration allows no other word
	}
	s.level.Set(level)
	s.json.Store(c.Format == "json")
}

// newLogger makes a log that stays as it is.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	log, _ := newLog(w, c)
	return log
}

// newLog makes a log with the settings that change it.
func newLog(w io.Writer, c config.Log) (*slog.Logger, *logSettings) {
	s := &logSettings{}
	s.set(c)
	out := &lines{w: w}
	o := &slog.HandlerOptions{Level: &s.level}
	return slog.New(logHandler{s, slog.NewTextHandler(out, o), slog.NewJSONHandler(out, o)}), s
}

// logHandler writes in the format of the moment.
type logHandler struct {
	settings   *logSettings
	text, json slog.Handler
}

var _ slog.Handler = logHandler{}

func (h logHandler) now() slog.Handler {
	if h.settings.json.Load() {
		return h.json
	}
	return h.text
}

func (h logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.now().Enabled(ctx, l) }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error { return h.now().Handle(ctx, r) }

func (h logHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return logHandler{h.settings, h.text.WithAttrs(a), h.json.WithAttrs(a)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.settings, h.text.WithGroup(name), h.json.WithGroup(name)}
}

// lines lets the handlers of both formats write, a line at a time.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
