package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func testDescriber(t *testing.T) *describer {
	t.Helper()
	d := newDescriber(defaults(), &protov1.Node{Name: "node", CgroupRoot: t.TempDir()})
	d.runtime = "cri-o"
	return d
}

func verbose(info string) map[string]string { return map[string]string{"info": info} }

// What CRI-O 1.34 and containerd 2.4 add to a status, as they wrote it, shortened.
const (
	crioContainerInfo = `{"sandboxID":"5b","pid":31654,"privileged":false,"runtimeSpec":{"ociVersion":"1.2.1",
"process":{"user":{"uid":0,"gid":7,"additionalGids":[0]},"args":["sh","-c","echo started"],"env":["PATH=/bin","FOO=bar"],"cwd":"/","oomScoreAdj":0,
"capabilities":{"bounding":["CAP_CHOWN"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":200,"soft":100}]},
"root":{"path":"/var/lib/merged","readonly":true},"hostname":"pod2",
"annotations":{"io.kubernetes.cri-o.Image":"docker.io/library/asked:2","io.kubernetes.cri-o.ImageName":"docker.io/library/busybox:ci","io.kubernetes.cri-o.ContainerType":"container"},
"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":67108864,"swap":67108864},"cpu":{"shares":512,"quota":50000,"period":100000},"pids":{"limit":-1}},
"cgroupsPath":"/kubepods/podu-2/crio-50"}}}`
	crioSandboxInfo = `{"image":"registry.local/pause:ci","pid":31607,"runtimeSpec":{"hostname":"pod2","annotations":{
"io.kubernetes.cri-o.PortMappings":"[{\"HostPort\":18081,\"ContainerPort\":8000,\"Protocol\":\"TCP\",\"HostIP\":\"127.0.0.1\"}]",
"io.kubernetes.cri-o.ImageName":"registry.local/pause:ci","io.kubernetes.cri-o.HostName":"pod2","io.kubernetes.cri-o.HostNetwork":"false",
"io.kubernetes.cri-o.CNIResult":"{\"cniVersion\":\"1.1.0\",\"interfaces\":[{\"mac\":\"e6:dd\",\"name\":\"cni-ci\"},{\"mac\":\"fe:50\",\"name\":\"veth5af301ca\"},{\"mac\":\"3a:c4\",\"name\":\"eth0\",\"sandbox\":\"/ns/netns/cc\"}],\"ips\":[{\"address\":\"10.98.0.3/24\",\"gateway\":\"10.98.0.1\",\"interface\":2}]}"}}}`
	containerdContainerInfo = `{"sandboxID":"5b","pid":40,"removing":false,"snapshotter":"overlayfs","runtimeType":"io.containerd.runc.v2","config":{"metadata":{"name":"app"},
"image":{"image":"sha256:03a6","user_specified_image":"docker.io/library/asked:2"},"linux":{"security_context":{"privileged":true,"capabilities":{"add_capabilities":["NET_ADMIN"],"drop_capabilities":["ALL"]},"namespace_options":{}}}},
"runtimeSpec":{"process":{"user":{"uid":1,"gid":2},"args":["/app"],"env":["A=b"]},"linux":{"cgroupsPath":"kubepods-pod1.slice:cri-containerd:50"}}}`
	containerdSandboxInfo = `{"pid":32052,"processStatus":"running","image":"registry.local/pause:ci","config":{"metadata":{"name":"pod2","uid":"u-2","namespace":"default"},"hostname":"pod2",
"port_mappings":[{"container_port":8000,"host_port":18081,"host_ip":"127.0.0.1"},{"protocol":1,"container_port":53}],"linux":{"cgroup_parent":"/kubepods/podu-2","security_context":{"namespace_options":{}}}}}`
)

