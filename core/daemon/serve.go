package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/api"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
)

// apiStop is how long calls that are under way may take to end.
const apiStop = 500 * time.Millisecond

// servers are what others ask the daemon by.
type servers struct {
	api        *api.Server
	prometheus *exporter.Prometheus // nil: off
}

// serve answers on the socket, and on the metrics' address.
func (d *daemon) serve() error {
	if p := d.config.Exporters.Prometheus; p != nil {
		metrics, err := exporter.NewPrometheus(exporter.PrometheusOptions{
			Name: "prometheus", Listen: p.Listen, Version: d.options.Version,
			Revision: d.options.Revision, Log: d.log, More: d.moreMetrics(),
		}, source{d})
		if err != nil {
			return err
		}
		d.servers.prometheus = metrics
	}
	d.servers.api = api.New(api.Options{Listener: d.socket, Source: source{d}, Live: d.live, Log: d.log})
	return nil
}

// stopServing ends the servers that were started. The outputs must be closed
// first: those who watch then get what is at hand.
func (d *daemon) stopServing() error {
	ctx, cancel := context.WithTimeout(context.Background(), apiStop)
	defer cancel()
	var errs []error
	if d.servers.prometheus != nil {
		errs = append(errs, d.servers.prometheus.Close(ctx))
	}
	if d.servers.api != nil {
		errs = append(errs, d.servers.api.Close(ctx))
	}
	return errors.Join(append(errs, d.socket.Close())...)
}
