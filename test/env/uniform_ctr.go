package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// ctrRow is a containerd that is driven by ctr. A container's name is its id.
type ctrRow struct {
	containerd *Containerd
	conn       *grpc.ClientConn
	runtimeDaemon
}

// NewContainerdRow is a containerd without its CRI, for a suite.
func NewContainerdRow(ctx context.Context, opts ...Option) (Runtime, error) {
	c, err := NewContainerd(ctx, opts...)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix:"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to containerd: %w", err), c.Close(ctx))
	}
	closed := func(ctx context.Context) error {
		return errors.Join(conn.Close(), c.Close(ctx))
	}
	return &ctrRow{c, conn, runtimeDaemon{c.Kill, c.Start, c.Pause, c.Resume, closed}}, nil
}

func containerdDiscoverer(c *Containerd) (name, hcl string) {
	return "containerd", fmt.Sprintf("discoverer \"containerd\" {\n  address = \"unix://%s\"\n  env     = true\n}\n", c.Socket)
}

func (r *ctrRow) Discoverer() (name, hcl string) { return containerdDiscoverer(r.containerd) }

func (r *ctrRow) RunShort(ctx context.Context, name string, labels map[string]string, args ...string) (string, error) {
	run := append(r.containerd.RunArgs("--rm"), labelArgs(labels)...)
	run = append(run, NoopImage, name)
	if len(args) > 0 { // instead of what the image says
		run = append(append(run, "/noop"), args...)
	}
	_, err := r.containerd.Ctr(ctx, run...)
	return name, err
}

func (r *ctrRow) RunDetached(ctx context.Context, spec Spec) (string, error) {
	args := append(r.containerd.RunArgs("--detach"), labelArgs(spec.Labels)...)
	for _, e := range spec.Env {
		args = append(args, "--env", e)
	}
	add := func(option, value string) {
		if value != "" && value != "0" {
			args = append(args, option, value)
		}
	}
	if r.containerd.bin != "" { // the older ctr has no such options
		add("--user", spec.User)
		add("--hostname", spec.Hostname)
		if n := spec.OpenFiles; n != 0 {
			add("--rlimit-nofile", fmt.Sprintf("%d:%d", n, n))
		}
	}
	add("--memory-limit", strconv.FormatInt(spec.MemoryBytes, 10))
	add("--cpu-quota", strconv.FormatInt(spec.CPUQuota, 10))
	add("--cpu-period", strconv.FormatInt(spec.CPUPeriod, 10))
	add("--cpu-shares", strconv.FormatInt(spec.CPUShares, 10))
	if spec.AddCap != "" {
		add("--cap-add", "CAP_"+spec.AddCap)
	}
	if spec.DropCap != "" {
		add("--cap-drop", "CAP_"+spec.DropCap)
	}
	if spec.ReadOnlyRoot {
		args = append(args, "--read-only")
	}
	if m := spec.Mount; m != nil {
		add("--mount", fmt.Sprintf("type=bind,src=%s,dst=%s,options=rbind:ro", m.Source, m.Destination))
	}
	_, err := r.containerd.Ctr(ctx, append(append(args, spec.Image, spec.Name), spec.command()...)...)
	return spec.Name, err
}

func (r *ctrRow) Exec(ctx context.Context, id string, args ...string) error {
	exec := []string{"task", "exec", "--fifo-dir", r.containerd.state.path("containerd", "fifo"), "--exec-id", fmt.Sprintf("e%d", r.containerd.execs.Add(1)), id}
	_, err := r.containerd.Ctr(ctx, append(exec, args...)...)
	return err
}

func (r *ctrRow) Stop(ctx context.Context, id string) error {
	_, err := r.containerd.Ctr(ctx, "task", "kill", "--signal", "KILL", id)
	return err
}

func (r *ctrRow) Pause(ctx context.Context, id string) error {
	_, err := r.containerd.Ctr(ctx, "task", "pause", id)
	return err
}

func (r *ctrRow) Unpause(ctx context.Context, id string) error {
	_, err := r.containerd.Ctr(ctx, "task", "resume", id)
	return err
}

func (r *ctrRow) Remove(ctx context.Context, id string) error {
	if _, err := r.containerd.Ctr(ctx, "task", "delete", "--force", id); err != nil {
		return err
	}
	_, err := r.containerd.Ctr(ctx, "container", "delete", id)
	return err
}

func (r *ctrRow) Inspect(ctx context.Context, id string) (*protov1.Container, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", CtrNamespace)
	stored, err := containersapi.NewContainersClient(r.conn).Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", id, err)
	}
	in := stored.GetContainer()
	c := &protov1.Container{
		Id: in.GetID(), Name: in.GetID(), Image: reference(in.GetImage()), Labels: in.GetLabels(), State: protov1.Container_STATE_CREATED,
		Scope: "containerd:" + CtrNamespace, CreatedUnixNano: in.GetCreatedAt().AsTime().UnixNano(),
	}
	if err := fromSpec(c, in.GetSpec().GetValue(), containerdCapabilities); err != nil {
		return nil, err
	}
	image, err := imagesapi.NewImagesClient(r.conn).Get(ctx, &imagesapi.GetImageRequest{Name: in.GetImage()})
	if err != nil {
		return nil, fmt.Errorf("inspect image %s: %w", in.GetImage(), err)
	}
	c.Image.Digest = image.GetImage().GetTarget().GetDigest()
	if c.Image.Id, err = r.imageID(ctx, c.Image.Digest); err != nil {
		return nil, err
	}
	task, err := tasksapi.NewTasksClient(r.conn).Get(ctx, &tasksapi.GetRequest{ContainerID: id})
	if status.Code(err) == codes.NotFound {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect the task of container %s: %w", id, err)
	}
	p := task.GetProcess()
	c.State = map[tasktypes.Status]protov1.Container_State{
		tasktypes.Status_CREATED: protov1.Container_STATE_CREATED,
		tasktypes.Status_RUNNING: protov1.Container_STATE_RUNNING,
		tasktypes.Status_PAUSED:  protov1.Container_STATE_PAUSED,
		tasktypes.Status_STOPPED: protov1.Container_STATE_EXITED,
	}[p.GetStatus()]
	if c.State == protov1.Container_STATE_EXITED {
		c.ExitCode, c.FinishedUnixNano = proto.Int32(int32(p.GetExitStatus())), p.GetExitedAt().AsTime().UnixNano()
		return c, nil
	}
	c.Pid = p.GetPid()
	return c, locate(c)
}

// imageID is the digest of an image's config.
func (r *ctrRow) imageID(ctx context.Context, digest string) (string, error) {
	out, err := r.containerd.Ctr(ctx, "content", "get", digest)
	if err != nil {
		return "", err
	}
	var manifest struct {
		Config struct{ Digest string }
	}
	if err := json.Unmarshal([]byte(out), &manifest); err != nil {
		return "", fmt.Errorf("read manifest %s: %w", digest, err)
	}
	return manifest.Config.Digest, nil
}