func TestACRIOContainerIsDescribedWhole(t *testing.T) {
	d := testDescriber(t)
	must(t, os.MkdirAll(filepath.Join(d.root, "kubepods/podu-2/crio-50"), 0o755))
	s := statusOf("50", isRunning)
	s.Metadata.Attempt = 3
	s.Image = &cri.ImageSpec{Image: "docker.io/library/busybox:ci"}
	s.ImageRef, s.ImageId = "docker.io/library/busybox@sha256:c314", strings.Repeat("a", 64)
	s.Labels = map[string]string{labelContainerName: "app", labelPodUID: "u-2"}
	s.Annotations = map[string]string{"note": "c", annotationPorts: `[{"name":"web","containerPort":80,"protocol":"TCP"},{"containerPort":53,"hostPort":5353,"protocol":"UDP"}]`}
	s.Mounts = []*cri.Mount{{ContainerPath: "/www", HostPath: "/srv/www", Readonly: true}, {ContainerPath: "/img", Image: &cri.ImageSpec{Image: "vol:1"}}}
	s.Resources = &cri.ContainerResources{Linux: &cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 60000, MemoryLimitInBytes: 67108864, MemorySwapLimitInBytes: 67108864}}
	c := d.whole(&cri.ContainerStatusResponse{Status: s, Info: verbose(crioContainerInfo)})
	for what, ok := range map[string]bool{
		"id and names":   c.Id == "50" && c.Name == "n-50" && c.KubernetesName == "app" && c.PodUid == "u-2" && c.SandboxId == "5b" && c.Runtime == "cri-o" && c.Type == "",
		"image":          c.Image.Name == "docker.io/library/asked" && c.Image.Tag == "2" && c.Image.Digest == "sha256:c314" && c.Image.Id == "sha256:"+strings.Repeat("a", 64),
		"state":          c.State == protov1.Container_STATE_RUNNING && c.ExitCode == nil && c.OomKilled == nil && c.CreatedUnixNano == 100 && c.StartedUnixNano == 200 && c.FinishedUnixNano == 0,
		"labels":         c.Labels[labelPodUID] == "u-2" && c.Annotations["note"] == "c",
		"words":          strings.Join(c.Args, " ") == "sh -c echo started" && len(c.Entrypoint) == 0,
		"no environment": len(c.Env) == 0,
		"mounts":         len(c.Mounts) == 2 && c.Mounts[0].Source == "/srv/www" && c.Mounts[0].GetReadOnly() && c.Mounts[1].Type == "image" && c.Mounts[1].Source == "vol:1",
		"ports":          len(c.Ports) == 2 && c.Ports[0].ContainerPort == 80 && c.Ports[0].Protocol == "tcp" && c.Ports[1].HostPort == 5353,
		"hostname":       c.Hostname == "pod2",
		"attempt":        c.GetRestartCount() == 3,
		"limits":         c.Limits.GetCpuQuotaUs() == 60000 && c.Limits.GetCpuPeriodUs() == 100000 && c.Limits.GetCpuShares() == 512 && c.Limits.GetMemoryBytes() == 64<<20 && c.Limits.GetSwapBytes() == 0 && c.Limits.GetPids() == -1,
		"ulimits":        len(c.Limits.Ulimits) == 1 && c.Limits.Ulimits[0].Name == "nofile" && c.Limits.Ulimits[0].Soft == 100 && c.Limits.Ulimits[0].Hard == 200,
		"security":       c.Security.User == "0:7" && !c.Security.GetPrivileged() && c.Security.GetReadOnlyRoot() && c.Security.Seccomp == "unconfined",
		"pid":            c.Pid == 31654,
		"cgroup":         c.CgroupPath == "/kubepods/podu-2/crio-50" && c.CgroupId != 0,
		"nothing cut":    len(c.Truncated) == 0,
	} {
		if !ok {
			t.Errorf("%s is wrong", what)
		}
	}
	if t.Failed() {
		t.Log(c)
	}
	c0 := defaults()
	c0.Env, c0.FieldsExclude, c0.EnvExclude = true, []string{"mounts", "networks", "network_mode", "exit_code"}, []string{"PATH"}
	d.filter = describe.NewFilter(c0.FilterConfig)
	if c := d.whole(&cri.ContainerStatusResponse{Status: s, Info: verbose(crioContainerInfo)}); strings.Join(c.Env, " ") != "FOO=bar" || len(c.Mounts) > 0 {
		t.Error(c)
	}
}

func TestAContainerdContainerIsDescribedWhole(t *testing.T) {
	d := testDescriber(t)
	d.runtime = "containerd"
	s := statusOf("50", isExited)
	s.Reason, s.ExitCode = "OOMKilled", 137
	s.Image, s.ImageRef, s.ImageId = &cri.ImageSpec{Image: "docker.io/library/busybox:ci"}, "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("a", 64)
	c := d.whole(&cri.ContainerStatusResponse{Status: s, Info: verbose(containerdContainerInfo)})
	if c.Image.Name != "docker.io/library/asked" || c.Image.Tag != "2" || c.Image.Id != "sha256:"+strings.Repeat("a", 64) || c.Image.Digest != "" {
		t.Error(c.Image)
	}
	if c.GetExitCode() != 137 || !c.GetOomKilled() || c.FinishedUnixNano != 300 || c.Pid != 0 {
		t.Error(c)
	}
	if !c.Security.GetPrivileged() {
		t.Error(c.Security)
	}
	if c.CgroupPath != "" || c.CgroupId != 0 {
		t.Errorf("a cgroup that is not there: %s", c.CgroupPath)
	}
	must(t, os.MkdirAll(filepath.Join(d.root, "kubepods.slice/kubepods-pod1.slice/cri-containerd-50.scope"), 0o755))
	if c := d.whole(&cri.ContainerStatusResponse{Status: s, Info: verbose(containerdContainerInfo)}); c.CgroupPath != "/kubepods.slice/kubepods-pod1.slice/cri-containerd-50.scope" {
		t.Error(c.CgroupPath)
	}
}

