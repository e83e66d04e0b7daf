package place

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// rooted is a directory laid out as a host's root is: /var/run leads to /run.
func rooted(t *testing.T) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"run/deep", "var"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, root, "/run", "var/run")
	return root
}

func link(t *testing.T, root, to, at string) {
	t.Helper()
	if err := os.Symlink(to, filepath.Join(root, at)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// inode of what a place leads to; 0 for nothing.
func inode(t *testing.T, p Place) uint64 {
	t.Helper()
	st, err := p.Stat()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestLinksInAMountedRootLeadNowhereElse(t *testing.T) {
	root := rooted(t)
	write(t, filepath.Join(root, "run/deep/file"))
	outside := t.TempDir()
	write(t, filepath.Join(outside, "file"))
	link(t, root, outside+"/file", "run/out")
	link(t, root, "../../../../../../../../../run/deep/file", "run/up")
	link(t, root, "loop", "run/loop")
	link(t, root, "/proc/self/root/"+outside, "run/magic")
	want := inode(t, Place{Path: filepath.Join(root, "run/deep/file")})
	for _, c := range []struct {
		name, path string
		found      bool
		real       string
	}{
		{"a plain path", "/run/deep/file", true, "/run/deep/file"},
		{"an absolute link", "/var/run/deep/file", true, "/run/deep/file"},
		{"a link that climbs", "/run/up", true, "/run/deep/file"},
		{"a link out of the root", "/run/out", false, ""},
		{"a link to itself", "/run/loop", false, ""},
		{"a link by a process's root", "/run/magic/file", false, ""},
		{"nothing", "/run/none", false, ""},
		{"below a file", "/run/deep/file/x", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Place{root, c.path}
			st, err := p.Stat()
			if (err == nil) != c.found || c.found && st.Ino != want {
				t.Errorf("it leads to %d (%v), want %v, %d", st.Ino, err, c.found, want)
			}
			if f := p.Walk(func(string, string) {}); f.Real != c.real || f.Identity != p.Identity() {
				t.Errorf("the walk came to %+v, want %s and identity %s", f, c.real, p.Identity())
			}
		})
	}
}

func TestAWalkTellsEachStep(t *testing.T) {
	root := rooted(t)
	var steps [][2]string
	f := Place{root, "/var/run/deep"}.Walk(func(dir, name string) { steps = append(steps, [2]string{dir, name}) })
	want := [][2]string{{root, "var"}, {root + "/var", "run"}, {root, "run"}, {root + "/run", "deep"}, {root + "/run/deep", ""}}
	if !slices.Equal(steps, want) || !f.Dir || f.Real != "/run/deep" {
		t.Errorf("%+v by %q, want %q", f, steps, want)
	}
	steps = nil
	if f = (Place{root, "/var/run/none/socket"}).Walk(func(dir, name string) { steps = append(steps, [2]string{dir, name}) }); f != (Found{}) {
		t.Errorf("found %+v", f)
	}
	if want = append(want[:3:3], [2]string{root + "/run", "none"}); !slices.Equal(steps, want) {
		t.Errorf("the steps to nothing are %q, want %q", steps, want)
	}
}

func TestASocketIsToldFromTheNextAtItsPath(t *testing.T) {
	dir := rooted(t)
	path := filepath.Join(dir, "run/s")
	seen := map[string]bool{}
	for range 8 { // some of which have the inode's number of one before
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		now := Place{dir, "/var/run/s"}.Identity()
		if now == "" || seen[now] || now != (Place{Path: path}).Identity() {
			t.Errorf("the identity is %q, after %v", now, seen)
		}
		seen[now] = true
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if now := (Place{dir, "/var/run/s"}).Identity(); now != "" {
			t.Errorf("nothing has the identity %q", now)
		}
	}
}

func TestADirectoryTellsWhenItsEntriesChange(t *testing.T) {
	dir := rooted(t)
	p := Place{dir, "/run"}
	walk := func() Found { return p.Walk(func(string, string) {}) }
	before := walk()
	// The time has the kernel's tick for its grain.
	for range 1000 {
		write(t, filepath.Join(dir, "run/new"))
		if err := os.Remove(filepath.Join(dir, "run/new")); err != nil {
			t.Fatal(err)
		}
		if now := walk(); now.Changed != before.Changed {
			if now.Identity != before.Identity {
				t.Errorf("it is taken for another: %+v, %+v", before, now)
			}
			return
		}
	}
	t.Errorf("it is unchanged: %+v", walk())
}
