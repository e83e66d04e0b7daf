package env

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podParent is the cgroup that the cgroups of all pods are in, as a kubelet has it.
const podParent = "kubepods"

// CRI is a client of a runtime that serves the Kubernetes Container Runtime Interface. It
// runs pods as a kubelet does: with the same labels, in cgroups of the same form. Its
// methods may be called from several goroutines.
type CRI struct {
	Socket  string
	Runtime cri.RuntimeServiceClient
	Images  cri.ImageServiceClient

	state *state
	conn  *grpc.ClientConn
}

// Pod is a pod sandbox and the configuration that it was made from.
type Pod struct {
	ID     string
	Config *cri.PodSandboxConfig
}

func newCRI(s *state, socket string) (*CRI, error) {
	bounded := func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ctx, cancel := limited(ctx)
		defer cancel()
		return invoke(ctx, method, req, reply, conn, opts...)
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(bounded))
	if err != nil {
		return nil, fmt.Errorf("connect to the CRI at %s: %w", socket, err)
	}
	return &CRI{
		Socket: socket, Runtime: cri.NewRuntimeServiceClient(conn), Images: cri.NewImageServiceClient(conn),
		state: s, conn: conn,
	}, nil
}

func (c *CRI) close() error {
	if c == nil || c.conn == nil {
		return nil
	}
	conn := c.conn
	c.conn = nil // an environment may be closed again
	return conn.Close()
}

// waitImages waits until the CRI knows the images that were imported: a containerd hears
// of them from its own events.
func (c *CRI) waitImages(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func() error {
		for _, ref := range []string{BusyboxImage, NoopImage, PauseImage} {
			r, err := c.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
			if err != nil {
				return fmt.Errorf("ask for image %s: %w", ref, err)
			}
			if r.GetImage() == nil {
				return fmt.Errorf("the CRI at %s does not know image %s", c.Socket, ref)
			}
		}
		return nil
	})
}

// PodConfig is the configuration of a pod of the namespace "default" that shares the
// host's network, for RunPod. Its uid is the name and this environment's own word.
func (c *CRI) PodConfig(name string) *cri.PodSandboxConfig {
	uid := name + "-" + path.Base(c.state.dir)
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: uid},
		LogDirectory: c.state.path("pod-logs", uid),
		Labels: map[string]string{
			"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid,
		},
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/" + path.Join(podParent, "besteffort", "pod"+uid),
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{
				Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD,
			}},
		},
	}
}

// WithNetwork gives a pod a network of its own, which takes a runtime that was started
// with [WithBridge].
func WithNetwork(pod *cri.PodSandboxConfig) *cri.PodSandboxConfig {
	pod.Hostname = pod.GetMetadata().GetName()
	pod.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_POD
	return pod
}

// RunPod runs a pod sandbox.
func (c *CRI) RunPod(ctx context.Context, config *cri.PodSandboxConfig) (*Pod, error) {
	parent := strings.Trim(config.GetLinux().GetCgroupParent(), "/")
	if parent == "" {
		return nil, errors.New("run a pod: it has no cgroup that could be taken away again")
	}
	if err := c.state.note(func(r *record) { r.Cgroups = append(r.Cgroups, parent) }); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.GetLogDirectory(), 0o755); err != nil {
		return nil, fmt.Errorf("run a pod: %w", err)
	}
	r, err := c.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, fmt.Errorf("run pod %s: %w", config.GetMetadata().GetName(), err)
	}
	return &Pod{r.GetPodSandboxId(), config}, nil
}

// ContainerConfig is the configuration of a container of a pod, for RunContainer.
func (p *Pod) ContainerConfig(name, image string, args ...string) *cri.ContainerConfig {
	labels := maps.Clone(p.Config.GetLabels())
	labels["io.kubernetes.container.name"] = name
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: image, UserSpecifiedImage: image},
		Args:     args,
		Labels:   labels,
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
	}
}

// CreateContainer makes a container in a pod and does not start it.
func (c *CRI) CreateContainer(ctx context.Context, pod *Pod, config *cri.ContainerConfig) (id string, err error) {
	r, err := c.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: pod.ID, Config: config, SandboxConfig: pod.Config,
	})
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", config.GetMetadata().GetName(), err)
	}
	return r.GetContainerId(), nil
}

// StartContainer starts a container that was made.
func (c *CRI) StartContainer(ctx context.Context, id string) error {
	if _, err := c.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	return nil
}

// RunContainer makes a container in a pod and starts it.
func (c *CRI) RunContainer(ctx context.Context, pod *Pod, config *cri.ContainerConfig) (id string, err error) {
	if id, err = c.CreateContainer(ctx, pod, config); err != nil {
		return "", err
	}
	return id, c.StartContainer(ctx, id)
}

// Exec runs a command in a container to its end, and returns what it printed.
func (c *CRI) Exec(ctx context.Context, id string, args ...string) (string, error) {
	r, err := c.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: args, Timeout: int64(startTimeout.Seconds())})
	if err == nil && r.GetExitCode() != 0 {
		err = fmt.Errorf("it ended with status %d: %s", r.GetExitCode(), r.GetStderr())
	}
	if err != nil {
		return "", fmt.Errorf("execute %s in container %s: %w", strings.Join(args, " "), id, err)
	}
	return strings.TrimSpace(string(r.GetStdout())), nil
}

// WaitExited waits until a container has ended and returns its exit status.
func (c *CRI) WaitExited(ctx context.Context, id string) (code int32, err error) {
	err = poll(ctx, func() error {
		r, err := c.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return err
		}
		if state := r.GetStatus().GetState(); state != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container %s is in state %s", id, state)
		}
		code = r.GetStatus().GetExitCode()
		return nil
	})
	return code, err
}

// Inspect is all that the runtime tells of a container.
func (c *CRI) Inspect(ctx context.Context, id string) (*cri.ContainerStatusResponse, error) {
	r, err := c.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", id, err)
	}
	return r, nil
}

// InspectPod is all that the runtime tells of a pod's sandbox.
func (c *CRI) InspectPod(ctx context.Context, pod *Pod) (*cri.PodSandboxStatusResponse, error) {
	r, err := c.Runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: pod.ID, Verbose: true})
	if err != nil {
		return nil, fmt.Errorf("inspect pod %s: %w", pod.ID, err)
	}
	return r, nil
}

// StopContainer ends a container: by its signal, then after grace by SIGKILL.
func (c *CRI) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	_, err := c.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: int64(grace.Seconds())})
	if err != nil {
		return fmt.Errorf("stop container %s: %w", id, err)
	}
	return nil
}

// RemoveContainer ends a container if it runs, and forgets it.
func (c *CRI) RemoveContainer(ctx context.Context, id string) error {
	if _, err := c.Runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	return nil
}

// RemovePod ends a pod with its containers and forgets it.
func (c *CRI) RemovePod(ctx context.Context, pod *Pod) error {
	if _, err := c.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.ID}); err != nil {
		return fmt.Errorf("stop pod %s: %w", pod.ID, err)
	}
	if _, err := c.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.ID}); err != nil {
		return fmt.Errorf("remove pod %s: %w", pod.ID, err)
	}
	return nil
}