func TestASandboxIsDescribedWithItsPod(t *testing.T) {
	for name, info := range map[string]string{"cri-o": crioSandboxInfo, "containerd": containerdSandboxInfo} {
		t.Run(name, func(t *testing.T) {
			d := testDescriber(t)
			p := podOf("5b")
			p.Labels, p.Annotations = map[string]string{"app": "demo"}, map[string]string{"note": "x"}
			p.Network = &cri.PodSandboxNetworkStatus{Ip: "10.98.0.3", AdditionalIps: []*cri.PodIP{{Ip: "fd00::3"}}}
			c, s := d.wholeSandbox(&cri.PodSandboxStatusResponse{Status: p, Info: verbose(info)})
			if c.Type != "sandbox" || c.Name != "POD" || c.KubernetesName != "POD" || c.PodUid != "u-5b" || c.SandboxId != "5b" || c.Image.Name != "registry.local/pause" || c.Image.Tag != "ci" || c.Hostname != "pod2" || c.Pid == 0 {
				t.Error(c)
			}
			if len(c.Ports) == 0 || c.Ports[0].ContainerPort != 8000 || c.Ports[0].HostPort != 18081 || c.Ports[0].HostIp != "127.0.0.1" || c.Ports[0].Protocol != "tcp" {
				t.Error(c.Ports)
			}
			if name == "cri-o" && (len(c.Networks) != 1 || c.Networks[0].Gateway != "10.98.0.1" || c.Networks[0].InterfaceMac != "3a:c4" || c.Networks[0].Ips[0] != "10.98.0.3") {
				t.Error(c.Networks)
			}
			if q := s.pod; q.Uid != "u-5b" || q.Name != "pod" || q.Namespace != "ns" || q.Node != "node" || q.Labels["app"] != "demo" || q.Annotations["note"] != "x" ||
				fmt.Sprint(q.Ips) != "[10.98.0.3 fd00::3]" || q.GetHostNetwork() || s.stage != started {
				t.Error(q)
			}
		})
	}
}

func TestWhatCRIOIsAboutToMakeIsDescribedFromItsInspection(t *testing.T) {
	d := testDescriber(t)
	text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	c, s := d.inspected("50", &inspected{Image: "docker.io/library/busybox:ci", ImageRef: "docker.io/library/busybox@sha256:c314", Created: 5, Sandbox: "5b",
		Labels: map[string]string{labelPodUID: "u-2", labelContainerName: "app"}, Annotations: map[string]string{"note": "c"},
		Spec: map[string]string{crioMetadata: text(metadata{Name: "app", Attempt: 1}), crioType: "container", crioImage: "asked:3", crioImageID: strings.Repeat("a", 64)}})
	if s != nil || c.Name != "app" || c.Image.Name != "asked" || c.Image.Tag != "3" || c.Image.Digest != "sha256:c314" || c.Image.Id == "" || c.SandboxId != "5b" ||
		c.PodUid != "u-2" || c.GetRestartCount() != 1 || c.State != protov1.Container_STATE_UNSPECIFIED || c.Annotations["note"] != "c" {
		t.Error(c)
	}
	c, s = d.inspected("5b", &inspected{Created: 5, Sandbox: "5b", Labels: map[string]string{"app": "demo"}, IPs: []string{"10.0.0.9"},
		Spec: map[string]string{crioMetadata: text(metadata{Name: "pod", UID: "u", Namespace: "ns"}), crioType: "sandbox", crioImageName: "pause:3", crioHostNetwork: "true"}})
	if s == nil || s.stage != early || s.pod.Uid != "u" || s.pod.Name != "pod" || s.pod.Namespace != "ns" || !s.pod.GetHostNetwork() || s.pod.Ips[0] != "10.0.0.9" {
		t.Errorf("%+v", s)
	}
	if c.Type != "sandbox" || c.Name != "POD" || c.Image.Name != "pause" || c.State != protov1.Container_STATE_UNSPECIFIED {
		t.Error(c)
	}
	if c, _ := d.inspected("50", &inspected{Labels: map[string]string{labelContainerName: "by-label"}, Spec: map[string]string{crioMetadata: "{"}}); c.Name != "by-label" || d.unread.Load() != 1 {
		t.Error(c)
	}
}

