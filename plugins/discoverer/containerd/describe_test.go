package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// describedAs describes a container with a specification, in the namespace default.
func describedAs(t *testing.T, c Config, spec string, change ...func(*containersapi.Container)) *protov1.Container {
	t.Helper()
	in := &containersapi.Container{ID: "a", Image: "img", Spec: &anypb.Any{TypeUrl: specType, Value: []byte(spec)}}
	for _, f := range change {
		f(in)
	}
	return newDescriber(c).container("default", in)
}

func TestWhatIsReadOfASpecification(t *testing.T) {
	c := defaults()
	const spec = `{"hostname":"h","domainname":"d","process":{"args":["a","b"],"env":["A=1"]},"annotations":{"x":"y"},
		"mounts":[{"destination":"/proc","type":"proc"},{"destination":"/run","type":"tmpfs"},{"destination":"/tmp","type":"tmpfs","source":"tmpfs"},
		{"destination":"/d","type":"none","source":"/s","options":["rbind","ro"]}],"linux":{"namespaces":[{"type":"pid"},{"type":"network"}]}}`
	got := describedAs(t, c, spec)
	if len(got.Env) != 0 || got.NetworkMode != "" || got.Hostname != "h.d" || strings.Join(got.Args, " ") != "a b" || got.Annotations["x"] != "y" {
		t.Error(got)
	}
	if len(got.Mounts) != 2 || got.Mounts[0].Destination != "/tmp" || got.Mounts[1].Type != "bind" || !got.Mounts[1].GetReadOnly() {
		t.Error(got.Mounts)
	}
	c.Env = true
	if got := describedAs(t, c, spec); len(got.Env) != 1 || got.Env[0] != "A=1" {
		t.Error(got.Env)
	}
	if got := describedAs(t, c, `{"linux":{"namespaces":[{"type":"pid"}]}}`); got.NetworkMode != "host" {
		t.Errorf("without a network namespace of its own: %q", got.NetworkMode)
	}
}

func TestWhatCannotBeReadSaysNothingWrong(t *testing.T) {
	for name, spec := range map[string]string{
		"no JSON": "{{{", "too long": `{"hostname":"` + strings.Repeat("x", oci.MaxSpec) + `"}`, "another type": `{"process":{"args":["a"],"user":7},"linux":{"cgroupsPath":"/default/a"}}`,
	} {
		got := describedAs(t, defaults(), spec)
		if got.Limits != nil || got.Security != nil || got.NetworkMode != "" || got.Name != "a" || got.Image.GetName() != "img" {
			t.Errorf("%s: %v", name, got)
		}
		if name == "another type" && (len(got.Args) != 1 || got.CgroupPath != "/default/a") {
			t.Errorf("%s: what can be read is not: %v", name, got)
		}
	}
	got := describedAs(t, defaults(), `{"hostname":"x"}`, func(c *containersapi.Container) { c.Spec.TypeUrl = "windows" })
	if got.Hostname != "" || got.Limits != nil {
		t.Error(got)
	}
}

func TestNamesOfContainers(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		namespace, id string
		labels        map[string]string
		want          string
	}{
		{"default", "web1", nil, "web1"},
		{"default", hex, map[string]string{labelName: "web"}, "web"},
		{"default", hex, nil, hex},
		{"moby", hex, nil, ""},
		{"k8s.io", hex, map[string]string{labelKind: "container", labelContainerName: "app"}, "app"},
		{"k8s.io", hex, map[string]string{labelKind: "sandbox"}, "POD"},
		{"k8s.io", hex, map[string]string{labelContainerName: "not of the CRI"}, hex},
	} {
		got := newDescriber(defaults()).container(tt.namespace, &containersapi.Container{ID: tt.id, Labels: tt.labels})
		if got.Name != tt.want {
			t.Errorf("%s/%s with %v is called %q, want %q", tt.namespace, short(tt.id), tt.labels, got.Name, tt.want)
		}
	}
}

