package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/moby/moby/api/types/container"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

func TestAnImageReferenceIsSplit(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct{ ref, name, tag, digest, id string }{
		{"busybox", "busybox", "latest", "", ""},
		{"busybox:1.36", "busybox", "1.36", "", ""},
		{"registry.example:5000/team/app", "registry.example:5000/team/app", "latest", "", ""},
		{"registry.example:5000/team/app:v1", "registry.example:5000/team/app", "v1", "", ""},
		{"app@sha256:" + id, "app", "", "sha256:" + id, ""},
		{"registry.example:5000/app:v1@sha256:" + id, "registry.example:5000/app", "v1", "sha256:" + id, ""},
		{"sha256:" + id, "", "", "", "sha256:" + id},
		{id, "", "", "", "sha256:" + id},
		{"", "", "", "", ""},
		{"a\xffb:\xfe", "a\uFFFDb", "\uFFFD", "", ""},
	} {
		t.Run(tt.ref, func(t *testing.T) {
			want := &protov1.Image{Name: tt.name, Tag: tt.tag, Digest: tt.digest, Id: tt.id}
			if got := parseImage(cut(tt.ref, maxName)); !proto.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestTheStoreCompletesAnImage(t *testing.T) {
	d := "sha256:" + strings.Repeat("d", 64)
	for _, tt := range []struct {
		name  string
		image *protov1.Image
		names repoNames
		want  string
	}{
		{"the digest of the name that was written", &protov1.Image{Name: "app", Tag: "1"}, repoNames{digests: []string{"other@sha256:e", "app@" + d}}, "app:1@" + d},
		{"a short name for a long one", &protov1.Image{Name: "app", Tag: "1"}, repoNames{digests: []string{"docker.io/library/app@" + d}}, "app:1@" + d},
		{"not the digest of another name", &protov1.Image{Name: "app", Tag: "1"}, repoNames{digests: []string{"myapp@" + d}}, "app:1@"},
		{"a digest that was written stays", &protov1.Image{Name: "app", Digest: "sha256:x"}, repoNames{digests: []string{"app@" + d}}, "app:@sha256:x"},
		{"a name for an id", &protov1.Image{Id: "sha256:1"}, repoNames{tags: []string{"app:2"}, digests: []string{"app@" + d}}, "app:2@" + d},
		{"nothing for an image without names", &protov1.Image{Id: "sha256:1"}, repoNames{}, ":@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.names.complete(tt.image)
			if got := tt.image.Name + ":" + tt.image.Tag + "@" + tt.image.Digest; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := withID(parseImage("deadbeef"), "sha256:deadbeef00"); got.Name != "" || got.Id != "sha256:deadbeef00" {
		t.Errorf("a short id is taken for a name: %v", got)
	}
}

func TestLabelsAreChosenAndBounded(t *testing.T) {
	for _, tt := range []struct {
		name      string
		change    func(*Config)
		labels    map[string]string
		want      map[string]string
		shortened bool
	}{
		{"all by default, across slashes", func(*Config) {}, map[string]string{"a": "1", "app.kubernetes.io/name": "x"}, map[string]string{"a": "1", "app.kubernetes.io/name": "x"}, false},
		{"a star crosses slashes", func(c *Config) { c.LabelsInclude = []string{"app*"} }, map[string]string{"b": "1", "app.kubernetes.io/name": "x"}, map[string]string{"app.kubernetes.io/name": "x"}, false},
		{"excluded wins", func(c *Config) { c.LabelsExclude = []string{"*secret*"} }, map[string]string{"my.secret/x": "1", "b": "2"}, map[string]string{"b": "2"}, false},
		{"nothing included", func(c *Config) { c.LabelsInclude = nil }, map[string]string{"b": "2"}, nil, false},
		{"a long value is cut at a character", func(c *Config) { c.LabelSize = 16 }, map[string]string{"k": "1234567890123äöüß"}, map[string]string{"k": "1234567890123…"}, true},
		{"an orchestrator's labels come first, then by key", func(c *Config) { c.LabelsSize = 40 },
			map[string]string{"a": "1", "z": strings.Repeat("z", 30), "io.kubernetes.pod.uid": "12345678"}, map[string]string{"a": "1", "io.kubernetes.pod.uid": "12345678"}, true},
		{"bytes that are no text", func(*Config) {}, map[string]string{"\xff": "\xfe"}, map[string]string{"\uFFFD": "\uFFFD"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			tt.change(&c)
			r := newLabelRules(c)
			got, _, shortened := r.apply(tt.labels, r.all)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) || shortened != tt.shortened || (r.shortened.Load() > 0) != tt.shortened {
				t.Errorf("got %q, %v", got, shortened)
			}
		})
	}
}

// A container can't be described in more than a message may hold, whatever it
// is made of.
func TestTheLargestContainerFitsInAMessage(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	many := slices.Repeat([]string{long[:8192]}, 2000)
	labels := map[string]string{}
	for i := range 5000 {
		labels[fmt.Sprint(i, long[:100])] = long
	}
	in := &container.InspectResponse{ID: long, Name: long, Image: long, Path: long, AppArmorProfile: long,
		Config:     &container.Config{Image: long, Labels: labels, Env: many, Cmd: many, Entrypoint: many, Hostname: long, User: long},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(long), CapAdd: many, CapDrop: many, SecurityOpt: many, Annotations: labels, Tmpfs: labels},
	}
	for range 5000 {
		in.Mounts = append(in.Mounts, container.MountPoint{Source: long, Destination: long, Name: long})
	}
	c := defaults()
	c.LabelSize, c.LabelsSize = 16<<10, 64<<10
	d := &describer{labels: newLabelRules(c), env: true, cgroups: cgroups{engine: engine{runtime: "docker", cgroupDriver: "cgroupfs"}}}
	got := d.inspected(in)
	if n := proto.Size(got); n > wire.MaxChange {
		t.Errorf("%d bytes", n)
	} else {
		t.Logf("%d bytes of %d", n, wire.MaxChange)
	}
	for _, field := range []string{"id", "name", "image", "labels", "annotations", "entrypoint", "args", "env", "mounts", "hostname", "network_mode", "security"} {
		if !slices.Contains(got.Truncated, field) {
			t.Errorf("%s isn't said to be shortened", field)
		}
	}
	if _, err := proto.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestAnInspectWithHolesIsNoPanic(t *testing.T) {
	d := &describer{labels: newLabelRules(defaults())}
	for _, s := range []string{`{}`, `{"Id":"a","Config":null,"HostConfig":null,"State":null,"NetworkSettings":null}`,
		`{"Id":"a","Config":{},"HostConfig":{"Ulimits":[null],"PidsLimit":null},"State":{},"NetworkSettings":{"Networks":{"n":null},"Ports":{"80/tcp":null}}}`} {
		var in container.InspectResponse
		if err := json.Unmarshal([]byte(s), &in); err != nil {
			t.Fatal(err)
		}
		if got := d.inspected(&in); got.Id != in.ID {
			t.Error(got)
		}
	}
}

func TestLimitsSayWhatIsNotLimited(t *testing.T) {
	l := limits(&clip{}, &container.Resources{})
	for name, got := range map[string]*int64{"quota": l.CpuQuotaUs, "memory": l.MemoryBytes, "swap": l.SwapBytes, "reservation": l.MemoryReservationBytes, "pids": l.Pids} {
		if got == nil || *got != -1 {
			t.Errorf("%s is %v", name, got)
		}
	}
	if l.CpuShares != nil || l.CpuPeriodUs != nil || l.BlkioWeight != nil {
		t.Error("what was not told is told", l)
	}
	none := limits(&clip{}, &container.Resources{Memory: 10, MemorySwap: 10})
	if none.SwapBytes == nil || *none.SwapBytes != 0 {
		t.Error("no swap at all is not 0:", none.SwapBytes)
	}
	unlimited := limits(&clip{}, &container.Resources{Memory: 10, MemorySwap: -1})
	if unlimited.GetSwapBytes() != -1 {
		t.Error("any swap is not -1:", unlimited.SwapBytes)
	}
}

func TestTheCgroupIsWorkedOut(t *testing.T) {
	docker := func(driver string) engine { return engine{runtime: "docker", cgroupDriver: driver} }
	for _, tt := range []struct {
		name   string
		engine engine
		parent string
		want   string
	}{
		{"cgroupfs", docker("cgroupfs"), "", "/docker/ID"},
		{"cgroupfs with a parent", docker("cgroupfs"), "/kubepods/pod1", "/kubepods/pod1/ID"},
		{"cgroupfs with a relative parent is not known", docker("cgroupfs"), "mine", ""},
		{"systemd", docker("systemd"), "", "/system.slice/docker-ID.scope"},
		{"systemd with a nested slice", docker("systemd"), "a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/docker-ID.scope"},
		{"systemd with no slice is not known", docker("systemd"), "/plain", ""},
		{"podman with systemd", engine{runtime: "podman", cgroupDriver: "systemd"}, "", "/machine.slice/libpod-ID.scope"},
		{"podman with cgroupfs", engine{runtime: "podman", cgroupDriver: "cgroupfs"}, "/libpod_parent", "/libpod_parent/libpod-ID"},
		{"none", docker("none"), "", ""},
		{"not told", docker(""), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := (cgroups{engine: tt.engine}).find("ID", tt.parent, true); got != tt.want {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("that of a running container must be there", func(t *testing.T) {
		root := t.TempDir()
		g := cgroups{engine: docker("cgroupfs"), root: root}
		if got, id := g.find("ID", "", true); got != "" || id != 0 {
			t.Errorf("got %q, %d", got, id)
		}
		if got, _ := g.find("ID", "", false); got != "/docker/ID" {
			t.Errorf("before it runs: %q", got)
		}
		if err := os.MkdirAll(filepath.Join(root, "docker/ID"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got, id := g.find("ID", "", true); got != "/docker/ID" || id == 0 {
			t.Errorf("got %q, %d", got, id)
		}
	})
}

func FuzzCutGivesShortText(f *testing.F) {
	f.Add("äöü", 3)
	f.Add("\xff\xfe", 1)
	f.Add("", 0)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(16, limit%4096)
		got := cut(s, limit)
		if !utf8.ValidString(got) || len(got) > limit {
			t.Errorf("cut(%q, %d) = %q", s, limit, got)
		}
		if utf8.ValidString(s) && len(s) <= limit && got != s {
			t.Errorf("cut(%q, %d) = %q", s, limit, got)
		}
	})
}

func TestTheConfigurationIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the defaults", func(*Config) {}, "[]"},
		{"no resync", func(c *Config) { c.Resync = 0 }, "[]"},
		{"a resync without a pause", func(c *Config) { c.Resync = time.Millisecond }, "[resync: resync is too short]"},
		{"broken patterns", func(c *Config) { c.LabelsInclude, c.LabelsExclude = []string{"a", "["}, []string{"[a-"} }, "[labels_include[1]: not a pattern labels_exclude[0]: not a pattern]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			tt.change(&c)
			got := []string{}
			for _, d := range validate(c) {
				got = append(got, d.Path.String()+": "+d.Summary)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, a := range configSchema().Attributes {
		if a.Doc == "" {
			t.Errorf("%s has no documentation", a.Name)
		}
	}
}

func TestTheSocketIsFound(t *testing.T) {
	for _, tt := range []struct{ name, host, env, want string }{
		{"the default", "", "", "/var/run/docker.sock"},
		{"the environment's", "", "unix:///run/user/1/docker.sock", "/run/user/1/docker.sock"},
		{"the configured before the environment's", "unix:///a", "unix:///b", "/a"},
		{"no other than a unix socket", "", "tcp://1.2.3.4:2375", ""},
		{"no relative path", "unix://x.sock", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findSocket(tt.host, tt.env, "")
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
