package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"

	eventtypes "github.com/containerd/containerd/api/events"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// scripted is a containerd that answers as it is told, for what a real one can't be
// brought to: shims that hang, a store that is slow for one container, lost events.
type scripted struct {
	socket string

	mu         sync.Mutex
	containers []string // in the namespace default
	digest     string   // of every image
	gets       int
	slowTasks  bool
	slow       string // a container for which no question is answered
	published  chan *types.Envelope
}

func (s *scripted) start(t *testing.T) {
	t.Helper()
	s.socket, s.published = filepath.Join(t.TempDir(), "c.sock"), make(chan *types.Envelope, 100)
	l, err := net.Listen("unix", s.socket)
	must(t, err)
	g := grpc.NewServer()
	containersapi.RegisterContainersServer(g, scriptedContainers{scripted: s})
	eventsapi.RegisterEventsServer(g, scriptedEvents{scripted: s})
	imagesapi.RegisterImagesServer(g, scriptedImages{scripted: s})
	namespacesapi.RegisterNamespacesServer(g, scriptedNamespaces{})
	tasksapi.RegisterTasksServer(g, scriptedTasks{scripted: s})
	versionapi.RegisterVersionServer(g, scriptedVersion{})
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		must(t, <-done)
	})
}

func (s *scripted) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *scripted) config() Config {
	c := defaults()
	c.Address = "unix://" + s.socket
	return c
}

func (s *scripted) stored(id string) *containersapi.Container {
	return &containersapi.Container{ID: id, Image: "img:1"}
}

type scriptedContainers struct {
	containersapi.UnimplementedContainersServer
	*scripted
}

func (s scriptedContainers) ListStream(_ *containersapi.ListContainersRequest, to containersapi.Containers_ListStreamServer) error {
	var ids []string
	s.set(func() { ids = append(ids, s.containers...) })
	for _, id := range ids {
		if err := to.Send(&containersapi.ListContainerMessage{Container: s.stored(id)}); err != nil {
			return err
		}
	}
	return nil
}

func (s scriptedContainers) Get(ctx context.Context, r *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	slow := ""
	s.set(func() { s.gets++; slow = s.slow })
	if r.ID == slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &containersapi.GetContainerResponse{Container: s.stored(r.ID)}, nil
}

type scriptedEvents struct {
	eventsapi.UnimplementedEventsServer
	*scripted
}

func (s scriptedEvents) Subscribe(_ *eventsapi.SubscribeRequest, to eventsapi.Events_SubscribeServer) error {
	for {
		select {
		case e := <-s.published:
			if err := to.Send(e); err != nil {
				return err
			}
		case <-to.Context().Done():
			return nil
		}
	}
}

type scriptedImages struct {
	imagesapi.UnimplementedImagesServer
	*scripted
}

func (s scriptedImages) Get(context.Context, *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	digest := ""
	s.set(func() { digest = s.digest })
	if digest == "" {
		return nil, grpcstatus.Error(codes.NotFound, "no such image")
	}
	return &imagesapi.GetImageResponse{Image: &imagesapi.Image{Target: &types.Descriptor{Digest: digest}}}, nil
}

type scriptedNamespaces struct {
	namespacesapi.UnimplementedNamespacesServer
}

func (scriptedNamespaces) List(context.Context, *namespacesapi.ListNamespacesRequest) (*namespacesapi.ListNamespacesResponse, error) {
	return &namespacesapi.ListNamespacesResponse{Namespaces: []*namespacesapi.Namespace{{Name: "default"}}}, nil
}

type scriptedTasks struct {
	tasksapi.UnimplementedTasksServer
	*scripted
}

func (s scriptedTasks) List(ctx context.Context, _ *tasksapi.ListTasksRequest) (*tasksapi.ListTasksResponse, error) {
	if in, _ := metadata.FromIncomingContext(ctx); strings.Join(in["containerd-namespace"], "") != "default" {
		return nil, grpcstatus.Error(codes.FailedPrecondition, "a namespace is required")
	}
	slow := false
	s.set(func() { slow = s.slowTasks })
	if slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &tasksapi.ListTasksResponse{}, nil
}

type scriptedVersion struct {
	versionapi.UnimplementedVersionServer
}

func (scriptedVersion) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: "v9"}, nil
}

func TestContainersWhoseShimsHangAreKnown(t *testing.T) {
	s := &scripted{containers: []string{"a"}, slowTasks: true, digest: "sha256:d"}
	s.start(t)
	c := s.config()
	c.Timeout = 100 * time.Millisecond
	r := start(t, c)
	r.wait("the snapshot", synced(1))
	if got := r.container("a"); got.GetState() != protov1.Container_STATE_UNSPECIFIED || got.GetImage().GetDigest() != "sha256:d" {
		t.Error(got)
	}
}

