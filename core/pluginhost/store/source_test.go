package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

func TestSourcesThatOthersCouldHaveWrittenAreNotTaken(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f *Files) error
		want  string
	}{
		"a program that the group can write to": {func(f *Files) error { return os.Chmod(filepath.Join(f.Dir, "one"), 0o775) }, "others can write to"},
		"a file that all can write to":          {func(f *Files) error { return os.Chmod(filepath.Join(f.Dir, "a.py"), 0o646) }, "others can write to"},
		"a directory below that all can write to": {
			func(f *Files) error { return os.Chmod(filepath.Join(f.Dir, "lib"), 0o777) }, "others can write to"},
		"a program that is a symlink": {func(f *Files) error {
			return errors.Join(os.Rename(filepath.Join(f.Dir, "one"), filepath.Join(f.Dir, "x")), os.Symlink("x", filepath.Join(f.Dir, "one")))
		}, "symbolic link"},
		"a directory below that is a symlink": {func(f *Files) error {
			return errors.Join(os.Rename(filepath.Join(f.Dir, "lib"), filepath.Join(f.Dir, "x")), os.Symlink("x", filepath.Join(f.Dir, "lib")))
		}, "symbolic link"},
		"a directory named as a file":    {func(f *Files) error { f.Others = []string{"lib"}; return nil }, "no regular file"},
		"a file outside":                 {func(f *Files) error { f.Others = []string{"../x"}; return nil }, "is outside of its directory"},
		"the directory itself":           {func(f *Files) error { f.Others = []string{"."}; return nil }, "is outside of its directory"},
		"a file with an absolute path":   {func(f *Files) error { f.Others = []string{"/etc/passwd"}; return nil }, "is outside of its directory"},
		"a file that is named twice":     {func(f *Files) error { f.Others = []string{"a.py", "./a.py"}; return nil }, "named twice"},
		"a manifest among the files":     {func(f *Files) error { f.Others = []string{"one.plugin.hcl"}; return nil }, "the manifest itself"},
		"a file that is not there":       {func(f *Files) error { f.Others = []string{"c.py"}; return nil }, "no such file"},
		"more files than anyone needs":   {func(f *Files) error { f.Others = make([]string, maxFiles+1); return nil }, "more than 1024"},
		"a file that is larger than any": {func(f *Files) error { return os.Truncate(filepath.Join(f.Dir, "a.py"), maxFile+1) }, "has at most"},
		"an interpreter that all can write to": {func(f *Files) error {
			f.Program = filepath.Join(f.Dir, "one")
			return os.Chmod(f.Program, 0o757)
		}, "others can write to"},
	} {
		t.Run(name, func(t *testing.T) {
			f := plugin(t)
			if err := c.spoil(&f); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, s := range []*Store{open(t, dir), open(t, "")} {
				b, err := s.Take(t.Context(), f)
				if b != nil || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("the error is %v", err)
				}
				if strings.Contains(c.want, "no such file") != errors.Is(err, fs.ErrNotExist) {
					t.Errorf("it is told that the file is missing, or not told so: %v", err)
				}
			}
			if left := bundles(t, dir); len(left) > 0 {
				t.Errorf("the store has %v", left)
			}
		})
	}
}

func TestFilesThatTogetherAreTooLargeAreNotTaken(t *testing.T) {
	f, err := os.Open(filepath.Join(plugin(t).Dir, "a.py"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := hashing{ctx: t.Context(), total: maxTotal - 1}
	if _, err := h.file(f, io.Discard); err != nil {
		t.Errorf("the last byte that there is room for: %v", err)
	}
	if _, err := h.file(f, io.Discard); err == nil || !strings.Contains(err.Error(), "in all") {
		t.Errorf("the error is %v", err)
	}
}

// spoiler changes a file while it is being read.
type spoiler func() error

func (s spoiler) Write(b []byte) (int, error) { return len(b), s() }

func TestAFileThatChangesWhileItIsReadIsToldAsChanged(t *testing.T) {
	path := filepath.Join(plugin(t).Dir, "a.py")
	for name, change := range map[string]func() error{
		"it grows":      func() error { return os.WriteFile(path, []byte("longer"), 0o644) },
		"it is emptied": func() error { return os.Truncate(path, 0) },
		"its times are": func() error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) },
	} {
		write(t, path, "a", 0o644)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		h := hashing{ctx: t.Context()}
		if _, err := h.file(f, spoiler(change)); !errors.Is(err, trust.ErrChanged) {
			t.Errorf("%s: the error is %v", name, err)
		}
		f.Close()
	}
}

