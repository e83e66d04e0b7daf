package oci

import (
	"cmp"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Known is what those who manage containers write into annotations of the
// specification, as far as it says what a container is. What is not there is "". The
// texts are not bounded.
type Known struct {
	Runtime        string // docker, containerd, cri-o or podman: who manages it
	Name           string // what its user calls it
	KubernetesName string // the name in the pod's specification
	Image          string // the reference that its user wrote
	ImageID        string // sha256:... of the config
	PodUID         string
	SandboxID      string
	Type           string // sandbox, app
}

// ReadKnown reads the annotations of containerd's CRI plugin, CRI-O, Podman, nerdctl,
// Kubernetes and the image specification.
func ReadKnown(annotations map[string]string) Known {
	a := func(keys ...string) string {
		for _, k := range keys {
			if v := annotations[k]; v != "" {
				return v
			}
		}
		return ""
	}
	k := Known{
		KubernetesName: a("io.kubernetes.container.name", "io.kubernetes.cri.container-name"),
		Image: a("io.kubernetes.cri.image-name", "io.kubernetes.cri.podsandbox.image-name", "io.kubernetes.cri-o.ImageName", "io.podman.annotations.image",
			"org.opencontainers.image.ref.name"),
		PodUID:    a("io.kubernetes.pod.uid", "io.kubernetes.cri.sandbox-uid"),
		SandboxID: a("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID", "io.kubernetes.sandbox.id"),
	}
	k.ImageID, _ = describe.ImageID(a("io.kubernetes.cri-o.ImageRef", "io.kubernetes.cri-o.Image"))
	k.Name = cmp.Or(k.KubernetesName, a("nerdctl/name", "io.podman.annotations.name"))
	switch a("io.container.manager") {
	case "cri-o":
		k.Runtime = "cri-o"
	case "libpod":
		k.Runtime = "podman"
	default:
		if a("io.kubernetes.cri.container-type", "nerdctl/namespace") != "" {
			k.Runtime = "containerd"
		}
	}
	switch a("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType") {
	case "sandbox":
		// Kubernetes has called it so since it had one.
		k.Type, k.Name, k.KubernetesName = "sandbox", "POD", "POD"
	case "container":
		k.Type = "app"
	}
	return k
}

// Describe completes a container with what is known of it, where it says nothing yet.
func (k Known) Describe(c *protov1.Container, clip *describe.Clip) {
	c.Runtime = cmp.Or(c.Runtime, k.Runtime)
	c.Name = cmp.Or(c.Name, clip.Text("name", k.Name))
	c.KubernetesName = cmp.Or(c.KubernetesName, clip.Text("kubernetes_name", k.KubernetesName))
	c.PodUid = cmp.Or(c.PodUid, clip.Text("pod_uid", k.PodUID))
	c.SandboxId = cmp.Or(c.SandboxId, clip.Text("sandbox_id", k.SandboxID))
	c.Type = cmp.Or(c.Type, k.Type)
	if c.Image == nil && (k.Image != "" || k.ImageID != "") {
		c.Image = describe.WithID(describe.ParseImage(clip.Text("image", k.Image)), k.ImageID)
	}
}
