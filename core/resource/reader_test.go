package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestFilesAreKeptOpenAsFarAsThereIsRoom(t *testing.T) {
	f := unpack(t, "hybrid")
	g := f.layout.locate(f.main, fixtureID, f.status)
	before := descriptors(t)
	for _, room := range []int{0, 5, 1000} {
		r := newReader(f.layout)
		r.most = room
		sources := []source{{groups: g}, {groups: g}}
		var first string
		for round := range 3 {
			for i := range sources {
				var u Usage
				if err := r.read(&sources[i], &u, true, true, time.Now()); err != nil {
					t.Fatal(err)
				}
				if first == "" {
					first = show(&u)
				}
				if got := show(&u); got != first {
					t.Errorf("room for %d, round %d: got\n%s\nwant\n%s", room, round, got, first)
				}
			}
		}
		hot := 0
		for _, file := range f.layout.files {
			if !file.seldom && file.controller != psi || file.name == "cpu.pressure" { // the other two are not there
				hot++
			}
		}
		if want := min(room, 2*hot); r.open != want || descriptors(t) != before+want {
			t.Errorf("room for %d: %d are open, %d descriptors more, want %d", room, r.open, descriptors(t)-before, want)
		}
		for i := range sources {
			r.free(&sources[i])
		}
		if r.open != 0 || descriptors(t) != before {
			t.Errorf("in the end %d are open, %d descriptors more", r.open, descriptors(t)-before)
		}
	}
	r := newReader(f.layout)
	s := source{groups: g}
	var u Usage
	if err := r.read(&s, &u, true, false, time.Now()); err != nil || r.open != 0 {
		t.Errorf("with nothing to be kept %d are open, %v", r.open, err)
	}
}

func TestReadingAllocatesNothingForAFile(t *testing.T) {
	f := unpack(t, "hybrid")
	for _, room := range []int{0, 1000} {
		r := newReader(f.layout)
		r.most = room
		s := source{groups: f.layout.locate(f.main, fixtureID, f.status)}
		var u Usage
		now := time.Now()
		read := func() {
			if err := r.read(&s, &u, true, true, now); err != nil {
				t.Fatal(err)
			}
		}
		read()
		if n := testing.AllocsPerRun(100, read); n > 0 {
			t.Errorf("room for %d: %v allocations", room, n)
		}
		r.free(&s)
	}
}

