package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// States as runtimes write them, shortened.
const (
	ofRunc = `{"id":"web","init_process_pid":4242,"init_process_start":804237,"created":"2024-03-01T07:17:54.736623953Z","rootless":false,
		"cgroup_paths":{"":"/sys/fs/cgroup/unified/a/web","freezer":"/sys/fs/cgroup/freezer/a/web"},"namespace_paths":{"NEWPID":"/proc/4242/ns/pid"},
		"config":{"rootfs":"/b/rootfs","readonlyfs":true,"hostname":"h","domainname":"d",
			"mounts":[{"source":"proc","destination":"/proc","device":"proc","flags":0},{"source":"/etc","destination":"/mnt","device":"bind","flags":20481}],
			"namespaces":[{"type":"NEWPID","path":""},{"type":"NEWNET","path":"/run/netns/n"}],
			"capabilities":{"Bounding":["CAP_KILL","CAP_CHOWN"],"Effective":null},
			"cgroups":{"name":"web","path":"","memory":1000,"memory_reservation":0,"memory_swap":1500,"cpu_shares":512,"cpu_quota":5000,"cpu_period":10000,"cpuset_cpus":"0",
				"pids_limit":10,"blkio_weight":300,"blkio_throttle_read_bps_device":[{"major":8,"minor":0,"rate":7}],"net_cls_classid_u":5,"unified":{"cpu.weight":"50"}},
			"apparmor_profile":"aa","process_label":"se","mask_paths":["/proc/kcore"],"seccomp":{"default_action":1},"version":"1.0.2","labels":["team=a=b","bundle=/b"]}}`
	ofCrun      = `{"pid":18722,"process-start-time":875009,"cgroup-path":"/a/web","scope":"","rootfs":"rootfs","systemd-cgroup":false,"bundle":"/b","created":"2024-03-01T07:29:42.274487Z","owner":"root","detached":true}`
	ofCrunsSpec = `{"ociVersion":"1.0.2","process":{"args":["sleep","5"],"user":{"uid":5,"gid":6}},"linux":{"cgroupsPath":"/a/web"},"annotations":{"team":"b"}}`
	ofYouki     = `{"ociVersion":"v1.0.2","id":"web","status":"running","pid":77,"bundle":"/b","annotations":{"team":"c"},"created":"2024-03-01T07:29:42.274487Z","creator":0,"useSystemd":false,"cleanUpIntelRdtSubdirectory":null}`
)

