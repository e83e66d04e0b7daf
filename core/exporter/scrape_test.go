package exporter

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

func serveMore(t *testing.T, f *figures, more MoreMetrics, log io.Writer) *Prometheus {
	t.Helper()
	p, err := NewPrometheus(PrometheusOptions{
		Name: "prometheus", Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(log, nil)), More: more,
	}, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// ask scrapes with an Accept-Encoding, without what Go's client does about it.
func ask(t *testing.T, p *Prometheus, path, encoding string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", encoding)
	r.Header.Set("Accept", "application/openmetrics-text;version=1.0.0,application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7")
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var body io.Reader = answer.Body
	if answer.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(answer.Body); err != nil {
			t.Fatal(err)
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func threads(w io.Writer, wanted func(string) bool) error {
	for _, name := range []string{"container_threads", "container_threads_max"} {
		if wanted(name) {
			if _, err := fmt.Fprintf(w, "# TYPE %s gauge\n%s{id=\"/a\"} 1\n", name, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestMoreMetricsFollowThoseOfTheDaemonInOneAnswer(t *testing.T) {
	p := serveMore(t, someFigures(), threads, io.Discard)
	for range 2 { // the second time with what the first has left
		for _, c := range []struct{ encoding, want string }{
			{"gzip", "gzip"}, {"zstd, gzip;q=0.5", "gzip"}, {"identity", ""}, {"gzip;q=0", ""}, {"GZIP; q=1.0", "gzip"}, {"gzipped", ""}, {"gzip;q=x", ""},
		} {
			answer, text := ask(t, p, "/metrics", c.encoding)
			if got := answer.Header.Get("Content-Encoding"); got != c.want || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
				t.Errorf("%s: %q, %q", c.encoding, got, answer.Header.Get("Content-Type"))
			}
			for _, has := range []string{"ebpf_tracer_plugin_restarts_total", "container_threads{id=\"/a\"} 1\n", "container_threads_max{"} {
				if !strings.Contains(text, has) {
					t.Errorf("%s: the answer lacks %s", c.encoding, has)
				}
			}
		}
	}
	if _, text := ask(t, p, "/metrics?name[]=container_threads&name[]=ebpf_tracer_plugin_pid", "gzip"); !strings.Contains(text, "container_threads{") ||
		!strings.Contains(text, "ebpf_tracer_plugin_pid{") || strings.Contains(text, "container_threads_max") || strings.Contains(text, "ebpf_tracer_plugin_info") {
		t.Errorf("by name: %s", text)
	}
}

func TestAnErrorOfMoreMetricsIsLogged(t *testing.T) {
	var log strings.Builder
	p := serveMore(t, someFigures(), func(io.Writer, func(string) bool) error { return errors.New("out of figures") }, &log)
	if answer, text := ask(t, p, "/metrics", "gzip"); answer.StatusCode != http.StatusOK || !strings.Contains(text, "ebpf_tracer_plugin_pid") {
		t.Errorf("%s: %s", answer.Status, text)
	}
	if !strings.Contains(log.String(), "out of figures") {
		t.Errorf("the log has %s", log.String())
	}
}

func TestNoMoreThanAFewScrapesAreAnsweredAtATime(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	p := serveMore(t, someFigures(), func(io.Writer, func(string) bool) error {
		begun <- struct{}{}
		<-end
		return nil
	}, io.Discard)
	done := make(chan int)
	for range mostScrapes {
		go func() {
			answer, _ := ask(t, p, "/metrics", "gzip")
			done <- answer.StatusCode
		}()
		<-begun
	}
	if answer, text := ask(t, p, "/metrics", "gzip"); answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "try again later") {
		t.Errorf("one more: %s %s", answer.Status, text)
	}
	close(end)
	for range mostScrapes {
		if status := <-done; status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
}
