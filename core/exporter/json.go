package exporter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

// JSONOptions of NewJSON.
type JSONOptions struct {
	Name     string
	Path     string // of the file; "-": Stdout
	MaxBytes int64  // of a file before it is rotated; 0: never
	MaxFiles int    // rotated files that are kept; 0: all
	Kinds    []event.Kind
	Stdout   io.Writer
}

// JSON writes one event a line, to standard output or to a file that it rotates.
type JSON struct {
	name    string
	encoder *Encoder
	scope   Scope
	queue   *queue
	out     io.WriteCloser
}

// NewJSON opens the output and starts the writer. An output that can't be opened
// is an error now; one that fails later is counted.
func NewJSON(o JSONOptions, encoder *Encoder) (*JSON, error) {
	j := &JSON{name: o.Name, encoder: encoder, scope: NewScope(o.Kinds)}
	switch {
	case o.Path == "-":
		j.out = nopCloser{o.Stdout}
	default:
		out, err := openFile(o)
		if err != nil {
			return nil, err
		}
		j.out = out
	}
	j.queue = newQueue(j.out.Write)
	return j, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func openFile(o JSONOptions) (io.WriteCloser, error) {
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of exporter %q: %w", o.Name, err)
	}
	f, err := os.OpenFile(o.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file of exporter %q: %w", o.Name, err)
	}
	if info, err := f.Stat(); o.MaxBytes == 0 || err == nil && !info.Mode().IsRegular() {
		return f, nil // a pipe or a device is not rotated
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open the file of exporter %q: %w", o.Name, err)
	}
	const mega = 1 << 20 // lumberjack's unit
	return &lumberjack.Logger{
		Filename: o.Path, MaxSize: int((o.MaxBytes + mega - 1) / mega), MaxBackups: o.MaxFiles,
	}, nil
}

// Name of the exporter.
func (j *JSON) Name() string { return j.name }

// Export encodes one event into the batch at hand.
func (j *JSON) Export(e *event.Event, a pipeline.Attribution) {
	q := j.queue
	q.pending.released++
	if !j.scope[e.Kind] {
		q.pending.scopedOut++
		return
	}
	l := q.room()
	if l == nil {
		q.pending.dropped++
		return
	}
	l.b = j.encoder.Append(l.b, e, a)
	l.n++
	if len(l.b) >= batchBytes {
		q.flush()
	}
}

// Flush hands the batch to the writer.
func (j *JSON) Flush() {
	j.queue.flush()
	j.encoder.clock.Sync()
}

// Stats of the exporter. Safe at any time.
func (j *JSON) Stats() Stats { return j.queue.stats(j.name) }

// Congested tells that the writer works but can't keep up.
func (j *JSON) Congested() bool { return j.queue.congested() }

// Queue is how many batches wait to be written, and how many can. Safe at any time.
func (j *JSON) Queue() (depth, capacity uint64) {
	return uint64(len(j.queue.full)), uint64(cap(j.queue.full))
}

// Close writes what is queued and closes the file. No Export may follow.
func (j *JSON) Close() error {
	j.queue.close()
	if err := j.out.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close exporter %q: %w", j.name, err)
	}
	return nil
}