// lay writes files below a directory.
func lay(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestTheStateOfEachRuntimeIsRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		check func(*state) bool
	}{
		{"runc's", map[string]string{"web/state.json": ofRunc}, func(s *state) bool {
			return s.pid == 4242 && s.start == 804237 && s.running && !s.fifo && s.cgroup == "/a/web" && s.freezer == "/sys/fs/cgroup/freezer/a/web" && s.bundle == "/b" && s.sure && !s.whole &&
				s.created == 1709277474736623953 && len(s.spec.Annotations) == 1 && s.spec.Annotations["team"] == "a=b" && *s.limits.Memory.Limit == 1000 && s.limits.Memory.Reservation == nil
		}},
		{"runc's before its start", map[string]string{"web/state.json": ofRunc, "web/exec.fifo": ""}, func(s *state) bool { return s.fifo }},
		{"runc's with cgroup v2 alone", map[string]string{"web/state.json": `{"init_process_pid":1,"cgroup_paths":{"":"/sys/fs/cgroup/unified/web"}}`},
			func(s *state) bool { return s.cgroup == "/unified/web" && s.spec == nil }},
		{"runc's with cgroup v1 alone", map[string]string{"web/state.json": `{"init_process_pid":1,"cgroup_paths":{"cpu":"/sys/fs/cgroup/cpu/web"}}`},
			func(s *state) bool { return s.cgroup == "" && s.running }},
		{"crun's", map[string]string{"web/status": ofCrun, "web/config.json": ofCrunsSpec}, func(s *state) bool {
			return s.pid == 18722 && s.start == 875009 && s.running && s.cgroup == "/a/web" && s.whole && s.sure && s.created == 1709278182274487000 && slices.Equal(s.spec.Process.Args, []string{"sleep", "5"})
		}},
		{"crun's before there is a process", map[string]string{"web/config.json": ofCrunsSpec}, func(s *state) bool { return !s.running && s.cgroup == "/a/web" && s.whole }},
		{"crun's that names no cgroup", map[string]string{"web/config.json": `{}`}, func(s *state) bool { return s.cgroup == "/web" }},
		{"an old crun's without a copy", map[string]string{"web/status": ofCrun}, func(s *state) bool { return s.running && s.spec == nil && s.bundle == "/b" }},
		{"youki's", map[string]string{"web/state.json": ofYouki, "web/youki_config.json": `{"hooks":null,"cgroup_path":"/a/web"}`}, func(s *state) bool {
			return s.pid == 77 && s.status == "running" && s.running && s.cgroup == "/a/web" && s.spec.Annotations["team"] == "c" && !s.sure && s.bundle == "/b"
		}},
		{"youki's with systemd", map[string]string{"web/state.json": strings.Replace(ofYouki, `"useSystemd":false`, `"useSystemd":true`, 1), "web/youki_config.json": `{"cgroup_path":"a.slice:youki:web"}`},
			func(s *state) bool { return s.cgroup == "/a.slice/youki-web.scope" }},
		{"youki's with systemd's words and without systemd", map[string]string{"web/state.json": ofYouki, "web/youki_config.json": `{"cgroup_path":":youki:web"}`},
			func(s *state) bool { return s.cgroup == "/:youki:web" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, dir, tt.files)
			s, err := readState(openRoot(t, dir), "web")
			if err != nil || !tt.check(s) {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
}

func TestAStateThatIsNoneIsNotTaken(t *testing.T) {
	huge := strings.Repeat(" ", maxState+1)
	for _, tt := range []struct {
		name  string
		files map[string]string
		make  func(dir string) error
		err   string
	}{
		{"nothing", map[string]string{"web/other": "x"}, nil, errNoState.Error()},
		{"crun's, half written", map[string]string{"web/config.json": `{"process":{"ar`}, nil, errNoState.Error()},
		{"youki's before it names a cgroup", map[string]string{"web/state.json": `{"status":"creating"}`}, nil, errNoState.Error()},
		{"half of one", map[string]string{"web/state.json": ofRunc[:200]}, nil, "unexpected end"},
		{"another thing", map[string]string{"web/state.json": `{"a":1}`}, nil, "no runtime that is known"},
		{"a list", map[string]string{"web/state.json": `[]`}, nil, "is no main.runcState"},
		{"a huge one", map[string]string{"web/state.json": huge}, nil, oci.ErrTooLarge.Error()},
		{"a huge status", map[string]string{"web/status": huge}, nil, oci.ErrTooLarge.Error()},
		{"a broken status", map[string]string{"web/status": `{"pid":"x"}`}, nil, "cannot unmarshal"},
		{"a fifo", map[string]string{"web/x": ""}, func(dir string) error { return unix.Mkfifo(dir+"/web/state.json", 0o600) }, "no regular file"},
		{"a directory", map[string]string{"web/state.json/x": ""}, nil, "no regular file"},
		{"a link out of the root", map[string]string{"web/x": ""}, func(dir string) error { return os.Symlink("/etc/passwd", dir+"/web/state.json") }, "escapes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, dir, tt.files)
			if tt.make != nil {
				if err := tt.make(dir); err != nil {
					t.Fatal(err)
				}
			}
			s, err := readState(openRoot(t, dir), "web")
			if s != nil || err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %+v, %v", s, err)
			}
		})
	}
}

func TestWhatIsRightInABrokenStateIsUsed(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{"web/state.json": strings.Replace(ofRunc, `"memory":1000`, `"memory":"1k"`, 1)})
	s, err := readState(openRoot(t, dir), "web")
	if err == nil || s == nil || s.pid != 4242 || s.cgroup != "/a/web" || s.sure {
		t.Fatalf("got %+v, %v", s, err)
	}
	c, _ := testDescriber().made(newRoot(place{path: dir, name: "/run/runc"}), "web", s)
	if c.Limits != nil || c.Security != nil || c.Annotations["team"] != "a=b" || c.Hostname != "h.d" {
		t.Errorf("described as %v", c)
	}
}

func testDescriber() *describer {
	return &describer{filter: describe.NewFilter(describe.DefaultFilter())}
}