func TestOneContainerThatIsNotAnsweredForDoesNotHoldUpTheOthers(t *testing.T) {
	s := &scripted{slow: "sick"}
	s.start(t)
	r, h := startWithHost(t, s.config())
	r.wait("the snapshot", synced(1))
	h.facts <- batch(1, "/default/sick")
	s.published <- envelope(t, "/containers/create", &eventtypes.ContainerCreate{ID: "sick", Image: "img:1"})
	s.published <- envelope(t, "/containers/create", &eventtypes.ContainerCreate{ID: "sound", Image: "img:1"})
	h.facts <- batch(2, "/x")
	// The store says what it keeps; the create event has said the rest.
	r.wait("the sound one's description", func(r *recorder) bool {
		return r.find("sound") != nil && r.find("sound").CreatedUnixNano == 0
	})
	r.wait("all answers", func(r *recorder) bool { return answers(r) == "1:- 2:-" })
	if got := r.container("sick"); got.GetName() != "sick" || got.GetImage().GetName() != "img" {
		t.Errorf("the sick one is not known by its create event: %v", got)
	}
}

func TestAnImageThatIsPulledAnewHasItsNewDigest(t *testing.T) {
	s := &scripted{}
	s.start(t)
	r := start(t, s.config())
	r.wait("the snapshot", synced(1))
	told := func(id, digest string) {
		s.published <- envelope(t, "/containers/create", &eventtypes.ContainerCreate{ID: id, Image: "img:1"})
		r.wait("its description", func(r *recorder) bool { c := r.find(id); return c != nil && c.CreatedUnixNano == 0 })
		if got := r.container(id).GetImage().GetDigest(); got != digest {
			t.Errorf("the image of %s is %q, want %q", id, got, digest)
		}
	}
	told("a", "")
	s.set(func() { s.digest = "sha256:1" })
	told("b", "") // nothing told of it
	s.published <- envelope(t, "/images/create", &eventtypes.ImageCreate{Name: "img:1"})
	told("c", "sha256:1")
	s.set(func() { s.digest = "sha256:2" })
	s.published <- envelope(t, "/images/update", &eventtypes.ImageUpdate{Name: "img:1"})
	told("d", "sha256:2")
}

// Between a question and its answer the image may become another, and the event tells
// before the answer is there.
func TestADigestThatMayBeOldIsNotKept(t *testing.T) {
	s := &scripted{digest: "sha256:1"}
	s.start(t)
	conn, err := dial(t.Context(), s.socket, 10*time.Second)
	must(t, err)
	defer func() { must(t, conn.close()) }()
	i := image{"default", "img:1"}
	s.mu.Lock() // the answer has to wait
	answered := make(chan string)
	go func() { answered <- conn.digest(t.Context(), i) }()
	time.Sleep(50 * time.Millisecond) // for the question; were it late, the test would still be right
	conn.forget(i)
	s.mu.Unlock()
	if d := <-answered; d != "sha256:1" {
		t.Error(d)
	}
	s.set(func() { s.digest = "sha256:2" })
	if d := conn.digest(t.Context(), i); d != "sha256:2" {
		t.Errorf("the old digest was kept: %s", d)
	}
	for n := range 2 * maxDigests {
		conn.digests[image{"x", string(rune(n))}] = ""
		conn.digest(t.Context(), image{"default", string(rune(n))})
	}
	if n := len(conn.digests); n > maxDigests+1 {
		t.Errorf("%d digests are kept", n)
	}
}

// The store has what no event told: only a list, which nothing else asks for, finds it.
func TestEventsThatCameTooFastLeadToAList(t *testing.T) {
	s := &scripted{}
	s.start(t)
	r := newRecorder(t)
	c := s.config()
	c.Resync = 0
	ctx, cancel := context.WithCancel(t.Context())
	conn, stream, err := connect(ctx, s.socket, c)
	must(t, err)
	ses := &session{conn: conn, stream: stream, tracker: newTracker(r, c.scope(), testFilter()), describe: newDescriber(c), config: c, log: testLog(t)}
	done := make(chan error, 1)
	go func() { done <- ses.run(ctx, nil) }()
	r.wait("an empty snapshot", synced(1))
	s.set(func() { s.containers = []string{"a", "b"} })
	stream.lost.Store(5)
	s.published <- envelope(t, "/containers/create", &eventtypes.ContainerCreate{ID: "a"}) // any event shows the loss
	r.wait("what the list tells", func(r *recorder) bool { return len(r.containers) == 2 && r.find("b") != nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	must(t, conn.close())
	<-stream.done
}

func TestEventsOfOtherNamespacesAreIgnored(t *testing.T) {
	s := &scripted{} // ignores the subscription's filters
	s.start(t)
	c := s.config()
	c.Namespaces = []string{"default"}
	r := start(t, c)
	r.wait("the snapshot", synced(1))
	other := envelope(t, "/containers/create", &eventtypes.ContainerCreate{ID: "other"})
	other.Namespace = "other"
	s.published <- other
	s.published <- &types.Envelope{Namespace: "default", Topic: "/containers/create", Event: nil}
	s.published <- envelope(t, "/containers/create", &eventtypes.ContainerCreate{ID: "ours"})
	r.wait("ours", func(r *recorder) bool { return r.find("ours") != nil })
	if len(r.lines("other")) > 0 {
		t.Error(r.log)
	}
}