func TestAPodsMetadata(t *testing.T) {
	of := func(kind, extension, metadata string) *protov1.Container {
		return describedAs(t, defaults(), `{"linux":{"namespaces":[{"type":"network","path":"/proc/1/ns/net"}]},"annotations":{"io.kubernetes.cri.sandbox-id":"s"}}`, func(c *containersapi.Container) {
			c.Labels = map[string]string{labelKind: kind}
			c.Extensions = map[string]*anypb.Any{extension: {Value: []byte(metadata)}}
		})
	}
	got := of("sandbox", sandboxExtension, `{"Version":"v1","Metadata":{"IP":"10.0.0.1","AdditionalIPs":["fd00::1","junk"],"Config":{"metadata":{"uid":"u","attempt":2},
		"hostname":"h","port_mappings":[{"container_port":80,"host_port":8080,"host_ip":"127.0.0.1"},{"protocol":2,"container_port":1}],
		"annotations":{"kubernetes.io/egress-bandwidth":"junk"},"linux":{"security_context":{"privileged":true}}}}}`)
	if got.PodUid != "u" || got.SandboxId != "s" || got.GetRestartCount() != 2 || got.Hostname != "h" || !got.Security.GetPrivileged() || got.Limits.Network != nil {
		t.Error(got)
	}
	if len(got.Networks) != 1 || fmt.Sprint(got.Networks[0].Ips) != "[10.0.0.1 fd00::1]" {
		t.Error(got.Networks)
	}
	if fmt.Sprint(got.Ports) != fmt.Sprint([]*protov1.Port{{Protocol: "tcp", ContainerPort: 80, HostPort: 8080, HostIp: "127.0.0.1"}, {Protocol: "sctp", ContainerPort: 1}}) {
		t.Error(got.Ports)
	}
	got = of("sandbox", sandboxExtension, `{"Metadata":{"IP":"10.0.0.1","CNIResult":{"Interfaces":{"lo":{"IPConfigs":[{"IP":"127.0.0.1"}]},"veth":{"Mac":"m1"},
		"eth0":{"IPConfigs":[{"IP":"10.0.0.1","Gateway":"10.0.0.254"},{"IP":"::ffff:10.0.0.9"}],"Mac":"m2"},"net1":{"IPConfigs":[{"IP":"10.9.0.1"}]}}}}}`)
	if fmt.Sprint(got.Networks) != fmt.Sprint([]*protov1.Network{{Name: "eth0", InterfaceMac: "m2", Ips: []string{"10.0.0.1", "10.0.0.9"}, Gateway: "10.0.0.254"}, {Name: "net1", Ips: []string{"10.9.0.1"}}}) {
		t.Error(got.Networks)
	}
	id := "sha256:" + strings.Repeat("1", 64)
	got = of("container", containerExtension, `{"Metadata":{"SandboxID":"other","ImageRef":"`+id+`","Config":{"metadata":{"name":"app"},"image":{"user_specified_image":"web:2"}}}}`)
	if got.Name != "app" || got.Image.Name != "web" || got.Image.Tag != "2" || got.Image.Id != id || got.NetworkMode != "container:s" || got.Type != "" {
		t.Error(got)
	}
	if got := of("container", containerExtension, `{"Metadata":[]}`); got.SandboxId != "s" {
		t.Error(got)
	}
}

func TestBandwidths(t *testing.T) {
	for text, want := range map[string]int64{
		"10M": 10_000_000, "1Gi": 1 << 30, "1.5k": 1500, "500": 500, "5e8": 500_000_000, "100m": 0, "0": 0, "9E": 9e18,
		"": -1, "M": -1, "-1M": -1, "10E": -1, "inf": -1, "NaN": -1, "0x10": -1, "1 M": -1, "1e999": -1, strings.Repeat("1", 40): -1,
	} {
		got := bits(text)
		if want < 0 && got != nil || want >= 0 && (got == nil || *got != want) {
			t.Errorf("%q: %v, want %d", text, got, want)
		}
	}
}

func TestALargeDescriptionIsBounded(t *testing.T) {
	c := defaults()
	c.Env = true
	many := strings.TrimSuffix(strings.Repeat(`"`+strings.Repeat("a", 500)+`",`, 400), ",")
	mounts := strings.TrimSuffix(strings.Repeat(`{"destination":"/`+strings.Repeat("d", 900)+`","type":"bind","source":"/s"},`, 300), ",")
	labels := map[string]string{}
	for i := range 1000 {
		labels[fmt.Sprint("label", i)] = strings.Repeat("v", 300)
	}
	got := describedAs(t, c, `{"process":{"args":[`+many+`],"env":[`+many+`]},"mounts":[`+mounts+`]}`, func(c *containersapi.Container) { c.Labels = labels })
	if n := proto.Size(got); n > 150<<10 {
		t.Errorf("%d bytes", n)
	}
	if slices.Sort(got.Truncated); fmt.Sprint(got.Truncated) != "[args env labels mounts]" {
		t.Error(got.Truncated)
	}
}

func TestWhereTheSocketIs(t *testing.T) {
	for _, tt := range []struct{ configured, env, want string }{
		{"", "", defaultSocket},
		{"", "/run/k3s/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"},
		{"", "unix:///a", "/a"},
		{"unix:///b", "/a", "/b"},
		{"", "tcp://1.2.3.4:5", ""},
		{"", "relative", ""},
	} {
		got, err := findSocket(tt.configured, tt.env, "")
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q, %q: %q, %v", tt.configured, tt.env, got, err)
		}
	}
	root := t.TempDir()
	if got, err := findSocket("", "", root); err != nil || got != defaultSocket {
		t.Errorf("nowhere: %q, %v", got, err)
	}
	below := root + defaultSocket
	must(t, os.MkdirAll(filepath.Dir(below), 0o755))
	must(t, os.WriteFile(below, nil, 0o600))
	want := below
	if _, err := os.Stat(defaultSocket); err == nil { // this host has one
		want = defaultSocket
	}
	if got, err := findSocket("", "", root); err != nil || got != want {
		t.Errorf("below the host's root: %q, %v", got, err)
	}
}
