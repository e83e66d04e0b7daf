package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

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
	c.LabelSize, c.LabelsSize, c.Env = 16<<10, 64<<10, true
	d := &describer{filter: describe.NewFilter(c.FilterConfig), cgroups: cgroups{engine: engine{runtime: "docker", cgroupDriver: "cgroupfs"}}}
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
	d := &describer{filter: describe.NewFilter(describe.DefaultFilter())}
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
	l := limits(&describe.Clip{}, &container.Resources{})
	for name, got := range map[string]*int64{"quota": l.CpuQuotaUs, "memory": l.MemoryBytes, "swap": l.SwapBytes, "reservation": l.MemoryReservationBytes, "pids": l.Pids} {
		if got == nil || *got != -1 {
			t.Errorf("%s is %v", name, got)
		}
	}
	if l.CpuShares != nil || l.CpuPeriodUs != nil || l.BlkioWeight != nil {
		t.Error("what was not told is told", l)
	}
	none := limits(&describe.Clip{}, &container.Resources{Memory: 10, MemorySwap: 10})
	if none.SwapBytes == nil || *none.SwapBytes != 0 {
		t.Error("no swap at all is not 0:", none.SwapBytes)
	}
	unlimited := limits(&describe.Clip{}, &container.Resources{Memory: 10, MemorySwap: -1})
	if unlimited.GetSwapBytes() != -1 {
		t.Error("any swap is not -1:", unlimited.SwapBytes)
	}
}

func TestThrottlesAreToldByDevice(t *testing.T) {
	at := func(path string, rate uint64) []*blkiodev.ThrottleDevice {
		return []*blkiodev.ThrottleDevice{nil, {Path: path, Rate: rate}}
	}
	l := limits(&describe.Clip{}, &container.Resources{
		BlkioDeviceReadBps: at("/dev/sda", 1), BlkioDeviceWriteBps: at("/dev/sdb", 2),
		BlkioDeviceReadIOps: at("/dev/sda", 3), BlkioDeviceWriteIOps: at("/dev/sda", 4),
	})
	want := []*protov1.BlkioThrottle{
		{Device: "/dev/sda", ReadBytesPerSecond: 1, ReadsPerSecond: 3, WritesPerSecond: 4},
		{Device: "/dev/sdb", WriteBytesPerSecond: 2},
	}
	if !proto.Equal(&protov1.Limits{BlkioThrottles: l.BlkioThrottles}, &protov1.Limits{BlkioThrottles: want}) {
		t.Error(l.BlkioThrottles)
	}
	var clip describe.Clip
	many := &container.Resources{}
	for n := range 2 * describe.MaxThrottles {
		many.BlkioDeviceReadBps = append(many.BlkioDeviceReadBps, at(fmt.Sprint("/dev/", n), 1)...)
	}
	if l := limits(&clip, many); len(l.BlkioThrottles) != describe.MaxThrottles {
		t.Errorf("%d throttles", len(l.BlkioThrottles))
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
	for _, a := range configSchema(docker()).Attributes {
		if a.Doc == "" {
			t.Errorf("%s has no documentation", a.Name)
		}
	}
}

func TestTheSocketIsFound(t *testing.T) {
	root := t.TempDir()
	below := filepath.Join(root, "run/no-such-engine.sock")
	if err := errors.Join(os.Mkdir(filepath.Dir(below), 0o755), os.WriteFile(below, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	at := func(socket string) service { return service{socket: socket} }
	for _, tt := range []struct {
		name                  string
		service               service
		host, env, root, want string
	}{
		{"docker's own", docker(), "", "", "", "/var/run/docker.sock"},
		{"podman's own", podman(), "", "", "", "/run/podman/podman.sock"},
		{"one below the host's root", at("/run/no-such-engine.sock"), "", "", root, below},
		{"one in /var/run, which is a link that leads out of the host's root", at("/var/run/no-such-engine.sock"), "", "", root, below},
		{"one that is nowhere", at("/run/no-such-other.sock"), "", "", root, "/run/no-such-other.sock"},
		{"the environment's", docker(), "", "unix:///run/user/1/docker.sock", root, "/run/user/1/docker.sock"},
		{"the configured before the environment's", docker(), "unix:///a", "unix:///b", root, "/a"},
		{"no other than a unix socket", docker(), "", "tcp://1.2.3.4:2375", "", ""},
		{"no relative path", docker(), "unix://x.sock", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := findSocket(tt.service, tt.host, tt.env, tt.root)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