func TestAFileThatIsLargerThanTheBufferIsReadToItsEnd(t *testing.T) {
	f := unpack(t, "v2-6.12")
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "8:%d rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n", i)
	}
	if err := os.WriteFile(filepath.Join(f.dir, f.main, "io.stat"), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newReader(f.layout)
	s := source{groups: f.layout.locate(f.main, fixtureID, f.status)}
	defer r.free(&s)
	var u Usage
	if err := r.read(&s, &u, true, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	if v, _ := u.Get(WrittenBytes); v != 4000 {
		t.Errorf("%d bytes written, want 4000", v)
	}
}

func TestLimitsAreReadNowAndThenAndTheRestEachTime(t *testing.T) {
	f := unpack(t, "v2-6.12")
	r := newReader(f.layout)
	s := source{groups: f.layout.locate(f.main, fixtureID, f.status)}
	defer r.free(&s)
	var u Usage
	set := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(f.dir, f.main, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, all bool, pids, limit uint64, limited bool) {
		t.Helper()
		if err := r.read(&s, &u, all, true, time.Now()); err != nil {
			t.Fatal(err)
		}
		p, _ := u.Get(Pids)
		if l, ok := u.Get(PidsLimit); p != pids || ok != limited || limited && l != limit {
			t.Errorf("%s: %d tasks of %d, %v", when, p, l, ok)
		}
	}
	check("the first time", false, 1, 20, true)
	set("pids.current", "5\n")
	set("pids.max", "10\n")
	check("between", false, 5, 20, true)
	check("with the limits", true, 5, 10, true)
	set("pids.max", "max\n")
	check("without a limit", true, 5, 0, false)
	if err := os.Remove(filepath.Join(f.dir, f.main, "io.stat")); err != nil {
		t.Fatal(err)
	}
	r.free(&s)
	check("with a file less", true, 5, 0, false)
	if _, ok := u.Get(ReadBytes); ok {
		t.Error("what a file said that is gone is still known")
	}
	set("io.stat", "8:0 rbytes=9 wbytes=0 rios=0 wios=0\n")
	check("between again", false, 5, 0, false)
	if _, ok := u.Get(ReadBytes); ok {
		t.Error("a file that was missing is looked for each time")
	}
	check("and all again", true, 5, 0, false)
	if v, ok := u.Get(ReadBytes); !ok || v != 9 {
		t.Errorf("a file that has come says %d, %v", v, ok)
	}
}

func TestAContainerThatVanishesIsNoErrorOfTheReader(t *testing.T) {
	for _, keep := range []bool{false, true} {
		f := unpack(t, "v2-6.12")
		r := newReader(f.layout)
		s := source{groups: f.layout.locate(f.main, fixtureID, f.status)}
		var u Usage
		if err := r.read(&s, &u, true, keep, time.Now()); err != nil {
			t.Fatal(err)
		}
		before := u
		if err := os.RemoveAll(filepath.Join(f.dir, f.main)); err != nil {
			t.Fatal(err)
		}
		if keep { // the open files of a directory on disk can still be read: those of a control group fail
			r.free(&s)
		}
		if err := r.read(&s, &u, true, keep, time.Now()); !errors.Is(err, errGone) || u != before || r.failed != 0 {
			t.Errorf("%v; failed %d", err, r.failed)
		}
		r.free(&s)
	}
	if err := newReader(&Hierarchies{}).read(&source{}, &Usage{}, true, true, time.Now()); !errors.Is(err, errGone) {
		t.Error(err)
	}
}

func TestAFileThatCanNotBeReadIsCounted(t *testing.T) {
	f := unpack(t, "v2-6.12")
	path := filepath.Join(f.dir, f.main, "io.stat")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	r := newReader(f.layout)
	s := source{groups: f.layout.locate(f.main, fixtureID, f.status)}
	defer r.free(&s)
	var u Usage
	if err := r.read(&s, &u, true, true, time.Now()); err != nil || r.failed != 1 {
		t.Errorf("%v, failed %d", err, r.failed)
	}
	if _, ok := u.Get(Pids); !ok {
		t.Error("the other files were not read")
	}
}

// groupsOn makes a container's group in each hierarchy of this host, and takes them
// away again.
func groupsOn(t testing.TB, h *Hierarchies, path string) {
	t.Helper()
	dirs := map[string]bool{}
	for _, m := range h.v1 {
		if m.dir != "" {
			dirs[m.dir+path] = true
		}
	}
	if h.v2 != "" {
		dirs[h.v2+path] = true
	}
	for dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
}

// here is where this host has its control groups.
func here(t testing.TB) *Hierarchies {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making control groups needs root")
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	root := ""
	for l := range strings.Lines(string(b)) {
		if w := strings.Fields(l); len(w) > 2 && w[2] == "cgroup2" {
			root = w[1]
			break
		}
	}
	h, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestTheGroupsOfThisHostAreReadAndTheirEndIsNoticed(t *testing.T) {
	h := here(t)
	path := fmt.Sprintf("/ebpf-tracer-resource-%d", os.Getpid())
	groupsOn(t, h, path)
	for _, keep := range []bool{false, true} {
		r := newReader(h)
		s := source{groups: h.locate(path, "", "")}
		var u Usage
		if err := r.read(&s, &u, true, keep, time.Now()); err != nil {
			t.Fatal(err)
		}
		t.Logf("\n%s", show(&u))
		for _, f := range []Field{CPU, CPUUser, CPUSystem} {
			if _, ok := u.Get(f); !ok {
				t.Errorf("this host does not tell %s", fieldNames[f])
			}
		}
		if r.failed > 0 {
			t.Errorf("%d files failed", r.failed)
		}
		if !keep {
			continue
		}
		for _, m := range h.v1 {
			if m.dir != "" {
				if err := os.Remove(m.dir + path); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		if h.v2 != "" {
			if err := os.Remove(h.v2 + path); err != nil {
				t.Fatal(err)
			}
		}
		if fd := s.fds[0]; fd < 0 {
			t.Errorf("the first file is not open: %d", fd)
		} else if _, err := unix.Pread(int(fd), make([]byte, 1), 0); !errors.Is(err, unix.ENODEV) {
			t.Errorf("an open file of a group that is gone: %v", err)
		}
		if err := r.read(&s, &u, false, keep, time.Now()); !errors.Is(err, errGone) {
			t.Errorf("a group that is gone: %v", err)
		}
		r.free(&s)
	}
}
