package resource

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMountsOfV1AreFound(t *testing.T) {
	const text = `30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:28 /docker/x /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /host/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / /host/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 30 0:31 / /a\040b\134c rw,relatime - cgroup cgroup rw,memory
39 30 0:36 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,pids
`
	got := mounts(text)
	want := [controllers]mount{cpuacct: {"/host/cpu", "/"}, cpu: {"/host/cpu", "/"}, memory: {`/a b\c`, "/"}}
	if got != want {
		t.Errorf("got %+v", got)
	}
}

func TestEachControllerIsTakenFromWhereItIsMounted(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpu io pids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := find([]byte("34 30 0:31 / /m rw - cgroup cgroup rw,memory\n38 30 0:35 / /p rw - cgroup cgroup rw,pids\n"), dir)
	if err != nil {
		t.Fatal(err)
	}
	from := map[string]bool{}
	for _, f := range h.files {
		from[f.name] = f.v1
	}
	for name, v1 := range map[string]bool{
		"memory.usage_in_bytes": true, "memory.stat": true, "pids.current": true,
		"cpu.stat": false, "cpu.max": false, "io.stat": false, "io.pressure": false,
	} {
		if got, ok := from[name]; !ok || got != v1 {
			t.Errorf("%s: v1 %v, there %v", name, got, ok)
		}
	}
	for _, name := range []string{"memory.current", "cpuacct.usage", "cpu.cfs_quota_us"} {
		if _, ok := from[name]; ok {
			t.Errorf("%s is read too", name)
		}
	}
	places := map[string]string{}
	for _, p := range h.Places() {
		places[p.What] = p.Where
	}
	if places["memory"] != "cgroup1 at /m" || places["io"] != "cgroup2 at "+dir || places["throttling"] != "cgroup2 at "+dir {
		t.Errorf("places are %v", places)
	}
	nothing, err := find(nil, "")
	if err != nil || len(nothing.files) > 0 {
		t.Errorf("without any control group %v is read, %v", nothing.files, err)
	}
	for _, p := range nothing.Places() {
		if p.Where != "" {
			t.Errorf("without any control group there is %+v", p)
		}
	}
	if _, err := find(nil, t.TempDir()); err == nil {
		t.Error("a root that is none is taken")
	}
}

func TestAContainersGroupsOnV1AreThoseOfItsProcess(t *testing.T) {
	const id, other = fixtureID, "aaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccdddd"
	dir := t.TempDir()
	for _, p := range []string{"/docker/" + id + "/init", "/machine.slice/libpod-" + id + ".scope", "/elsewhere/" + id, "/web", "/short/web", "/pods/webapp", "/docker/" + other} {
		if err := os.MkdirAll(filepath.Join(dir, "memory", p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := &Hierarchies{v2: dir}
	h.v1[memory] = mount{filepath.Join(dir, "memory"), "/"}
	h.v1[pids] = mount{filepath.Join(dir, "memory"), "/lxc/daemon"}
	for _, tt := range []struct {
		name, main, id, status, want string
	}{
		{"the same as on v2", "/docker/" + id, id, "4:memory:/docker/" + id + "\n", "/docker/" + id},
		{"no process is known", "/docker/" + id, id, "", "/docker/" + id},
		{"the process has moved to a group of its own inside", "/docker/" + id, id, "4:memory:/docker/" + id + "/init\n", "/docker/" + id},
		{"another place, with the id", "/docker/" + id, id, "4:memory:/elsewhere/" + id + "\n", "/elsewhere/" + id},
		{"another form of the name", "/docker/" + id, id, "4:memory:/machine.slice/libpod-" + id + ".scope/container\n", "/machine.slice/libpod-" + id + ".scope"},
		{"another place, with the name that the group has on v2", "/a/web", "x", "4:memory:/short/web\n", "/short/web"},
		{"a short id that is the name", "", "web", "4:memory:/web\n", "/web"},
		{"a short id that is part of another's name", "", "web", "4:memory:/pods/webapp\n", ""},
		{"another container's group: the pid is no longer the container's", "/docker/" + id, id, "4:memory:/docker/" + other + "\n", "/docker/" + id},
		{"nobody's group", "/nowhere", id, "4:memory:/\n", ""},
		{"a group that is not there", "/nowhere", id, "4:memory:/gone/" + id + "\n", ""},
		{"above what is seen here", "/nowhere", id, "4:memory:/../" + id + "\n", ""},
		{"the whole host", "/", id, "", ""},
		{"nothing known", "", "", "", ""},
		{"v1 alone", "", id, "4:memory:/docker/" + id + "\n", "/docker/" + id},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := h.locate(tt.main, tt.id, tt.status)
			if g.v1[memory] != tt.want {
				t.Errorf("on v1 it is at %q, want %q", g.v1[memory], tt.want)
			}
			if want := strings.TrimSuffix(tt.main, "/"); g.v2 != want {
				t.Errorf("on v2 it is at %q, want %q", g.v2, want)
			}
		})
	}
	t.Run("below a mount that shows a part", func(t *testing.T) {
		g := h.locate("", id, "8:pids:/lxc/daemon/docker/"+id+"\n")
		if g.v1[pids] != "/docker/"+id {
			t.Errorf("it is at %q", g.v1[pids])
		}
		if g = h.locate("", id, "8:pids:/lxc/other/docker/"+id+"\n"); g.v1[pids] != "" {
			t.Errorf("what the mount does not show is at %q", g.v1[pids])
		}
	})
}
