package sandbox

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAFileThatIsGrantedAsASocketDecidesNothing(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "file"), filepath.Join(dir, "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, refused := range map[string]bool{file: true, dir: true, socket: false, filepath.Join(dir, "missing"): false} {
		_, err := Prepare(Request{Name: "discoverer/x", Path: "/plugin/x", Dir: "/plugin", Rights: Rights{Sockets: []string{path}}})
		if (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "name a socket") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestANeedThatWouldCoverWhatIsThePluginsIsRefused(t *testing.T) {
	for path, refused := range map[string]bool{
		"/": true, "/run": true, "/run/plugin": true, "/tmp": true, "/state": true, "/plugin": true,
		"/etc/../run": true, "relative": true,
		"/run/systemd": false, "/tmp/x": false, "/runner": false, "/proc": false,
	} {
		if err := (Rights{Paths: []string{path}}).Check(); (err != nil) != refused {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestWhoIsNotGrantedTheNetworkGetsOneOfItsOwn(t *testing.T) {
	for _, network := range []bool{false, true} {
		p, err := Prepare(Request{Name: "discoverer/x", Path: "/plugin/x", Dir: "/plugin", NewRoot: "/root", Rights: Rights{Network: network}})
		if err != nil || p.OwnNetwork == network {
			t.Errorf("granted %v, own %v, %v", network, p.OwnNetwork, err)
		}
	}
}

func TestWhoIsRootCanBecomeRoot(t *testing.T) {
	if why := (Rights{Root: true}).RootEquivalent(); !strings.Contains(why, "root") {
		t.Errorf("%q", why)
	}
}

func TestEveryMountBelowIsFoundWithItsFlags(t *testing.T) {
	const table = `22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda rw
30 22 0:21 / /new/dev rw,nosuid,noatime - devtmpfs dev rw
31 30 0:22 / /new/dev/shm\040two rw,noexec shared:5 - tmpfs shm rw
32 22 0:23 / /new/device ro - tmpfs x rw
broken
`
	got := mountsBelow(table, "/new/dev")
	want := []mounted{{"/new/dev", unix.MS_NOSUID | unix.MS_NOATIME}, {"/new/dev/shm two", unix.MS_NOEXEC}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestAPluginsUserIsOneThatTheUserNamespaceHas(t *testing.T) {
	for name, c := range map[string]struct {
		uidMap      string
		least, most uint32
	}{
		"all":             {"         0          0 4294967295\n", firstUser, firstUser + 65535},
		"a container's":   {"0 100000 65536\n", 32768, 65535},
		"in two pieces":   {"0 1000 1\n1 100000 65536\n", 32769, 65536},
		"root only":       {"0 1000 1\n", 0, 0},
		"nothing legible": {"?\n", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, plugin := range []string{"discoverer/docker", "discoverer/crio", "mesh/generic"} {
				u := userAmong(c.uidMap, plugin)
				if u < c.least || u > c.most {
					t.Errorf("%s: %d", plugin, u)
				}
				if u != userAmong(c.uidMap, plugin) {
					t.Errorf("%s has another user each time", plugin)
				}
			}
		})
	}
}
