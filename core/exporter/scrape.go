package exporter

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/common/expfmt"
)

// scrape answers a scrape: what the registry has, and then what more writes. What has
// many series, a few dozen for each container, is written as text as it goes: a registry
// would first make an object of every series, and keep them all until the last is sent.
type scrape struct {
	registry http.Handler // in the text format alone, not compressed
	more     MoreMetrics
	failed   func(error)
	slots    chan struct{} // for those that are answered
	zippers  sync.Pool
}

// textFormat is the only one that there is.
var textFormat = expfmt.NewFormat(expfmt.TypeTextPlain)

func (s *scrape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		http.Error(w, fmt.Sprintf("%d scrapes are being answered: try again later", cap(s.slots)), http.StatusServiceUnavailable)
		return
	}
	out := &answer{ResponseWriter: w, to: w}
	w.Header().Add("Vary", "Accept-Encoding")
	if takesGzip(r.Header.Values("Accept-Encoding")) {
		z, ok := s.zippers.Get().(*gzip.Writer)
		if !ok {
			z, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // a level that there is
		}
		z.Reset(w)
		out.to, out.zipped = z, true
		defer func() {
			if out.written {
				_ = z.Close() // an error: the reader is gone
			}
			z.Reset(io.Discard)
			s.zippers.Put(z)
		}()
	}
	s.registry.ServeHTTP(out, r)
	if s.more == nil || out.status != http.StatusOK {
		return
	}
	if err := s.more(out, wanted(r.URL.Query()["name[]"])); err != nil && r.Context().Err() == nil {
		s.failed(err)
	}
}

// wanted tells which metrics are asked for: without names all.
func wanted(names []string) func(string) bool {
	if len(names) == 0 {
		return func(string) bool { return true }
	}
	return func(name string) bool { return slices.Contains(names, name) }
}

// answer is a response that may be compressed.
type answer struct {
	http.ResponseWriter
	to      io.Writer
	zipped  bool
	status  int
	written bool
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		if a.zipped {
			a.Header().Set("Content-Encoding", "gzip")
			a.Header().Del("Content-Length")
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	a.written = true
	return a.to.Write(b)
}

// takesGzip reads Accept-Encoding.
func takesGzip(accept []string) bool {
	for _, values := range accept {
		for value := range strings.SplitSeq(values, ",") {
			coding, parameters, _ := strings.Cut(strings.TrimSpace(value), ";")
			if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				continue
			}
			weight, given := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q=")
			q, err := strconv.ParseFloat(weight, 64)
			return !given || err == nil && q > 0
		}
	}
	return false
}