// While a plugin is being replaced again and again, whatever is taken is one of the
// two, whole, under its own digest: the program that is handed out open too.
func TestWhatIsTakenWhileItIsBeingReplacedIsWholeAndHasItsOwnHash(t *testing.T) {
	one, two := strings.Repeat("one\n", 200_000), strings.Repeat("two\n", 200_000)
	for name, dir := range map[string]string{"stored": t.TempDir(), "in place": ""} {
		t.Run(name, func(t *testing.T) {
			taken := map[string]int{}
			takeWhile(t, dir, one, func(path string, n int) error {
				return replace(path, []string{one, two}[n%2], 0o755)
			}, func(b *Bundle, text string) {
				if text != one && text != two {
					t.Errorf("a mixture of %d bytes came out", len(text))
					return
				}
				taken[text[:3]]++
			})
			if taken["one"] == 0 || taken["two"] == 0 {
				t.Errorf("taken were %v: the test shows nothing", taken)
			}
		})
	}
}

// Who writes into a file that is being copied makes a third one of it; it has its
// own hash, and is not changed any more.
func TestWhatIsTakenWhileItIsBeingWrittenToHasItsOwnHash(t *testing.T) {
	one, two := strings.Repeat("one\n", 200_000), strings.Repeat("two\n", 200_000)
	taken := 0
	takeWhile(t, t.TempDir(), one, func(path string, n int) error {
		return os.WriteFile(path, []byte([]string{one, two}[n%2]), 0o755)
	}, func(*Bundle, string) { taken++ })
	if taken == 0 {
		t.Error("nothing was taken: the test shows nothing")
	}
}

// takeWhile takes a plugin again and again while its program is being changed, and
// holds what comes out against its hash.
func takeWhile(t *testing.T, dir, text string, change func(path string, n int) error, out func(*Bundle, string)) {
	t.Helper()
	f := plugin(t)
	f.Others = nil
	path := filepath.Join(f.Dir, "one")
	write(t, path, text, 0o755)
	stop, changed := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for n := 0; err == nil; n++ {
			select {
			case <-stop:
				changed <- nil
				return
			case <-time.After(time.Duration(n%7) * time.Millisecond):
				err = change(path, n)
			}
		}
		changed <- err
	}()
	s := open(t, dir)
	for range 60 {
		b, err := s.Take(t.Context(), f)
		if errors.Is(err, trust.ErrChanged) {
			continue // it says so: nothing came out
		}
		if err != nil {
			t.Error(err)
			break
		}
		text := content(t, b)
		if b.Sums["./one"] != sum(text) {
			t.Errorf("what came out has sha256 %s, it is called %s", sum(text), b.Sums["./one"])
		}
		out(b, text)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-changed; err != nil {
		t.Error(err)
	}
}

func TestTakingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, dir := range []string{t.TempDir(), ""} {
		if _, err := open(t, dir).Take(ctx, plugin(t)); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	const size = 20 << 20
	f := plugin(b)
	f.Others = nil
	write(b, filepath.Join(f.Dir, "one"), strings.Repeat("x", size), 0o755)
	for name, dir := range map[string]string{"stored": b.TempDir(), "in place": ""} {
		b.Run(name, func(b *testing.B) {
			s := open(b, dir)
			take(b, s, f)
			b.SetBytes(size)
			for b.Loop() {
				t, err := s.Take(b.Context(), f)
				if err != nil {
					b.Fatal(err)
				}
				if err := t.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("new", func(b *testing.B) {
		s := open(b, b.TempDir())
		b.SetBytes(size)
		for n := 0; b.Loop(); n++ {
			f.ManifestText = fmt.Append(nil, n)
			t, err := s.Take(b.Context(), f)
			if err != nil {
				b.Fatal(err)
			}
			if err := errors.Join(t.Close(), s.remove(t.Digest)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
