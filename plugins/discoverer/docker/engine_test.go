package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
)

// scripted is an engine that answers as it is told, for what a real one can't be
// brought to: ten thousand containers, silence in the middle of an answer, other
// names.
type scripted struct {
	socket     string
	containers int // guarded by mu after start
	mu         sync.Mutex
	labelBytes int
	podman     bool
	libpod     bool // a newer Podman, which says so with every answer, and was just started
	events     func(w http.ResponseWriter, r *http.Request)
	inspect    func(w http.ResponseWriter, r *http.Request) bool // true: answered
	inspects   atomic.Int64
}

func (s *scripted) start(t *testing.T) {
	t.Helper()
	if s.socket == "" {
		s.socket = filepath.Join(t.TempDir(), "d.sock")
	}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(s.serve)}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close() // closes the connections that hang on purpose
		<-done
	})
}

func (s *scripted) setContainers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers = n
}

func id64(i int) string { return fmt.Sprintf("%064x", i) }

func (s *scripted) serve(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	if strings.HasPrefix(p, "/v1.") {
		p = p[strings.IndexByte(p[1:], '/')+1:]
	}
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	if s.libpod {
		w.Header().Set("Libpod-API-Version", "4.3.1")
	}
	switch {
	case p == "/_ping":
	case p == "/version" && s.libpod:
		<-r.Context().Done()
	case p == "/version":
		name := "Engine"
		if s.podman {
			name = "Podman Engine"
		}
		fmt.Fprintf(w, `{"Version":"9","ApiVersion":"1.41","Components":[{"Name":%q,"Version":"9"}]}`, name)
	case p == "/info":
		fmt.Fprint(w, `{"CgroupDriver":"cgroupfs"}`)
	case p == "/events":
		if s.events != nil {
			s.events(w, r)
			return
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case p == "/containers/json":
		fmt.Fprint(w, "[")
		s.mu.Lock()
		n := s.containers
		s.mu.Unlock()
		for i := range n {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"Id":%q,"Names":["/c%d"],"Image":"app:1","ImageID":"sha256:%064d","State":"running","Labels":{"big":%q,"small":"x"}}`, id64(i), i, 1, strings.Repeat("b", s.labelBytes))
		}
		fmt.Fprint(w, "]")
	case strings.HasPrefix(p, "/images/"):
		fmt.Fprint(w, `{"Id":"sha256:1","RepoTags":["app:1"],"RepoDigests":["app@sha256:d"]}`)
	case strings.HasPrefix(p, "/containers/"):
		s.inspects.Add(1)
		if s.inspect != nil && s.inspect(w, r) {
			return
		}
		id := strings.Split(p, "/")[2]
		labels, _ := json.Marshal(map[string]string{"big": strings.Repeat("b", s.labelBytes), "small": "x"})
		fmt.Fprintf(w, `{"Id":%q,"Name":"/c","Image":"sha256:%064d","Created":"2026-01-01T00:00:00Z","State":{"Status":"running","Pid":1},"Config":{"Image":"app:1","Labels":%s},"HostConfig":{}}`, id, 1, labels)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func scriptedConfig(s *scripted) Config {
	c := defaults()
	c.Host, c.Timeout = "unix://"+s.socket, 2*time.Second
	return c
}

func TestTenThousandContainersAreHeldInBoundedMemory(t *testing.T) {
	s := &scripted{containers: 10_000, labelBytes: 200}
	s.start(t)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	c := scriptedConfig(s)
	c.Timeout = 30 * time.Second
	r := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("snapshot of %d in %v, %d inspects, %.1f MB held by discoverer and test", s.containers, took, s.inspects.Load(), float64(after.HeapAlloc-before.HeapAlloc)/1e6)
	if len(r.containers) != s.containers {
		t.Errorf("%d containers", len(r.containers))
	}
	if n := s.inspects.Load(); n != int64(s.containers) {
		t.Errorf("%d inspects", n)
	}
}

func TestLabelsOfAMegabyteAreCut(t *testing.T) {
	s := &scripted{containers: 3, labelBytes: 1 << 20}
	s.start(t)
	r := start(t, scriptedConfig(s), nil)
	r.wait("the snapshot", synced(1))
	c := r.container(id64(1))
	if n := len(c.Labels["big"]); n > 4<<10 || c.Labels["small"] != "x" || len(c.Truncated) != 1 || c.Truncated[0] != "labels" {
		t.Errorf("%d bytes, truncated %v", n, c.Truncated)
	}
	if c.Image.Digest != "sha256:d" {
		t.Error(c.Image)
	}
}

func TestAnEngineThatAcceptsAndSaysNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := defaults()
	c.Host, c.Timeout = "unix://"+socket, 100*time.Millisecond
	r := start(t, c, nil)
	r.wait("word of its silence", func(r *recorder) bool { return strings.Contains(r.reason, "does not answer within 100ms") })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := &scripted{containers: 1, socket: socket}
	s.start(t)
	r.wait("the snapshot of its successor", synced(1))
}

func TestAStreamOfEventsThatNeverOpens(t *testing.T) {
	s := &scripted{events: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}
	s.start(t)
	c := scriptedConfig(s)
	c.Timeout = 200 * time.Millisecond
	r := start(t, c, nil)
	r.wait("word of it", func(r *recorder) bool { return strings.Contains(r.reason, "open the stream of events") })
	if r.syncs != 0 {
		t.Error("synced without events")
	}
}

func TestOneSickContainerDoesNotHoldUpTheOthers(t *testing.T) {
	s := &scripted{containers: 20}
	s.inspect = func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, id64(3)) {
			return false
		}
		<-r.Context().Done()
		return true
	}
	s.start(t)
	c := scriptedConfig(s)
	c.Timeout = 200 * time.Millisecond
	r := start(t, c, nil)
	r.wait("the snapshot", synced(1))
	if sick := r.container(id64(3)); sick.GetName() != "c3" || sick.Image.Name != "app" {
		t.Errorf("the sick one is not known by its line in the list: %v", sick)
	}
	if r.container(id64(4)).CreatedUnixNano == 0 {
		t.Error("a sound one was not inspected")
	}
}

func TestPodmanIsKnownByItsComponents(t *testing.T) {
	// It answers /events with the first message only.
	s := &scripted{containers: 1, podman: true}
	s.events = func(w http.ResponseWriter, r *http.Request) {
		if f := r.URL.Query().Get("filters"); strings.Contains(f, "network") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, `{"Type":"container","Action":"create","Actor":{"ID":%q,"Attributes":{"name":"new","image":"localhost/app:2"}},"timeNano":%d}`+"\n", id64(7), time.Now().UnixNano())
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	s.start(t)
	r := start(t, scriptedConfig(s), nil)
	r.wait("the event", func(r *recorder) bool { return r.containers[id64(7)] != nil })
	if c := r.container(id64(7)); c.Runtime != "podman" {
		t.Error(c)
	}
}

func TestAPodmanThatWasJustStartedIsDetectedAtOnceAndOnlyByItsOwnDiscoverer(t *testing.T) {
	both := &scripted{libpod: true, containers: 1}
	both.start(t)
	other := &scripted{}
	other.start(t)
	for _, tt := range []struct {
		name    string
		service service
		at      string // where its default is
		host    string // what the operator says
		want    string // "": absent
	}{
		{"podman", podman(), both.socket, "", "podman 4.3.1 at " + both.socket},
		{"podman at docker's socket", docker(), both.socket, "", ""},
		{"podman for docker's discoverer, by the operator's word", docker(), "/none.sock", both.socket, "podman 4.3.1 at " + both.socket},
		{"docker", docker(), other.socket, "", "docker 9 at " + other.socket},
		{"docker at podman's socket", podman(), other.socket, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			if tt.service.socket = tt.at; tt.host != "" {
				c.Host = "unix://" + tt.host
			}
			d, err := newDiscoverer(tt.service, c, "", nil, testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			detail, err := d.Detect(t.Context())
			switch {
			case tt.want == "" && (!errors.Is(err, discover.ErrAbsent) || !strings.Contains(detail, "which is for discoverer")):
				t.Errorf("%q, %v", detail, err)
			case tt.want != "" && (err != nil || detail != tt.want):
				t.Errorf("%q, %v, want %q", detail, err, tt.want)
			}
		})
	}
	c := defaults()
	c.Host = "unix://" + both.socket
	r := start(t, c, nil)
	r.wait("its containers, though it tells no version", func(r *recorder) bool { return r.containers[id64(0)] != nil && r.syncs > 0 })
	if c := r.container(id64(0)); c.Runtime != "podman" {
		t.Error(c)
	}
}

// The list is the same all the time, but the lost events told otherwise: only a
// list, which nothing else asks for, finds what is there.
func TestEventsThatCameTooFastLeadToAResync(t *testing.T) {
	s := &scripted{}
	s.start(t)
	conn, err := dial(t.Context(), s.socket, 10*time.Second)
	must(t, err)
	r := newRecorder(t)
	tr := newTracker(r)
	tr.describe = &describer{filter: describe.NewFilter(describe.DefaultFilter())}
	c := defaults()
	c.Resync = 0
	ses := &session{conn: conn, tracker: tr, config: c, log: testLog(t)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ses.run(ctx) }()
	r.wait("an empty snapshot", synced(1))
	s.setContainers(2)
	ses.stream.lost.Store(5)
	ses.stream.messages <- *event("a", "create") // any event shows the loss
	r.wait("what the list tells", func(r *recorder) bool { return len(r.containers) == 2 && r.containers[id64(1)] != nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, conn.close())
}

func TestAnAnswerThatIsTooLargeIsNotRead(t *testing.T) {
	b := &boundedBody{ReadCloser: http.NoBody, left: 0}
	if _, err := b.Read(make([]byte, 1)); err != errAnswerTooLarge {
		t.Error(err)
	}
}
