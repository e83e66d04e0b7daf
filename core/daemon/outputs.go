package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
)

// output is an exporter with its part of the ledger.
type output interface {
	pipeline.Exporter
	Stats() exporter.Stats
	Queue() (depth, capacity uint64) // in batches
	Close() error
}

// outputs are the exporters of events.
type outputs []output

func encodeWorkload(w *inventory.Workload) []byte { return exporter.Fragment(w) }

func (d *daemon) encoder() *exporter.Encoder {
	return exporter.NewEncoder(d.config.Node.Name, d.clock)
}

// openOutputs opens the exporters that the configuration names, and the live view
// of the local API.
func (d *daemon) openOutputs() error {
	d.live = exporter.NewLive("live", d.encoder())
	d.outputs = append(d.outputs, d.live)
	if j := d.config.Exporters.JSON; j != nil {
		kinds, err := kinds(j.Kinds)
		if err != nil {
			return err
		}
		out, err := exporter.NewJSON(exporter.JSONOptions{
			Name: "json", Path: j.Path, MaxBytes: j.MaxSize, MaxFiles: max(j.MaxFiles-1, 0),
			Kinds: kinds, Stdout: d.options.Stdout,
		}, d.encoder())
		if err != nil {
			return err
		}
		d.outputs = append(d.outputs, out)
	}
	return nil
}

func kinds(names []string) ([]event.Kind, error) {
	out := make([]event.Kind, 0, len(names))
	for _, n := range names {
		k, ok := event.ParseKind(n)
		if !ok {
			return nil, fmt.Errorf("no kind of event is named %q", n)
		}
		out = append(out, k)
	}
	return out, nil
}

func (o outputs) pipeline() []pipeline.Exporter {
	out := make([]pipeline.Exporter, len(o))
	for i, x := range o {
		out[i] = x
	}
	return out
}

// close writes what is queued, and gives an output that takes nothing a second.
func (o outputs) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), exportersStop)
	defer cancel()
	closed := make(chan error, len(o))
	for _, x := range o {
		go func() { closed <- x.Close() }()
	}
	var errs []error
	for range o {
		select {
		case err := <-closed:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("an exporter still writes after %v: what it has queued is lost", exportersStop.Round(time.Second)))...)
		}
	}
	return errors.Join(errs...)
}