func TestTimesAndCodesThatAreNoneAreNotTold(t *testing.T) {
	d := testDescriber(t)
	c := d.container(&cri.ContainerStatus{Id: "a", State: isExited, CreatedAt: -6795364578871345152, StartedAt: -1, FinishedAt: 0, ExitCode: -1})
	if c.CreatedUnixNano != 0 || c.StartedUnixNano != 0 || c.FinishedUnixNano != 0 || c.ExitCode != nil || c.GetOomKilled() {
		t.Error(c)
	}
	c = d.container(&cri.ContainerStatus{Id: "a", State: cri.ContainerState_CONTAINER_UNKNOWN, ExitCode: 5})
	if c.State != protov1.Container_STATE_UNSPECIFIED || c.ExitCode != nil {
		t.Error(c)
	}
}

func TestOfTheIDInACgroupsPath(t *testing.T) {
	id := strings.Repeat("0a", 32)
	for path, want := range map[string]string{
		"/kubepods/pod1/" + id:                     id + " by ",
		"/" + id:                                   id + " by ",
		"/kubepods/pod1/crio-" + id:                id + " by cri-o",
		"/a.slice/crio-" + id + ".scope":           id + " by cri-o",
		"/a.slice/cri-containerd-" + id + ".scope": id + " by containerd",
		"/a/cri-containerd:" + id:                  id + " by containerd",
		"/docker/crio-" + id:                       id + " by cri-o",
		"/pods/crio-conmon-" + id:                  " by ",
		"/libpod_parent/libpod-" + id:              " by ",
		"/docker/" + id:                            " by ",
		"/system.slice/docker-" + id + ".scope":    " by ",
		"crio-":                                    " by ",
		"":                                         " by ",
		"/user.slice":                              " by ",
		"/" + id[1:]:                               " by ",
		"/" + id + "0":                             " by ",
		"/" + strings.ToUpper(id):                  " by ",
		"/cri-containerd" + id:                     " by ",
		"/cri-containerd":                          " by ",
	} {
		if got, by := containerID(path); got+" by "+by != want {
			t.Errorf("%q holds %q by %q, want %q", path, got, by, want)
		}
	}
	for runtime, want := range map[string][3]bool{"cri-o": {true, false, false}, "containerd": {false, true, true}, "other": {true, true, true}} {
		for i, by := range []string{"cri-o", "containerd", ""} {
			if got := (cgroupNews{by: by}).concerns(runtime); got != want[i] {
				t.Errorf("a cgroup by %q concerns %s: %v", by, runtime, got)
			}
		}
	}
}

func FuzzInfo(f *testing.F) {
	for _, s := range []string{crioContainerInfo, crioSandboxInfo, containerdContainerInfo, containerdSandboxInfo, "", "{}", "null", `{"runtimeSpec":null}`, `{"runtimeSpec":{"linux":{"resources":{"cpu":{"period":-1}}}}}`} {
		f.Add(s, s)
	}
	d := newDescriber(defaults(), nil)
	f.Fuzz(func(t *testing.T, text, annotation string) {
		s := statusOf("a", isRunning)
		s.Annotations = map[string]string{annotationPorts: annotation, annotation: annotation}
		c := d.whole(&cri.ContainerStatusResponse{Status: s, Info: verbose(text)})
		own, box := d.wholeSandbox(&cri.PodSandboxStatusResponse{Status: podOf("a"), Info: verbose(text)})
		seen, seenBox := d.inspected("a", &inspected{Image: annotation, ImageRef: text, Labels: map[string]string{text: annotation}, IPs: []string{annotation},
			Spec: map[string]string{crioMetadata: text, crioType: "sandbox", crioPorts: annotation, crioCNI: annotation, crioHostname: text, crioImageName: annotation}})
		for _, m := range []proto.Message{c, own, box.pod, seen, seenBox.pod} {
			b, err := proto.Marshal(m) // fails on what is not UTF-8
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 256<<10 {
				t.Errorf("%d bytes", len(b))
			}
		}
		if !utf8.ValidString(c.Name) {
			t.Error(c.Name)
		}
	})
}
