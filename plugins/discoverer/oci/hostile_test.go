package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// A bundle is its user's: whatever is in it, the state is told.
func TestABundleThatIsNoneLeavesTheState(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(config string) error
		said string // of what is wrong; "": nothing, for it is not shown
	}{
		{"half of one", func(at string) error { return os.WriteFile(at, []byte(`{"process":{"args":["a"`), 0o600) }, "unexpected end"},
		{"no JSON", func(at string) error { return os.WriteFile(at, []byte("\x00\xff"), 0o600) }, "invalid character"},
		{"a list", func(at string) error { return os.WriteFile(at, []byte(`[1]`), 0o600) }, "is no specs.Spec"},
		{"nested deeply", func(at string) error { return os.WriteFile(at, []byte(strings.Repeat("[", 1<<20)), 0o600) }, "exceeded max depth"},
		{"too large", func(at string) error { return os.WriteFile(at, make([]byte, maxState+1), 0o600) }, "too large"},
		{"a file without an end", func(at string) error { return os.Symlink("/dev/zero", at) }, "no regular file"},
		{"a fifo that nobody writes to", func(at string) error { return unix.Mkfifo(at, 0o600) }, "no regular file"},
		{"a directory", func(at string) error { return os.Mkdir(at, 0o700) }, "no regular file"},
		{"a link to itself", func(at string) error { return os.Symlink("config.json", at) }, "too many levels"},
		{"nothing", func(string) error { return nil }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bundle, dir := t.TempDir(), t.TempDir()
			must(t, tt.make(filepath.Join(bundle, "config.json")))
			lay(t, dir, map[string]string{"web/state.json": strings.Replace(ofRunc, "bundle=/b", "bundle="+bundle, 1)})
			s, err := readState(openRoot(t, dir), "web")
			if err != nil {
				t.Fatal(err)
			}
			c, err := testDescriber().made(newRoot(place{path: dir, name: "/run/runc"}), "web", s)
			if tt.said == "" && err != nil || tt.said != "" && (err == nil || !strings.Contains(err.Error(), tt.said)) {
				t.Errorf("the error is %v, want %q", err, tt.said)
			}
			if c.GetName() != "web" || c.GetHostname() != "h.d" || c.GetLimits().GetMemoryBytes() != 1000 || c.GetAnnotations()["team"] != "a=b" {
				t.Errorf("described as %v", c)
			}
		})
	}
}

func TestAnnotationsAreCutToWhatTheOperatorAllows(t *testing.T) {
	root := t.TempDir()
	huge := strings.Repeat("x", 1<<20)
	lay(t, root, map[string]string{
		"runc/state.json":  strings.Replace(at("/a/runc"), `"team=a=b"`, `"team=a=b","huge=`+huge+`","esc=\u001b[31m\u0000"`, 1),
		"crun/status":      strings.Replace(ofCrun, "/a/web", "/a/crun", 1),
		"crun/config.json": `{"process":{"args":["sleep","` + huge + `"]},"annotations":{"team":"a=b","huge":"` + huge + `","` + huge + `":"key"}}`,
	})
	_, r := still(t, defaults(root), nil)
	for _, id := range []string{"runc", "crun"} {
		c := r.container(id)
		size := 0
		for k, v := range c.GetAnnotations() {
			size += len(k) + len(v)
		}
		if c.GetAnnotations()["team"] != "a=b" || size > 32<<10 || len(c.GetAnnotations()["huge"]) > 4<<10 {
			t.Errorf("%s has annotations of %d bytes, team=%q", id, size, c.GetAnnotations()["team"])
		}
		if len(c.GetTruncated()) == 0 {
			t.Errorf("%s does not say that something was cut", id)
		}
	}
}