func TestAContainerIsDescribedByWhatIsThere(t *testing.T) {
	bundle := t.TempDir()
	lay(t, bundle, map[string]string{"config.json": `{"process":{"args":["a","b"],"user":{"uid":7}},"linux":{"resources":{"memory":{"limit":1}}},"annotations":{"team":"bundle"}}`})
	broken := t.TempDir()
	lay(t, broken, map[string]string{"config.json": `{"process":{"args":["a","b"],"user":{"uid":-7}}}`})
	in := func(dir string) string { return strings.Replace(ofRunc, "bundle=/b", "bundle="+dir, 1) }
	id := strings.Repeat("0a", 32)
	for _, tt := range []struct {
		name, root, id string
		files          map[string]string
		err            bool
		check          func(*protov1.Container) bool
	}{
		{"runc's state alone", "/run/runc", "web", map[string]string{"state.json": ofRunc}, false, func(c *protov1.Container) bool {
			l, s := c.Limits, c.Security
			return c.Id == "web" && c.Scope == "oci:/run/runc" && c.Name == "web" && c.Runtime == "oci" && c.Args == nil && c.Hostname == "h.d" && c.NetworkMode == "ns:/run/netns/n" && c.CgroupPath == "" &&
				len(c.Mounts) == 1 && c.Mounts[0].Type == "bind" && c.Mounts[0].GetReadOnly() && c.Mounts[0].Source == "/etc" &&
				l.GetMemoryBytes() == 1000 && l.GetSwapBytes() == 500 && l.GetMemoryReservationBytes() == -1 && l.GetCpuShares() == 512 && l.GetCpuQuotaUs() == 5000 && l.GetCpuPeriodUs() == 10000 &&
				l.GetCpuset() == "0" && l.GetPids() == 10 && l.GetBlkioWeight() == 300 && l.BlkioThrottles[0].Device == "8:0" && l.BlkioThrottles[0].ReadBytesPerSecond == 7 && l.Network.GetClassId() == 5 &&
				l.GetCpuWeight() == 50 && s.User == "" && s.GetReadOnlyRoot() && s.Apparmor == "aa" && s.Selinux == "se" && s.Seccomp == "filtered" && !s.GetPrivileged() &&
				slices.Equal(s.CapabilitiesAdded, []string{"CHOWN"})
		}},
		{"runc's state and the bundle", "/run/runc", "web", map[string]string{"state.json": in(bundle)}, false, func(c *protov1.Container) bool {
			return slices.Equal(c.Args, []string{"a", "b"}) && c.Security.User == "7:0" && c.Limits.GetMemoryBytes() == 1000 && c.Annotations["team"] == "bundle" && len(c.Truncated) == 0
		}},
		{"runc's state and a broken bundle", "/run/runc", "web", map[string]string{"state.json": in(broken)}, true, func(c *protov1.Container) bool {
			return slices.Equal(c.Args, []string{"a", "b"}) && c.Security.User == "" && c.Limits.GetMemoryBytes() == 1000 && c.Hostname == "h.d" && c.Annotations["team"] == "a=b"
		}},
		{"crun's copy", "/run/crun", "web", map[string]string{"status": ofCrun, "config.json": ofCrunsSpec}, false, func(c *protov1.Container) bool {
			return slices.Equal(c.Args, []string{"sleep", "5"}) && c.Security.User == "5:6" && c.Annotations["team"] == "b"
		}},
		{"youki's, which has no limits", "/run/youki", "web", map[string]string{"state.json": ofYouki, "youki_config.json": `{"cgroup_path":"/a"}`}, false, func(c *protov1.Container) bool {
			return c.Annotations["team"] == "c" && c.Limits == nil && c.Security == nil
		}},
		{"one of containerd's", "/run/containerd/runc/default", "web", map[string]string{"state.json": ofRunc}, false, func(c *protov1.Container) bool {
			return c.Scope == "containerd:default" && c.Runtime == "containerd" && c.Name == "web"
		}},
		{"one of Kubernetes on containerd", "/run/containerd/runc/k8s.io", id, map[string]string{"state.json": strings.Replace(ofRunc, `"team=a=b"`,
			`"io.kubernetes.cri.container-type=container","io.kubernetes.cri.container-name=app","io.kubernetes.cri.image-name=r/app:1","io.kubernetes.cri.sandbox-uid=u"`, 1)}, false, func(c *protov1.Container) bool {
			return c.Id == id && c.Scope == "" && c.Runtime == "containerd" && c.Name == "app" && c.Image.Name == "r/app" && c.Image.Tag == "1" && c.PodUid == "u" && c.Type == "app"
		}},
		{"Docker's, whose name Docker knows", "/run/docker/runtime-runc/moby", id, map[string]string{"state.json": ofRunc}, false, func(c *protov1.Container) bool {
			return c.Scope == "" && c.Runtime == "docker" && c.Name == ""
		}},
		{"Docker's below containerd", "/run/containerd/runc/moby", id, map[string]string{"state.json": ofRunc}, false, func(c *protov1.Container) bool { return c.Runtime == "docker" && c.Name == "" }},
		{"Podman's", "/run/crun", id, map[string]string{"status": ofCrun, "config.json": `{"annotations":{"io.container.manager":"libpod"},"process":{}}`}, false, func(c *protov1.Container) bool {
			return c.Scope == "" && c.Runtime == "podman" && c.Name == ""
		}},
		{"a bare runtime's with a long id", "/run/runc", id, map[string]string{"state.json": ofRunc}, false, func(c *protov1.Container) bool { return c.Scope == "" && c.Runtime == "oci" && c.Name == id }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{}
			for name, text := range tt.files {
				files[tt.id+"/"+name] = text
			}
			lay(t, dir, files)
			root := newRoot(place{path: dir, name: tt.root})
			if err := root.open(); err != nil {
				t.Fatal(err)
			}
			defer root.dir.Close()
			s, err := readState(root.dir, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			c, err := testDescriber().made(root, tt.id, s)
			if (err != nil) != tt.err || !tt.check(c) {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
}

func TestARootSaysWhoseItIs(t *testing.T) {
	for _, tt := range []struct {
		path, scope, runtime string
		parent               bool
	}{
		{"/run/runc", "oci:/run/runc", "", false},
		{"/run/containerd/runc", "oci:/run/containerd/runc", "", true},
		{"/run/containerd/runc/default", "containerd:default", "containerd", false},
		{"/run/k3s/containerd/runc/k8s.io", "containerd:k8s.io", "containerd", false},
		{"/run/docker/runtime-runc", "oci:/run/docker/runtime-runc", "", true},
		{"/run/docker/runtime-runc/moby", "oci:/run/docker/runtime-runc/moby", "docker", false},
		{"/srv/runc", "oci:/srv/runc", "", false},
	} {
		if r := newRoot(place{path: "/elsewhere", name: tt.path}); r.scope != tt.scope || r.runtime != tt.runtime || r.parent != tt.parent {
			t.Errorf("%s: got %q, %q, %v", tt.path, r.scope, r.runtime, r.parent)
		}
	}
}

func FuzzAStateIsDescribedOrRefused(f *testing.F) {
	f.Add("state.json", []byte(ofRunc))
	f.Add("status", []byte(ofCrun))
	f.Add("config.json", []byte(ofCrunsSpec))
	f.Add("state.json", []byte(ofYouki))
	f.Add("state.json", []byte(`{"config":{"labels":["bundle=/\u0000"],"mounts":[{}],"cgroups":{"unified":{"a":""}}},"cgroup_paths":{"":"/sys/fs/cgroup/../../x"}}`))
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "web"), 0o755); err != nil {
		f.Fatal(err)
	}
	root := newRoot(place{path: dir, name: "/run/runc"})
	if err := root.open(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		if !slices.Contains([]string{stateFile, statusFile, configFile, youkiFile}, name) {
			return
		}
		at := filepath.Join(dir, "web", name)
		if err := os.WriteFile(at, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(at)
		s, err := readState(root.dir, "web")
		if s == nil {
			if err == nil {
				t.Error("neither a state nor an error")
			}
			return
		}
		if s.cgroup != "" && (!strings.HasPrefix(s.cgroup, "/") || strings.Contains(s.cgroup+"/", "/../")) {
			t.Errorf("its cgroup is %q", s.cgroup)
		}
		if s.bundle != "" && len(s.bundle) < 4096 {
			s.bundle = "" // it would be opened
		}
		c, err := testDescriber().made(root, "web", s)
		if c == nil {
			t.Errorf("no description, and %v", err)
		}
	})
}

func TestAStartingContainersFifoIsNeverOpened(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{"web/state.json": ofRunc})
	if err := unix.Mkfifo(filepath.Join(dir, "web", startFifo), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := start(t, defaults(dir), nil)
	r.wait("the container", inState("web", created))
	// As runc does, which then waits for somebody to read: without a reader this fails.
	fd, err := unix.Open(filepath.Join(dir, "web", startFifo), unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if !errors.Is(err, unix.ENXIO) {
		_ = unix.Close(fd)
		t.Errorf("somebody reads the fifo: %v", err)
	}
}
