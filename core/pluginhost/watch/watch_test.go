package watch

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/place"
)

// watching is a watch and the changes that it tells.
type watching struct {
	*Watch
	changes chan Change
}

func watch(t *testing.T, w *Watcher, places ...place.Place) watching {
	t.Helper()
	changes := make(chan Change, 1000)
	return watching{w.Watch(places, func(c Change) { changes <- c }), changes}
}

func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w := New(slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// another waits for news that something is another now.
func (w watching) another(t *testing.T, what string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case c := <-w.changes:
			if c.Another {
				return
			}
		case <-limit:
			t.Fatalf("nothing is told of %s", what)
		}
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func socket(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.Listen("unix", path)
	do(t, err)
	t.Cleanup(func() { _ = l.Close() }) // mostly closed by the test
	return l.(*net.UnixListener)
}

func TestWhatBecomesOfASocketIsTold(t *testing.T) {
	root := t.TempDir()
	do(t, errors.Join(os.Mkdir(filepath.Join(root, "run"), 0o755), os.Mkdir(filepath.Join(root, "var"), 0o755)))
	do(t, os.Symlink("/run", filepath.Join(root, "var/run")))
	path := filepath.Join(root, "run/app/s")
	w := watch(t, newWatcher(t), place.Place{Root: root, Path: "/var/run/app/s"})

	do(t, os.Mkdir(filepath.Dir(path), 0o755))
	l := socket(t, path)
	w.another(t, "a socket that comes in a directory that comes")
	do(t, l.Close())
	w.another(t, "a socket that goes")
	l = socket(t, path)
	w.another(t, "a socket that comes again")
	l.SetUnlinkOnClose(false)
	do(t, l.Close())
	do(t, os.Remove(path))
	socket(t, path)
	w.another(t, "a socket in the place of another")
	do(t, os.Chmod(path, 0o600))
	w.another(t, "a socket with another mode")
	socket(t, path+".new")
	do(t, os.Rename(path+".new", path))
	w.another(t, "a socket that another is renamed to")
	do(t, os.Rename(filepath.Dir(path), filepath.Join(root, "run/old")))
	w.another(t, "a directory that is renamed")
	do(t, os.Mkdir(filepath.Dir(path), 0o755))
	socket(t, path)
	w.another(t, "a socket in another directory of the same name")
	do(t, os.Remove(filepath.Join(root, "var/run")))
	w.another(t, "a link that goes")
	do(t, os.Symlink("../run/old/..", filepath.Join(root, "var/run")))
	w.another(t, "a link that comes")
	do(t, os.RemoveAll(filepath.Join(root, "run")))
	w.another(t, "a directory that is removed")
	do(t, os.MkdirAll(filepath.Join(root, "run/app"), 0o755))
	do(t, os.MkdirAll(filepath.Join(root, "run/old"), 0o755))
	socket(t, path)
	w.another(t, "everything, made anew")
}

func TestEntriesOfADirectoryAreToldApart(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, newWatcher(t), place.Place{Path: dir})
	for n := range 2 {
		do(t, os.Mkdir(filepath.Join(dir, string(rune('a'+n))), 0o755))
		if c := <-w.changes; c.Another {
			t.Error("an entry of the directory is told as another directory")
		}
	}
	do(t, os.RemoveAll(dir))
	w.another(t, "the directory's end")
}

func TestOthersNamesWakeNobody(t *testing.T) {
	dir := t.TempDir()
	w := newWatcher(t)
	one := watch(t, w, place.Place{Path: filepath.Join(dir, "s")})
	w.mu.Lock()
	number := 0
	for n, names := range w.names {
		if names["s"] {
			number = n
		}
	}
	for mask, want := range map[uint32]bool{unix.IN_CREATE: true, unix.IN_ATTRIB: true} {
		if got := w.concerned(event(number, mask, "s\x00\x00\x00")); got != want {
			t.Errorf("of the name itself: %v, want %v", got, want)
		}
		if w.concerned(event(number, mask, "other\x00\x00\x00")) {
			t.Error("another name concerns somebody")
		}
	}
	if !w.concerned(event(-1, unix.IN_Q_OVERFLOW, "")) || !w.concerned(event(number, unix.IN_DELETE_SELF, "")) {
		t.Error("that events were lost, or the directory, concerns nobody")
	}
	w.mu.Unlock()
	one.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.names) != 0 {
		t.Errorf("when nothing is watched any more the kernel still tells of %v", w.names)
	}
}

// event is one as the kernel writes it.
func event(number int, mask uint32, name string) []byte {
	raw := make([]byte, unix.SizeofInotifyEvent)
	put := func(at int, v uint32) {
		for i := range 4 { // on every machine that is supported
			raw[at+i] = byte(v >> (8 * i))
		}
	}
	put(0, uint32(int32(number)))
	put(4, mask)
	put(12, uint32(len(name)))
	return append(raw, name...)
}

func TestWhereTheKernelCannotTellItIsLookedAtAllTheTime(t *testing.T) {
	dir := t.TempDir()
	w := newWatcher(t)
	w.names = map[int]map[string]bool{} // it was tried, and there is no inotify
	w.running.Go(w.run)
	w.stir()
	one := watch(t, w, place.Place{Path: filepath.Join(dir, "s")})
	l := socket(t, filepath.Join(dir, "s"))
	one.another(t, "a socket that comes")
	if !one.There() {
		t.Error("it is not there")
	}
	do(t, l.Close())
	one.another(t, "a socket that goes")
	if one.There() {
		t.Error("it is there")
	}
}

func TestAfterTheEndNothingIsToldAndNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	dir := t.TempDir()
	w := New(slog.New(slog.DiscardHandler))
	one, two := watch(t, w, place.Place{Path: filepath.Join(dir, "s")}), watch(t, w, place.Place{Path: filepath.Join(dir, "s")})
	one.Close()
	socket(t, filepath.Join(dir, "s"))
	two.another(t, "a socket that comes")
	if len(one.changes) > 0 {
		t.Error("a watch that was closed is told")
	}
	do(t, w.Close())
	do(t, w.Close())
	two.Close()
	late := watch(t, w, place.Place{Path: filepath.Join(dir, "s")})
	do(t, os.Remove(filepath.Join(dir, "s")))
	late.Close()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

// What an idle daemon pays every two seconds: ten discoverers, each with two sockets that
// are there or not, and a directory.
func BenchmarkALookAtTenDiscoverers(b *testing.B) {
	dir := b.TempDir()
	w := New(slog.New(slog.DiscardHandler))
	for n := range 10 {
		there := filepath.Join(dir, "run", string(rune('a'+n)), "s")
		if err := os.MkdirAll(filepath.Dir(there), 0o755); err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("unix", there)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
		w.Watch([]place.Place{{Path: there}, {Path: filepath.Join(dir, "var", "none", "s")}, {Path: filepath.Dir(there)}}, func(Change) {})
	}
	for b.Loop() {
		w.mu.Lock()
		w.look(nil)
		w.mu.Unlock()
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}