// Directories come and go while they are listed, read and watched; what is there in the
// end is what is known.
func TestDirectoriesThatVanishLeaveNothing(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	var makers sync.WaitGroup
	for m := range 2 {
		makers.Go(func() {
			for i := range 1000 {
				dir := filepath.Join(root, fmt.Sprintf("c%d-%d", m, i%50))
				_ = os.MkdirAll(dir, 0o700)
				_ = os.WriteFile(dir+"/state.json", []byte(ofRunc), 0o600)
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { makers.Wait(); close(done) }()
	for n := 0; ; n++ {
		must(t, tr.catchUp())
		if n%4 == 0 {
			must(t, tr.resync())
		}
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	lay(t, root, map[string]string{"last/state.json": at("/last")})
	must(t, tr.catchUp())
	must(t, tr.resync())
	if len(tr.containers) != 1 || r.container("last") == nil || len(r.containers) != 1 {
		t.Errorf("%d are kept, told are %d", len(tr.containers), len(r.containers))
	}
	if got := len(tr.watcher.targets); got != 2 {
		t.Errorf("%d watches are left, want the root's and the last container's", got)
	}
	if len(tr.creating) != 0 || len(tr.stale) != 0 || len(tr.dirty) != 0 || len(tr.claims.graves) > maxGraves {
		t.Errorf("left are %d being created, %d to look at, %d graves", len(tr.creating), len(tr.stale), len(tr.claims.graves))
	}
}

func TestTenThousandDirectories(t *testing.T) {
	root := t.TempDir()
	const all = 10000
	for i := range all {
		id := fmt.Sprint("c", i)
		lay(t, root, map[string]string{id + "/state.json": strings.ReplaceAll(ofRunc, "/a/web", "/a/"+id)})
	}
	began := time.Now()
	tr, r := still(t, defaults(root), nil)
	t.Logf("%d of %d are known after %v", len(r.containers), all, time.Since(began).Round(time.Millisecond))
	if len(r.containers) != maxContainers || len(tr.watcher.targets) > maxContainers+1 {
		t.Errorf("%d are told and %d watched, want no more than %d", len(r.containers), len(tr.watcher.targets), maxContainers)
	}
	// Those beyond are let in as others go.
	for id := range r.containers {
		must(t, os.RemoveAll(filepath.Join(root, id)))
	}
	began = time.Now()
	for range 3 { // so many changes at once may be more than the kernel keeps
		must(t, tr.catchUp())
		must(t, tr.resync())
	}
	t.Logf("other %d are known %v after those were removed", len(r.containers), time.Since(began).Round(time.Millisecond))
	if len(r.containers) != maxContainers {
		t.Errorf("%d are told", len(r.containers))
	}
	for id, c := range r.containers {
		if _, err := os.Stat(filepath.Join(root, id)); err != nil || c.GetState() == protov1.Container_STATE_UNSPECIFIED {
			t.Fatalf("%v is told, %v", c, err)
		}
	}
}

// crun keeps a cache beside its containers' directories.
func TestWhatIsHiddenIsNoContainer(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".cache", "web"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := newRoot(place{path: dir, name: dir})
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	defer r.dir.Close()
	if names, err := r.names(10); err != nil || len(names) != 1 || names[0] != "web" {
		t.Errorf("%q, %v", names, err)
	}
}

// A link that a user puts where their root was may lead to a directory of root's.
func TestWhatIsSomebodyElsesInARootOfRootsIsNoContainer(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{"web/state.json": ofRunc, "theirs/state.json": ofRunc, "open/state.json": ofRunc})
	must(t, os.Chown(filepath.Join(dir, "theirs"), 12345, 12345))
	must(t, os.Chmod(filepath.Join(dir, "open"), 0o777))
	_, r := still(t, defaults(dir), node(t))
	if r.container("web") == nil || r.container("theirs") != nil || r.container("open") != nil {
		t.Errorf("known are %v", r.containers)
	}
}

func TestItIsBlindNoLongerThanItCanNotWatch(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{"web/state.json": ofRunc})
	tr, _ := still(t, defaults(dir), node(t))
	c := tr.sorted()[0]
	tr.unwatch(&c.wd)
	tr.blind = true
	must(t, tr.catchUp())
	if tr.blind || c.wd < 0 {
		t.Errorf("blind %v, watch %d", tr.blind, c.wd)
	}
}

func TestNoContainerIsInTheHostsOwnCgroup(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{
		"youki/state.json": `{"status":"running","pid":1,"bundle":"/none"}`, "youki/" + youkiFile: `{}`,
		"crun/" + configFile: `{"ociVersion":"1.0"}`, "crun/" + statusFile: `{"pid":1,"cgroup-path":"/"}`,
	})
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	for _, id := range []string{"youki", "crun"} {
		if s, err := readState(root, id); err != nil || s.cgroup != "" {
			t.Errorf("%s: %+v, %v", id, s, err)
		}
	}
}
