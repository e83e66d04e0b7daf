package exporter

import (
	"maps"
	"slices"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
)

// Fragment is the part of a line that tells the workload: made once for each
// change of it, and appended to each of its events. Names are those of
// OpenTelemetry's container.*, k8s.* and, beyond them, mesh.*.
func Fragment(w *inventory.Workload) []byte {
	b := fragment(w, true)
	if len(b) > mostFragment {
		b = fragment(w, false)
	}
	return b
}

// mostFragment bounds what a workload adds to each of its events: beyond it labels
// are left out, and the event says so.
const mostFragment = 64 << 10

func fragment(w *inventory.Workload, labels bool) []byte {
	c := w.Container
	b := append([]byte(nil), `,"container":{"id":`...)
	b = AppendString(b, c.GetId())
	if c.GetName() != "" {
		b = append(b, `,"name":`...)
		b = AppendString(b, c.GetName())
	}
	if image := c.GetImage(); image.GetName() != "" || image.GetId() != "" || image.GetDigest() != "" {
		f := fields{b: append(b, `,"image":{`...)}
		f.text("name", image.GetName())
		if image.GetTag() != "" {
			f.name("tags")
			f.b = append(f.b, '[')
			f.b = AppendString(f.b, image.GetTag())
			f.b = append(f.b, ']')
		}
		f.text("digest", image.GetDigest())
		f.text("id", image.GetId())
		b = append(f.b, '}')
	}
	if c.GetRuntime() != "" {
		b = append(b, `,"runtime":{"name":`...)
		b = AppendString(b, c.GetRuntime())
		b = append(b, '}')
	}
	if labels {
		b = appendMap(b, "label", c.GetLabels())
	} else {
		b = append(b, `,"labels_left_out":true`...)
	}
	if w.Stale {
		b = append(b, `,"stale":true`...)
	}
	b = append(b, '}')
	b = appendKubernetes(b, w, labels)
	return appendMesh(b, w)
}

// appendKubernetes tells the pod, by the orchestrator's word or else by the labels
// that a kubelet puts on every container.
func appendKubernetes(b []byte, w *inventory.Workload, podLabels bool) []byte {
	labels := w.Container.GetLabels()
	pod, namespace, uid := w.Pod.GetName(), w.Pod.GetNamespace(), w.Pod.GetUid()
	if pod == "" {
		pod = labels["io.kubernetes.pod.name"]
	}
	if namespace == "" {
		namespace = labels["io.kubernetes.pod.namespace"]
	}
	if uid == "" {
		uid = labels["io.kubernetes.pod.uid"]
	}
	if uid == "" {
		uid = w.Container.GetPodUid()
	}
	if pod == "" && uid == "" {
		return b
	}
	container := w.Container.GetKubernetesName()
	if container == "" {
		container = labels["io.kubernetes.container.name"]
	}
	f := fields{b: append(b, `,"k8s":{`...)}
	f.object("pod", func(f *fields) {
		f.text("name", pod)
		f.text("uid", uid)
		if podLabels {
			f.b = appendMapIn(f, "label", w.Pod.GetLabels())
		}
	})
	if namespace != "" {
		f.object("namespace", func(f *fields) { f.text("name", namespace) })
	}
	if container != "" {
		f.object("container", func(f *fields) { f.text("name", container) })
	}
	if node := w.Pod.GetNode(); node != "" {
		f.object("node", func(f *fields) { f.text("name", node) })
	}
	for _, o := range w.Pod.GetOwners() {
		if kind := ownerKinds[o.GetKind()]; kind != "" {
			f.object(kind, func(f *fields) { f.text("name", o.GetName()) })
		}
	}
	return append(f.b, '}')
}

var ownerKinds = map[string]string{
	"Deployment": "deployment", "ReplicaSet": "replicaset", "StatefulSet": "statefulset",
	"DaemonSet": "daemonset", "Job": "job", "CronJob": "cronjob",
}

func appendMesh(b []byte, w *inventory.Workload) []byte {
	m := w.Mesh
	if m == nil {
		return b
	}
	f := fields{b: append(b, `,"mesh":{`...)}
	f.text("name", m.GetMesh())
	switch m.GetRole() {
	case 1:
		f.text("role", "workload")
	case 2:
		f.text("role", "sidecar")
	case 3:
		f.text("role", "gateway")
	case 4:
		f.text("role", "control_plane")
	}
	if m.GetProxy() != "" {
		f.object("proxy", func(f *fields) {
			f.text("name", m.GetProxy())
			f.text("version", m.GetProxyVersion())
		})
	}
	f.text("service", m.GetService())
	f.text("identity", m.GetIdentity())
	for _, k := range slices.Sorted(maps.Keys(m.GetAttributes())) {
		if !meshFields[k] {
			f.text(k, m.GetAttributes()[k])
		}
	}
	return append(f.b, '}')
}

// meshFields are told by fields of their own: an attribute can't put a second one
// beside them.
var meshFields = map[string]bool{"name": true, "role": true, "proxy": true, "service": true, "identity": true}

// fields appends the fields of one JSON object, with commas between them.
type fields struct {
	b    []byte
	more bool
}

func (f *fields) name(name string) {
	if f.more {
		f.b = append(f.b, ',')
	}
	f.more = true
	f.b = AppendString(f.b, name)
	f.b = append(f.b, ':')
}

// text appends a string that is not empty.
func (f *fields) text(name, value string) {
	if value != "" {
		f.name(name)
		f.b = AppendString(f.b, value)
	}
}

func (f *fields) object(name string, fill func(*fields)) {
	f.name(name)
	in := fields{b: append(f.b, '{')}
	fill(&in)
	f.b = append(in.b, '}')
}

func appendMapIn(f *fields, name string, m map[string]string) []byte {
	if len(m) == 0 {
		return f.b
	}
	f.name(name)
	return appendObject(f.b, m)
}

// appendMap appends ,"name":{...} when there is something in it, sorted.
func appendMap(b []byte, name string, m map[string]string) []byte {
	if len(m) == 0 {
		return b
	}
	b = append(b, ',')
	b = AppendString(b, name)
	b = append(b, ':')
	return appendObject(b, m)
}

func appendObject(b []byte, m map[string]string) []byte {
	f := fields{b: append(b, '{')}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		f.name(k)
		f.b = AppendString(f.b, m[k])
	}
	return append(f.b, '}')
}
