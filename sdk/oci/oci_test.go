package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// described is what a specification's JSON comes to.
func described(t testing.TB, runtime, text string) *protov1.Container {
	t.Helper()
	s, err := oci.DecodeBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, clip := &protov1.Container{Runtime: runtime}, &describe.Clip{}
	oci.Describe(c, clip, s)
	c.Truncated = clip.Fields()
	return c
}

func TestASpecificationIsDescribed(t *testing.T) {
	for _, tt := range []struct{ name, runtime, spec, want string }{
		{"nothing: nothing is limited", "oci", `{}`, `{"runtime":"oci",
			"limits":{"cpuQuotaUs":"-1","memoryBytes":"-1","swapBytes":"-1","memoryReservationBytes":"-1","pids":"-1"},
			"security":{"privileged":false,"seccomp":"unconfined"}}`},
		{"the whole of one", "oci", `{
			"process":{"user":{"uid":1000,"gid":100},"args":["sh","-c","x"],"env":["A=1","B"],"capabilities":{"bounding":["CAP_NET_ADMIN","CAP_KILL","CAP_CHOWN"]},
				"rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":18446744073709551615}],"apparmorProfile":"aa","selinuxLabel":"se"},
			"root":{"path":"rootfs","readonly":true},"hostname":"h","domainname":"d",
			"mounts":[{"destination":"/proc","type":"proc"},{"destination":"/dev/shm","type":"tmpfs"},{"destination":"/data","type":"none","source":"/srv","options":["rbind","ro"]},
				{"destination":"/tmp","type":"tmpfs","options":["size=1m"]},{"destination":"/hostproc","type":"bind","source":"/proc"}],
			"annotations":{"a":"b"},
			"linux":{"cgroupsPath":"/x/y","seccomp":{"defaultAction":"SCMP_ACT_ERRNO"},"namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/n"}],
				"resources":{"memory":{"limit":1000,"reservation":500,"swap":1500},"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0-1"},"pids":{"limit":10},
					"network":{"classID":1048577},
					"blockIO":{"weight":200,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteBpsDevice":[{"major":8,"minor":16,"rate":2}],
						"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":4}]}}}}`,
			`{"runtime":"oci","args":["sh","-c","x"],"env":["A=1","B"],"hostname":"h.d","annotations":{"a":"b"},"networkMode":"ns:/run/netns/n","cgroupPath":"/x/y",
			"mounts":[{"type":"bind","source":"/srv","destination":"/data","readOnly":true},{"type":"tmpfs","destination":"/tmp","readOnly":false},
				{"type":"bind","source":"/proc","destination":"/hostproc","readOnly":false}],
			"limits":{"cpuQuotaUs":"50000","cpuPeriodUs":"100000","cpuShares":"512","cpuset":"0-1","memoryBytes":"1000","swapBytes":"500","memoryReservationBytes":"500","pids":"10",
				"blkioWeight":"200","ulimits":[{"name":"nofile","soft":"1024","hard":"-1"}],"network":{"classId":1048577},
				"blkioThrottles":[{"device":"8:0","readBytesPerSecond":"1","readsPerSecond":"3","writesPerSecond":"4"},{"device":"8:16","writeBytesPerSecond":"2"}]},
			"security":{"user":"1000:100","privileged":false,"readOnlyRoot":true,"seccomp":"filtered","apparmor":"aa","selinux":"se","capabilitiesAdded":["NET_ADMIN","CHOWN"],"capabilitiesDropped":["AUDIT_WRITE","NET_BIND_SERVICE"]}}`},
		{"so they are where Docker made it", "docker", `{"process":{"capabilities":{"bounding":["CAP_NET_ADMIN","CAP_KILL","CAP_CHOWN"]}},"linux":{"namespaces":[{"type":"network"}]}}`,
			`{"runtime":"docker","limits":{"cpuQuotaUs":"-1","memoryBytes":"-1","swapBytes":"-1","memoryReservationBytes":"-1","pids":"-1"},
			"security":{"user":"0:0","privileged":false,"seccomp":"unconfined","capabilitiesAdded":["NET_ADMIN"],
				"capabilitiesDropped":["AUDIT_WRITE","DAC_OVERRIDE","FOWNER","FSETID","MKNOD","NET_BIND_SERVICE","NET_RAW","SETFCAP","SETGID","SETPCAP","SETUID","SYS_CHROOT"]}}`},
		{"capabilities are those beside the runtime's own", "cri-o", `{"process":{"capabilities":{"bounding":["CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_NET_BIND_SERVICE","CAP_SETGID","CAP_SETPCAP","CAP_SETUID","CAP_NET_RAW"]}}}`,
			`{"runtime":"cri-o","limits":{"cpuQuotaUs":"-1","memoryBytes":"-1","swapBytes":"-1","memoryReservationBytes":"-1","pids":"-1"},
			"security":{"user":"0:0","privileged":false,"seccomp":"unconfined","capabilitiesAdded":["NET_RAW"]}}`},
		{"the files of cgroup v2 win", "podman", `{"linux":{"namespaces":[{"type":"pid"}],"resources":{"memory":{"limit":1,"swap":-1},"cpu":{"quota":-1},
				"unified":{"memory.max":"2","memory.swap.max":"0","memory.low":"1","pids.max":"max","cpu.max":"10 20","cpu.weight":"30","memory.high":"7"}}}}`,
			`{"runtime":"podman","networkMode":"host","limits":{"cpuQuotaUs":"10","cpuPeriodUs":"20","memoryBytes":"2","swapBytes":"0","memoryReservationBytes":"1","pids":"-1","cpuWeight":"30"},
			"security":{"privileged":false,"seccomp":"unconfined"}}`},
		{"what the files say that is no number is not told", "oci", `{"linux":{"resources":{"unified":{"memory.max":"-5","pids.max":"many","cpu.max":"max x","cpu.weight":""}}}}`,
			`{"runtime":"oci","limits":{"cpuQuotaUs":"-1","memoryBytes":"-1","swapBytes":"-1","memoryReservationBytes":"-1","pids":"-1"},"security":{"privileged":false,"seccomp":"unconfined"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := &protov1.Container{}
			if err := protojson.Unmarshal([]byte(tt.want), want); err != nil {
				t.Fatal(err)
			}
			if got := described(t, tt.runtime, tt.spec); !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestAPrivilegedContainerIsGuessed(t *testing.T) {
	all := []string{"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_PTRACE", "CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"}
	for _, tt := range []struct {
		name   string
		change func(*specs.Spec)
		want   bool
	}{
		{"all of it", func(*specs.Spec) {}, true},
		{"no Linux section", func(s *specs.Spec) { s.Linux = nil }, true},
		{"no process", func(s *specs.Spec) { s.Process = nil }, false},
		{"no word of capabilities", func(s *specs.Spec) { s.Process.Capabilities = nil }, false},
		{"a capability less", func(s *specs.Spec) { s.Process.Capabilities.Bounding = all[1:] }, false},
		{"a filter", func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{} }, false},
		{"masked paths", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/proc/kcore"} }, false},
		{"a user namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: slices.Clone(all)}},
				Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}}}
			tt.change(s)
			if oci.Privileged(s) != tt.want {
				t.Error("got", !tt.want)
			}
		})
	}
}

func TestTheCgroupIsThatOfTheSpecification(t *testing.T) {
	for path, want := range map[string]string{
		"/docker/x":                    "/docker/x",
		"/a/../b//c/":                  "/b/c",
		"":                             "",
		"/":                            "",
		"/..":                          "",
		"relative/to/the/runtime":      "",
		"system.slice:docker:ID":       "/system.slice/docker-ID.scope",
		"kubepods-pod1.slice:cri-c:ID": "/kubepods.slice/kubepods-pod1.slice/cri-c-ID.scope",
		":runc:web":                    "/system.slice/runc-web.scope",
		"a.slice::web":                 "/a.slice/web.scope",
		"a.slice:x:b.slice":            "/a.slice/b.slice",
		"a.slice:x:":                   "",
		"a.slice:x:../../etc":          "",
		"a:b:c":                        "",
		"a.slice:b:c:d":                "",
		"/\xff":                        "",
		strings.Repeat("/a", 1000):     "",
	} {
		if got := oci.CgroupPath(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}

func TestWhatCannotBeReadIsSaidAndTheRestIsUsed(t *testing.T) {
	for _, tt := range []struct {
		name, text, err string
		args            []string // nil: no specification
	}{
		{"nothing", ``, "at byte 0", nil},
		{"half of one", `{"process":{"args":["a"`, "at byte 23: unexpected end", nil},
		{"another thing", `[1]`, " is no specs.Spec, but array", []string{}},
		{"arguments and a wrong limit", `{"linux":{"resources":{"memory":{"limit":"1g"}}},"process":{"args":["a"]}}`, "linux.resources.memory.limit is no int64, but string", []string{"a"}},
		{"a negative user", `{"process":{"args":["a"],"user":{"uid":-1}}}`, "process.user.uid is no uint32, but number -1", []string{"a"}},
		{"too much", `{"hostname":"` + strings.Repeat("x", 2000) + `"}`, "more than 2000 bytes: it is too large", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := oci.Decode(strings.NewReader(tt.text), 2000)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got %v", err)
			}
			if (s != nil) != (tt.args != nil) {
				t.Fatalf("got %v", s)
			}
			if s == nil {
				return
			}
			c := &protov1.Container{}
			oci.DescribePart(c, &describe.Clip{}, s)
			if !slices.Equal(c.Args, tt.args) || c.Limits != nil || c.Security != nil || c.Mounts != nil {
				t.Errorf("got %v", c)
			}
		})
	}
	broken := errors.New("broken")
	if s, err := oci.Decode(iotest.ErrReader(broken), 10); s != nil || !errors.Is(err, broken) {
		t.Errorf("got %v, %v", s, err)
	}
	if _, err := oci.Decode(strings.NewReader(`{"hostname":"`+strings.Repeat("x", 2000)+`"}`), 2000); !errors.Is(err, oci.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// A megabyte of labels is read; what is told of it stays small.
func TestTheLargestSpecificationFitsInAMessage(t *testing.T) {
	long := strings.Repeat("ä", 1<<10)
	many := slices.Repeat([]string{long}, 200)
	s := specs.Spec{Hostname: long, Annotations: map[string]string{}, Root: &specs.Root{},
		Process: &specs.Process{Args: many, Env: many, ApparmorProfile: long, SelinuxLabel: long, Capabilities: &specs.LinuxCapabilities{Bounding: many}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "network", Path: long}}, Resources: &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: long}, BlockIO: &specs.LinuxBlockIO{}}},
	}
	for i := range 500 {
		s.Annotations[fmt.Sprint(i)] = long
		if i >= 200 {
			continue
		}
		s.Mounts = append(s.Mounts, specs.Mount{Type: long, Source: long, Destination: long})
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: long})
		s.Linux.Resources.BlockIO.ThrottleReadBpsDevice = append(s.Linux.Resources.BlockIO.ThrottleReadBpsDevice,
			specs.LinuxThrottleDevice{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: int64(i)}, Rate: 1})
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) < 1<<20 || len(raw) > oci.MaxSpec {
		t.Fatalf("the specification has %d bytes", len(raw))
	}
	c := described(t, "oci", string(raw))
	config := describe.DefaultFilter()
	config.Env, config.LabelSize, config.LabelsSize = true, 16<<10, 64<<10
	describe.NewFilter(config).Apply(c)
	if n := proto.Size(c); n > wire.MaxChange {
		t.Errorf("%d bytes", n)
	}
	slices.Sort(c.Truncated)
	if want := []string{"annotations", "args", "env", "hostname", "limits", "mounts", "network_mode", "security"}; !slices.Equal(c.Truncated, want) {
		t.Errorf("shortened: %q", c.Truncated)
	}
	if len(c.Limits.BlkioThrottles) != describe.MaxThrottles || len(c.Limits.Ulimits) != describe.MaxUlimits || len(c.Args) == 0 || len(c.Annotations) == 0 {
		t.Error("more was left out than had to be")
	}
}

func TestWhatManagersWriteIsKnown(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		want        string
	}{
		{"nothing", nil, `{}`},
		{"containerd's for Kubernetes", map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.image-name": "r/app:1",
			"io.kubernetes.cri.sandbox-id": "s", "io.kubernetes.cri.sandbox-uid": "u"},
			`{"runtime":"containerd","name":"app","kubernetesName":"app","image":{"name":"r/app","tag":"1"},"podUid":"u","sandboxId":"s","type":"app"}`},
		{"a sandbox of it", map[string]string{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "s", "io.kubernetes.cri.sandbox-uid": "u", "io.kubernetes.cri.sandbox-name": "pod"},
			`{"runtime":"containerd","name":"POD","kubernetesName":"POD","podUid":"u","sandboxId":"s","type":"sandbox"}`},
		{"CRI-O's", map[string]string{"io.container.manager": "cri-o", "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.container.name": "app", "io.kubernetes.pod.uid": "u",
			"io.kubernetes.cri-o.ImageName": "r/app:1", "io.kubernetes.cri-o.ImageRef": id, "io.kubernetes.cri-o.SandboxID": "s"},
			`{"runtime":"cri-o","name":"app","kubernetesName":"app","image":{"name":"r/app","tag":"1","id":"sha256:` + id + `"},"podUid":"u","sandboxId":"s","type":"app"}`},
		{"Podman's", map[string]string{"io.container.manager": "libpod"}, `{"runtime":"podman"}`},
		{"nerdctl's", map[string]string{"nerdctl/name": "web", "nerdctl/namespace": "default"}, `{"runtime":"containerd","name":"web"}`},
		{"an image's", map[string]string{"org.opencontainers.image.ref.name": "app"}, `{"image":{"name":"app","tag":"latest"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want, got := &protov1.Container{}, &protov1.Container{}
			if err := protojson.Unmarshal([]byte(tt.want), want); err != nil {
				t.Fatal(err)
			}
			oci.ReadKnown(tt.annotations).Describe(got, &describe.Clip{})
			if !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
	told := &protov1.Container{Runtime: "docker", Name: "n", Image: &protov1.Image{Name: "i"}, PodUid: "p", SandboxId: "s", Type: "init", KubernetesName: "k"}
	got := proto.CloneOf(told)
	oci.ReadKnown(map[string]string{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.image-name": "x", "io.kubernetes.pod.uid": "x", "io.kubernetes.cri.sandbox-id": "x"}).
		Describe(got, &describe.Clip{})
	if !proto.Equal(got, told) {
		t.Errorf("what was told was overwritten: %v", got)
	}
}

func FuzzADecodedSpecificationCanBeDescribed(f *testing.F) {
	f.Add([]byte(`{"process":{"args":["a"],"capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"\u0000"}]},"annotations":{"a":"b"}}`))
	f.Add([]byte(`{"linux":{"cgroupsPath":"a.slice:b:c","resources":{"memory":{"limit":1,"swap":2},"unified":{"cpu.max":"1 2"}}},"mounts":[{"type":"\xff"}]}`))
	f.Add([]byte(`{"linux":null,"process":null,"mounts":[{}],"root":null}`))
	f.Add([]byte(`{"process":{"user":{"uid":-1}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := oci.Decode(strings.NewReader(string(raw)), 1<<16)
		if s == nil {
			if err == nil {
				t.Fatal("neither a specification nor an error")
			}
			return
		}
		c, clip := &protov1.Container{}, &describe.Clip{}
		if err != nil {
			oci.DescribePart(c, clip, s)
		} else {
			oci.Describe(c, clip, s)
		}
		oci.ReadKnown(s.Annotations).Describe(c, clip)
		c.Truncated = clip.Fields()
		describe.NewFilter(describe.DefaultFilter()).Apply(c)
		if _, err := proto.Marshal(c); err != nil {
			t.Error(err)
		}
		if n := proto.Size(c); n > wire.MaxChange {
			t.Errorf("%d bytes", n)
		}
	})
}
