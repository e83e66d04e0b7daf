package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// scripted is a runtime that answers as it is told, for what a real one can't be brought
// to: a thousand containers, silence in the middle of an answer, info that is no JSON.
type scripted struct {
	cri.UnimplementedRuntimeServiceServer
	socket string
	name   string // "": containerd
	noPods bool   // no events, as CRI-O without enable_pod_events
	noInfo bool   // nothing but statuses, as CRI-O while it removes a container

	mu         sync.Mutex
	containers map[string]*cri.ContainerStatus
	sandboxOf  map[string]string // of a container
	sandboxes  map[string]*cri.PodSandboxStatus
	info       func(id string) string
	streams    map[chan *cri.ContainerEventResponse]struct{}
	connected  chan struct{} // one for each stream

	statuses atomic.Int64
	lists    atomic.Int64
	denied   atomic.Int64 // statuses of what is not there
	hang     atomic.Pointer[func(id string) bool]
}

func (s *scripted) start(t *testing.T) *scripted {
	t.Helper()
	if s.socket == "" {
		s.socket = filepath.Join(t.TempDir(), "c.sock")
	}
	s.containers, s.sandboxOf = map[string]*cri.ContainerStatus{}, map[string]string{}
	s.sandboxes, s.streams = map[string]*cri.PodSandboxStatus{}, map[chan *cri.ContainerEventResponse]struct{}{}
	s.connected = make(chan struct{}, 64)
	l, err := net.Listen("unix", s.socket)
	must(t, err)
	srv := grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	cri.RegisterRuntimeServiceServer(srv, s)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return s
}

func id64(i int) string { return fmt.Sprintf("%08x%056x", i, 0) }

// pod puts one there, and container a container into it.
func (s *scripted) pod(id, uid, name string) *cri.PodSandboxStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &cri.PodSandboxStatus{Id: id, Metadata: &cri.PodSandboxMetadata{Name: name, Uid: uid, Namespace: "default"}, CreatedAt: time.Now().UnixNano(),
		Network: &cri.PodSandboxNetworkStatus{Ip: "10.1.2.3"}, Linux: &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: &cri.NamespaceOption{}}},
		Labels: map[string]string{"app": "demo", labelPodUID: uid}}
	s.sandboxes[id] = p
	return p
}

func (s *scripted) container(id, sandbox, name string, state cri.ContainerState) *cri.ContainerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &cri.ContainerStatus{Id: id, Metadata: &cri.ContainerMetadata{Name: name, Attempt: 2}, State: state, CreatedAt: 1000, Image: &cri.ImageSpec{Image: "docker.io/library/app:1"},
		ImageRef: "docker.io/library/app@sha256:d", ImageId: "sha256:" + id64(9), Labels: map[string]string{labelContainerName: name}}
	if state != cri.ContainerState_CONTAINER_CREATED {
		c.StartedAt = 2000
	}
	s.containers[id], s.sandboxOf[id] = c, sandbox
	return c
}

// change changes what is there.
func (s *scripted) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// event sends one, with what is there now.
func (s *scripted) event(id string, kind cri.ContainerEventType) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &cri.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	sandbox := id
	if c := s.containers[id]; c != nil {
		e.ContainersStatuses = []*cri.ContainerStatus{proto.CloneOf(c), {}}
		sandbox = s.sandboxOf[id]
	}
	if p := s.sandboxes[sandbox]; p != nil {
		e.PodSandboxStatus = proto.CloneOf(p)
	}
	for to := range s.streams {
		to <- e
	}
}

func (s *scripted) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	if err := s.silence("version"); err != nil {
		return nil, err
	}
	name := s.name
	if name == "" {
		name = "containerd"
	}
	return &cri.VersionResponse{RuntimeName: name, RuntimeVersion: "9"}, nil
}

// silence hangs where it was told to.
func (s *scripted) silence(what string) error {
	for {
		f := s.hang.Load()
		if f == nil || !(*f)(what) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *scripted) silent(f func(what string) bool) { s.hang.Store(&f) }

func (s *scripted) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	if err := s.silence("list"); err != nil {
		return nil, err
	}
	s.lists.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &cri.ListContainersResponse{}
	for _, id := range slices.Sorted(maps.Keys(s.containers)) {
		c := s.containers[id]
		if f := r.GetFilter().GetId(); f == "" || f == id {
			out.Containers = append(out.Containers, &cri.Container{Id: id, PodSandboxId: s.sandboxOf[id], Metadata: c.Metadata, Image: c.Image, ImageRef: c.ImageRef,
				ImageId: c.ImageId, State: c.State, CreatedAt: c.CreatedAt, Labels: maps.Clone(c.Labels), Annotations: maps.Clone(c.Annotations)})
		}
	}
	return out, nil
}

func (s *scripted) ListPodSandbox(_ context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &cri.ListPodSandboxResponse{}
	for _, id := range slices.Sorted(maps.Keys(s.sandboxes)) {
		p := s.sandboxes[id]
		if f := r.GetFilter().GetId(); f == "" || f == id {
			out.Items = append(out.Items, &cri.PodSandbox{Id: id, Metadata: p.Metadata, State: p.State, CreatedAt: p.CreatedAt, Labels: maps.Clone(p.Labels), Annotations: maps.Clone(p.Annotations)})
		}
	}
	return out, nil
}

func (s *scripted) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	s.statuses.Add(1)
	if err := s.silence(r.GetContainerId()); err != nil {
		return nil, err
	}
	if r.GetVerbose() && s.noInfo {
		return nil, status.Error(codes.Unknown, "creating container info: identifier is not a layer")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[r.GetContainerId()]
	if c == nil {
		s.denied.Add(1)
		return nil, status.Error(codes.NotFound, "no such container")
	}
	if !r.GetVerbose() {
		return &cri.ContainerStatusResponse{Status: proto.CloneOf(c)}, nil
	}
	return &cri.ContainerStatusResponse{Status: proto.CloneOf(c), Info: map[string]string{"info": s.infoOf(c.Id, map[string]any{
		"sandboxID": s.sandboxOf[c.Id], "pid": 77,
		"runtimeSpec": map[string]any{"hostname": "h", "process": map[string]any{"args": []string{"/app", "--serve"}, "env": []string{"SECRET=x"}}},
	})}}, nil
}

func (s *scripted) PodSandboxStatus(_ context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	s.statuses.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.sandboxes[r.GetPodSandboxId()]
	if p == nil {
		s.denied.Add(1)
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &cri.PodSandboxStatusResponse{Status: proto.CloneOf(p), Info: map[string]string{"info": s.infoOf(p.Id, map[string]any{"pid": 76, "image": "pause:3"})}}, nil
}

func (s *scripted) infoOf(id string, usual map[string]any) string {
	if s.info != nil {
		return s.info(id)
	}
	text, err := json.Marshal(usual)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (s *scripted) GetContainerEvents(_ *cri.GetEventsRequest, to grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	if s.noPods {
		return nil
	}
	events := make(chan *cri.ContainerEventResponse, 1<<16)
	s.change(func() { s.streams[events] = struct{}{} })
	defer s.change(func() { delete(s.streams, events) })
	s.connected <- struct{}{}
	for {
		select {
		case <-to.Context().Done():
			return nil
		case e := <-events:
			if e == nil {
				return nil
			}
			if err := to.Send(e); err != nil {
				return err
			}
		}
	}
}

// startOther starts a server that serves something else, and gives its socket.
func startOther(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "o.sock")
	l, err := net.Listen("unix", socket)
	must(t, err)
	srv := grpc.NewServer()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-done
	})
	return socket
}
