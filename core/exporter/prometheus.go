package exporter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"golang.org/x/net/netutil"
)

// PrometheusOptions of NewPrometheus.
type PrometheusOptions struct {
	Name     string
	Listen   string // host:port
	Version  string // of the daemon
	Revision string
	Log      *slog.Logger
	More     MoreMetrics // nil: there are none
}

// MoreMetrics writes further metrics in Prometheus' text format, whole families of names
// that nobody else has: those that are wanted. It may be called several times at once.
type MoreMetrics func(w io.Writer, wanted func(name string) bool) error

const (
	mostConnections = 64
	mostScrapes     = 4 // at one time
)

// Prometheus serves the daemon's own metrics over HTTP: what the Source says at
// the time of the scrape, and the process and Go metrics of the client library. It
// exports no events.
type Prometheus struct {
	name    string
	server  *http.Server
	address net.Addr
	serving sync.WaitGroup
}

// NewPrometheus listens and serves until Close. That the address can't be had is
// an error now; one that comes while serving is logged.
func NewPrometheus(o PrometheusOptions, source Source) (*Prometheus, error) {
	registry, err := newRegistry(o, source)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for exporter %q: %w; set another address in exporter %q { listen = ... }", o.Name, err, o.Name)
	}
	p := &Prometheus{name: o.Name, address: listener.Addr()}
	errorLog := slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", &scrape{
		registry: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
			ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, Registry: registry,
			DisableCompression: true, AcceptedFormats: []expfmt.Format{textFormat},
		}),
		more:   o.More,
		failed: func(err error) { o.Log.Warn("write the metrics of containers", "exporter", o.Name, "error", err) },
		slots:  make(chan struct{}, mostScrapes),
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if _, err := io.WriteString(w, frontPage); err != nil {
			return // the reader is gone
		}
	})
	p.server = &http.Server{
		Handler: mux, ErrorLog: errorLog, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	p.serving.Go(func() {
		err := p.server.Serve(netutil.LimitListener(listener, mostConnections))
		if !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("metrics are not served any more", "exporter", o.Name, "error", err)
		}
	})
	return p, nil
}

const frontPage = `<!doctype html>
<html lang="en"><head><title>ebpf-tracer</title></head>
<body><h1>ebpf-tracer</h1><p><a href="/metrics">Metrics</a></p></body></html>
`

// newRegistry makes a registry of its own: nothing here is global.
func newRegistry(o PrometheusOptions, source Source) (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ebpf_tracer_build_info",
		Help: "1, labelled with what this daemon was built from.",
		ConstLabels: prometheus.Labels{
			"version": text(o.Version), "revision": text(o.Revision), "goversion": runtime.Version(),
		},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		build, newCollector(source),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of exporter %q: %w", o.Name, err)
		}
	}
	return registry, nil
}

// Name of the exporter.
func (p *Prometheus) Name() string { return p.name }

// Addr is the address that it listens on.
func (p *Prometheus) Addr() net.Addr { return p.address }

// Close stops listening, lets scrapes under way end until ctx is done, and cuts
// them off then.
func (p *Prometheus) Close(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	if err != nil {
		err = p.server.Close()
	}
	p.serving.Wait()
	if err != nil {
		return fmt.Errorf("close exporter %q: %w", p.name, err)
	}
	return nil
}
