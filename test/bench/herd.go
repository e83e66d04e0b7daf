package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	events "github.com/containerd/containerd/api/events"
	containers "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// herd is many containers of a real containerd. To start a thousand by its shims
// would take minutes and gigabytes that say nothing of the tracer, so only their
// records are containerd's; their control groups are made here, with a process in each,
// and the events of their tasks are published through containerd's own service.
type herd struct {
	bench      *bench
	conn       *grpc.ClientConn
	containers containers.ContainersClient
	events     eventsapi.EventsClient
	root       string // of the control groups

	mu      sync.Mutex
	members []*member
}

// member is one container of a herd.
type member struct {
	id      string
	group   string
	process *exec.Cmd // nil: none
}

func (b *bench) newHerd(c *env.Containerd) (*herd, error) {
	conn, err := grpc.NewClient("unix:"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	h := &herd{
		bench: b, conn: conn, containers: containers.NewContainersClient(conn), events: eventsapi.NewEventsClient(conn),
		root: filepath.Join(b.groups.root, env.CtrNamespace),
	}
	if err := os.Mkdir(h.root, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, errors.Join(fmt.Errorf("make a control group: %w", err), conn.Close())
	}
	return h, nil
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", env.CtrNamespace)
}

// create makes the record of a container.
func (h *herd) create(ctx context.Context, id string) (*member, error) {
	quota, period, memory, pids := int64(50_000), uint64(100_000), int64(256<<20), int64(512)
	spec, err := json.Marshal(&specs.Spec{
		Version: "1.0.2", Hostname: id, Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"/bin/server", "--listen", ":8080"}, Cwd: "/", Env: []string{"PATH=/bin", "HOME=/root"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/data", Type: "bind", Source: "/srv/" + id, Options: []string{"rbind", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + env.CtrNamespace + "/" + id,
			Resources: &specs.LinuxResources{
				CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period},
				Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids},
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("write a specification: %w", err)
	}
	labels := map[string]string{"app": "shop", "tier": "backend", "team": "payments", "org.example.version": "1.4.2", "org.example.instance": id}
	_, err = h.containers.Create(inNamespace(ctx), &containers.CreateContainerRequest{Container: &containers.Container{
		ID: id, Image: env.BusyboxImage, Labels: labels,
		Runtime: &containers.Container_Runtime{Name: "io.containerd.runc.v2"},
		Spec:    &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: spec},
	}})
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", id, err)
	}
	m := &member{id: id, group: filepath.Join(h.root, id)}
	h.mu.Lock()
	h.members = append(h.members, m)
	h.mu.Unlock()
	return m, nil
}

// size is how many containers there are.
func (h *herd) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.members)
}

// start makes the control group of a container, runs a process in it, and says that
// its task was started.
func (h *herd) start(ctx context.Context, m *member, program string, args ...string) error {
	if err := os.Mkdir(m.group, 0o755); err != nil {
		return fmt.Errorf("make a control group: %w", err)
	}
	if err := h.publish(ctx, "/tasks/create", &events.TaskCreate{ContainerID: m.id, Bundle: "/run/" + m.id}); err != nil {
		return err
	}
	m.process = exec.Command(program, args...)
	if err := startIn(m.process, m.group); err != nil {
		m.process = nil
		return fmt.Errorf("start a process in container %s: %w", m.id, err)
	}
	return h.publish(ctx, "/tasks/start", &events.TaskStart{ContainerID: m.id, Pid: uint32(m.process.Process.Pid)})
}

// publish forwards an event to those who listen to containerd.
func (h *herd) publish(ctx context.Context, topic string, event proto.Message) error {
	value, err := proto.Marshal(event)
	if err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	_, err = h.events.Forward(ctx, &eventsapi.ForwardRequest{Envelope: &types.Envelope{
		Timestamp: timestamppb.Now(), Namespace: env.CtrNamespace, Topic: topic,
		Event: &anypb.Any{TypeUrl: string(event.ProtoReflect().Descriptor().FullName()), Value: value},
	}})
	if err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return nil
}

// finish waits for the process of a container, says that its task has ended, and takes
// container and control group away.
func (h *herd) finish(ctx context.Context, m *member) error {
	pid := 0
	if m.process != nil {
		pid = m.process.Process.Pid
		var exit *exec.ExitError
		if err := m.process.Wait(); err != nil && !errors.As(err, &exit) {
			return fmt.Errorf("wait for the process of container %s: %w", m.id, err)
		}
		m.process = nil
	}
	err := h.publish(ctx, "/tasks/exit", &events.TaskExit{ContainerID: m.id, ID: m.id, Pid: uint32(pid), ExitedAt: timestamppb.Now()})
	err = errors.Join(err, h.publish(ctx, "/tasks/delete", &events.TaskDelete{ContainerID: m.id, Pid: uint32(pid), ExitedAt: timestamppb.Now()}))
	if _, e := h.containers.Delete(inNamespace(ctx), &containers.DeleteContainerRequest{ID: m.id}); e != nil {
		err = errors.Join(err, fmt.Errorf("delete container %s: %w", m.id, e))
	}
	if e := removeGroup(m.group); e != nil {
		err = errors.Join(err, e)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, other := range h.members {
		if other == m {
			h.members = append(h.members[:i], h.members[i+1:]...)
			break
		}
	}
	return err
}

// close takes all containers away.
func (h *herd) close(ctx context.Context) error {
	h.mu.Lock()
	members := append([]*member(nil), h.members...)
	h.mu.Unlock()
	var err error
	for _, m := range members {
		if m.process != nil {
			err = errors.Join(err, m.process.Process.Kill())
		}
		err = errors.Join(err, h.finish(ctx, m))
	}
	if e := os.Remove(h.root); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, h.conn.Close())
}

// removeGroup removes a control group, whose last process may just be being reaped.
func removeGroup(group string) (err error) {
	for range 100 {
		if err = os.Remove(group); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("remove a control group: %w", err)
}
