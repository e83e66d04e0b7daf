package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// everything that is traced.
const everything = `probe "process" {}
probe "network" {}
probe "file" {}
`

// filtering runs loads under a configuration and gives the kept events of each kind by
// the loads' own programs, with the ledger.
func filtering(t *testing.T, hcl string, do func(*harness.Tracer)) (map[string]int, *harness.Ledger) {
	t.Helper()
	tr := harness.Start(t, everything+hcl)
	do(tr)
	ledger := tr.Stop()
	kept := map[string]int{}
	for _, e := range tr.Events() {
		if name := e.Process.Comm; strings.HasSuffix(name, "load") || name == "noop" {
			kept[e.Kind]++
		}
	}
	return kept, ledger
}

// loads are events of every kind: 300 execs, 400 opens of which half fail, 100
// connections and 50 refused connects.
func loads(t *testing.T, programs *load.Programs) {
	t.Helper()
	if _, err := programs.RunExec(t.Context(), "-n", "300", programs.Noop); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := programs.RunOpen(t.Context(), "-n", "400", "-f", "50", file); err != nil {
		t.Fatal(err)
	}
	if _, err := programs.RunTCP(t.Context(), "pairs", "-n", "100"); err != nil {
		t.Fatal(err)
	}
	if _, err := programs.RunTCP(t.Context(), "fail", "-n", "50", "refused"); err != nil {
		t.Fatal(err)
	}
}

func TestAFilterLeavesOutWhatItNamesAndNothingElse(t *testing.T) {
	programs := load.Build(t)
	many := make([]string, 4000)
	for i := range many {
		many[i] = fmt.Sprintf("nobody-%d", i)
	}
	for _, test := range []struct {
		name, hcl string
		without   map[string]int // of these kinds so many are left of the loads; of others all
	}{
		{"nothing is named", "", nil},
		{"a name of a process", `filter "a" { comm = ["noop"] }`, map[string]int{"process.exec": 1, "process.exit": 5}},
		{"one of thousands of names", "filter \"a\" {\n  comm = [\"" + strings.Join(many, `", "`) + "\", \"openload\"]\n}", map[string]int{"file.open": 0}},
		{"an error of a call", `filter "a" {
  error   = ["ENOENT", "EPERM"]
  syscall = ["openat"]
}`, map[string]int{"file.open": 200}},
		{"an error of another call", `filter "a" {
  error   = ["ENOENT"]
  syscall = ["openat2"]
}`, nil},
		{"a kind", `filter "a" { kinds = ["network.connect", "network.accept"] }`, map[string]int{"network.connect": 0, "network.accept": 0}},
		{"a prefix of peers", `filter "a" { peer = ["127.0.0.0/8", "10.0.0.0/8"] }`, map[string]int{
			"network.connect": 0, "network.accept": 0, "network.close": 0, "network.connect_failed": 0}},
		{"a longer prefix within one", `filter "a" { peer = ["0.0.0.0/0"] }
filter "b" {
  peer = ["127.0.0.0/16"]
  port = [1]
}`, map[string]int{"network.connect": 0, "network.accept": 0, "network.close": 0, "network.connect_failed": 0}},
		{"another peer", `filter "a" { peer = ["10.0.0.0/8", "::1"] }`, nil},
		{"an error of a connection", `filter "a" { error = ["ECONNREFUSED"] }`, map[string]int{"network.connect_failed": 0}},
		{"a user", `filter "a" { uid = [0] }`, map[string]int{"process.fork": 0, "process.exec": 0, "process.exit": 0, "file.open": 0,
			"network.connect": 0, "network.accept": 0, "network.close": 0, "network.connect_failed": 0, "network.listen": 0}},
		{"another user", `filter "a" { uid = [1, 2, 3] }`, nil},
		{"what is kept before", `filter "a" {
  action = "keep"
  kinds  = ["process.exec"]
  comm   = ["noop"]
}
filter "b" { comm = ["noop"] }`, map[string]int{"process.exit": 5}},
		{"all but one", `filter "a" {
  action = "only"
  error  = ["ENOENT"]
}`, map[string]int{"file.open": 200, "network.close": 0, "network.connect_failed": 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			kept, ledger := filtering(t, test.hcl, func(*harness.Tracer) { loads(t, programs) })
			all := map[string]int{"process.exec": 300, "process.exit": 300, "file.open": 400, "network.connect": 100, "network.accept": 100, "network.close": 200, "network.connect_failed": 50}
			for kind, n := range all {
				most, named := test.without[kind]
				switch {
				case named && kept[kind] > max(most, 5):
					t.Errorf("%s: %d are kept, want %d", kind, kept[kind], most)
				case named && most > 10 && kept[kind] < most:
					t.Errorf("%s: %d are kept, want %d", kind, kept[kind], most)
				case !named && kept[kind] < n:
					t.Errorf("%s: %d of %d are kept", kind, kept[kind], n)
				}
				if c := ledger.Kind(kind); named && c.Filtered < int64(n-most-5) {
					t.Errorf("%s: %d are counted as filtered", kind, c.Filtered)
				}
			}
		})
	}
}

func TestAFilterByControlGroupFollowsThemAsTheyComeAndGo(t *testing.T) {
	programs := load.Build(t)
	root := cgroupRoot(t)
	name := "filter-" + tag()
	script := func(group string, n int) {
		t.Helper()
		at := filepath.Join(root, name, group)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Remove(at); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(200 * time.Millisecond) // until it is known to be there
		dir, err := os.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		c := beginIn(t, int(dir.Fd()), programs.Exec, "-n", fmt.Sprint(n), programs.Noop)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	defer os.Remove(filepath.Join(root, name))
	kept, _ := filtering(t, fmt.Sprintf("filter \"a\" { cgroup = [\"/%s/left-*\"] }", name), func(tr *harness.Tracer) {
		for i := range 3 {
			script(fmt.Sprintf("left-%d", i), 100)
			script(fmt.Sprintf("right-%d", i), 100)
		}
		// Of those there later, too, after the file is read again.
		tr.SetConfig(everything + "filter \"b\" { cgroup = [\"/" + name + "/right-*\"] }")
		tr.Ask("reload")
		script("left-9", 100)
		script("right-9", 100)
	})
	if n := kept["process.exec"]; n != 400+4 { // and the load's own
		t.Errorf("%d execs are kept, want 404", n)
	}
}

// beginIn prepares a command that begins in a control group.
func beginIn(t *testing.T, cgroup int, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cgroup}
	return c
}
