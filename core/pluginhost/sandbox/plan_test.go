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

func TestTheHostsRootIsNotMountedWhereAPluginHasItsOwn(t *testing.T) {
	for root, refused := range map[string]bool{
		"": false, "/host": false, "/tmp/host": false, "/stately": false,
		"/state": true, "/plugin/host": true, "/run/plugin": true,
	} {
		if err := (Rights{HostRoot: root}).Check(); (err != nil) != refused {
			t.Errorf("%s: %v", root, err)
		}
	}
}

func TestWhatIsBelowTheHostsRootIsShownUnderItsNameAndTheOneThatItsLinksLeadTo(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(root, "run"), 0o755), os.Mkdir(filepath.Join(root, "var"), 0o755),
		os.Symlink("/run", filepath.Join(root, "var/run")), os.Mkdir(filepath.Join(root, "run/data"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(root, "run/s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(filepath.Join(root, "run/s"), 0o660); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(root, "run/s"), os.Geteuid(), 4711); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	rights := Rights{HostRoot: root, HostSockets: []string{"/var/run/s", "/var/run/none"}, HostPaths: []string{"/var/run/data"}}
	p, err := Prepare(Request{Name: "discoverer/x", Path: "/plugin/x", Dir: "/plugin", NewRoot: "/root", Rights: rights})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range p.Mounts {
		if m.Root != "" {
			if m.Root != root || !m.Optional || m.Socket != m.Write {
				t.Errorf("%+v", m)
			}
			got = append(got, m.From+" at "+strings.TrimPrefix(m.To, root))
		}
	}
	want := []string{
		"/var/run/data at /var/run/data", "/var/run/data at /run/data",
		"/var/run/s at /var/run/s", "/var/run/s at /run/s", "/var/run/none at /var/run/none",
	}
	if !slices.Equal(got, want) {
		t.Errorf("shown are %q, want %q", got, want)
	}
	if !p.Sockets || !slices.Contains(p.Readable, root+"/run/data") || !slices.Contains(p.Readable, root+"/var/run/data") {
		t.Errorf("the plan is %+v", p)
	}
	if os.Geteuid() == 0 && !slices.Contains(p.Supplement, 4711) {
		t.Errorf("it has not the socket's group: %v", p.Supplement)
	}
	// Without a root of its own, only what no link leads elsewhere.
	p, err = Prepare(Request{Name: "discoverer/x", Path: "/plugin/x", Dir: "/plugin", Shared: "a test", Rights: rights})
	if err != nil || slices.Contains(p.Readable, root+"/var/run/data") || !slices.Contains(p.Readable, root+"/run/data") {
		t.Errorf("it reads %q (%v)", p.Readable, err)
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
