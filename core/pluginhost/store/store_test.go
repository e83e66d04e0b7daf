package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

// plugin makes a directory with a plugin: its manifest, a program and two files.
func plugin(t testing.TB) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Dir: dir, Manifest: "one.plugin.hcl", ManifestText: []byte("manifest"), Program: "./one", Others: []string{"a.py", "lib/deep/b.py"}}
	write(t, filepath.Join(dir, "one.plugin.hcl"), "manifest", 0o644)
	write(t, filepath.Join(dir, "one"), "#!/bin/sh\necho one\n", 0o755)
	write(t, filepath.Join(dir, "a.py"), "a", 0o644)
	if err := os.MkdirAll(filepath.Join(dir, "lib", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "lib", "deep", "b.py"), "b", 0o600)
	return f
}

// write puts a file in the place of what is there, as an installer does.
func write(t testing.TB, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := replace(path, text, mode); err != nil {
		t.Fatal(err)
	}
}

func replace(path, text string, mode fs.FileMode) error {
	next := path + ".next"
	return errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Chmod(next, mode), os.Rename(next, path))
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func take(t testing.TB, s *Store, f Files) *Bundle {
	t.Helper()
	b, err := s.Take(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // many close it themselves
	return b
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// content of an open program.
func content(t testing.TB, b *Bundle) string {
	t.Helper()
	st, err := b.Program.Stat()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(io.NewSectionReader(b.Program, 0, st.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAPluginIsKeptUnderTheHashOfWhatItHolds(t *testing.T) {
	f, dir := plugin(t), filepath.Join(t.TempDir(), "state", "store")
	s := open(t, dir)
	b := take(t, s, f)
	if b.Dir != filepath.Join(dir, b.Digest) || b.Path() != filepath.Join(b.Dir, "one") || !bundleName.MatchString(b.Digest) {
		t.Errorf("it is kept in %s as %s, digest %s", b.Dir, b.Path(), b.Digest)
	}
	want := map[string]string{"./one": sum("#!/bin/sh\necho one\n"), "a.py": sum("a"), "lib/deep/b.py": sum("b")}
	if fmt.Sprint(b.Sums) != fmt.Sprint(want) || b.Manifest != sum("manifest") || b.Name != "./one" {
		t.Errorf("the sums are %v, manifest %s, program %s", b.Sums, b.Manifest, b.Name)
	}
	for path, mode := range map[string]fs.FileMode{
		"": fs.ModeDir | 0o755, "one": 0o555, "one.plugin.hcl": 0o444, "a.py": 0o444, "lib": fs.ModeDir | 0o755, "lib/deep": fs.ModeDir | 0o755, "lib/deep/b.py": 0o444,
	} {
		if st, err := os.Lstat(filepath.Join(b.Dir, path)); err != nil || st.Mode() != mode {
			t.Errorf("%q is %v, %v", path, st.Mode(), err)
		}
	}
	kept, err := os.Stat(filepath.Join(b.Dir, "one"))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := b.Program.Stat(); err != nil || !os.SameFile(st, kept) || content(t, b) != "#!/bin/sh\necho one\n" {
		t.Errorf("what is handed out open is not the copy: %v", err)
	}
	if again := take(t, s, f); again.Digest != b.Digest {
		t.Errorf("taken again it is %s, was %s", again.Digest, b.Digest)
	}
	if after, err := os.Stat(filepath.Join(b.Dir, "one")); err != nil || !os.SameFile(kept, after) {
		t.Errorf("taken again it was copied again: %v", err)
	}
}

func TestEveryFileItsNameAndItsPurposeMakeTheDigest(t *testing.T) {
	f := plugin(t)
	s := open(t, "")
	seen := map[string]string{take(t, s, f).Digest: "nothing"}
	for name, change := range map[string]func(*Files){
		"the program": func(*Files) { write(t, filepath.Join(f.Dir, "one"), "two", 0o755) },
		"a file":      func(*Files) { write(t, filepath.Join(f.Dir, "lib/deep/b.py"), "c", 0o644) },
		"the manifest, of which only what was parsed counts": func(f *Files) { f.ManifestText = []byte("other") },
		"a file less":          func(f *Files) { f.Others = f.Others[:1] },
		"which is the program": func(f *Files) { f.Program, f.Others = "a.py", []string{"./one", "lib/deep/b.py"} },
	} {
		c := f
		change(&c)
		d := take(t, s, c).Digest
		if seen[d] != "" {
			t.Errorf("%s was changed and the digest is that of a change of %s", name, seen[d])
		}
		seen[d] = name
	}
}

func TestWithoutAStoreFilesAreHashedWhereTheyAre(t *testing.T) {
	f := plugin(t)
	b := take(t, open(t, ""), f)
	if b.Dir != f.Dir || b.Path() != filepath.Join(f.Dir, "one") || b.Sums["a.py"] != sum("a") || content(t, b) != "#!/bin/sh\necho one\n" {
		t.Errorf("the bundle is %+v", b)
	}
	if kept := take(t, open(t, t.TempDir()), f); kept.Digest != b.Digest {
		t.Errorf("in a store its digest is %s, without %s", kept.Digest, b.Digest)
	}
}

func TestAnInterpreterStaysWhereItIs(t *testing.T) {
	f := plugin(t)
	interpreter := filepath.Join(t.TempDir(), "interpreter")
	write(t, interpreter, "interpreter", 0o755)
	f.Program = interpreter
	f.Others = append(f.Others, "one")
	for name, dir := range map[string]string{"with a store": t.TempDir(), "without": ""} {
		t.Run(name, func(t *testing.T) {
			b := take(t, open(t, dir), f)
			again := take(t, open(t, dir), f)
			if b.Path() != interpreter || b.Sums[interpreter] != sum("interpreter") || content(t, b) != "interpreter" || b.Digest != again.Digest {
				t.Errorf("the bundle is %+v", b)
			}
			if dir == "" {
				return
			}
			if _, err := os.Stat(filepath.Join(b.Dir, "one")); err != nil {
				t.Errorf("its script is not kept: %v", err)
			}
		})
	}
}

func TestAStoredFileThatWasAlteredIsThrownAway(t *testing.T) {
	for name, alter := range map[string]func(b *Bundle) error{
		"a byte of the program":  func(b *Bundle) error { return replace(b.Path(), "#!/bin/sh\necho two\n", 0o555) },
		"a byte of a file":       func(b *Bundle) error { return replace(filepath.Join(b.Dir, "lib/deep/b.py"), "c", 0o444) },
		"the manifest":           func(b *Bundle) error { return replace(filepath.Join(b.Dir, "one.plugin.hcl"), "m", 0o444) },
		"a file that is gone":    func(b *Bundle) error { return os.Remove(filepath.Join(b.Dir, "a.py")) },
		"a program that is gone": func(b *Bundle) error { return os.Remove(b.Path()) },
		"a file that was added":  func(b *Bundle) error { return os.WriteFile(filepath.Join(b.Dir, "sitecustomize.py"), nil, 0o444) },
		"a mode":                 func(b *Bundle) error { return os.Chmod(b.Path(), 0o575) },
		"the directory's mode":   func(b *Bundle) error { return os.Chmod(b.Dir, 0o777) },
		"a file that became a symlink": func(b *Bundle) error {
			return errors.Join(os.Rename(b.Path(), filepath.Join(filepath.Dir(b.Dir), "aside")), os.Symlink("../aside", b.Path()))
		},
		"a file that became a directory": func(b *Bundle) error {
			return errors.Join(os.Remove(b.Path()), os.Mkdir(b.Path(), 0o555))
		},
		"a bundle that became a file": func(b *Bundle) error {
			return errors.Join(os.RemoveAll(b.Dir), os.WriteFile(b.Dir, nil, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := plugin(t), t.TempDir()
			var log bytes.Buffer
			s, err := Open(t.Context(), dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			b := take(t, s, f)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if log.Len() > 0 {
				t.Errorf("before, it says %s", &log)
			}
			if err := alter(b); err != nil {
				t.Fatal(err)
			}
			again := take(t, s, f)
			if again.Digest != b.Digest || content(t, again) != "#!/bin/sh\necho one\n" {
				t.Errorf("what is handed out is %q of %s", content(t, again), again.Digest)
			}
			if err := listed(mustRoot(t, again.Dir), again.Dir, mustParts(t, f)); err != nil {
				t.Errorf("the copy is not whole: %v", err)
			}
			if !strings.Contains(log.String(), "was altered") || !strings.Contains(log.String(), b.Dir) {
				t.Errorf("the log says %q", log.String())
			}
			log.Reset()
			if take(t, s, f); log.Len() > 0 {
				t.Errorf("afterwards it says %s", &log)
			}
		})
	}
}

func mustRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func mustParts(t *testing.T, f Files) []part {
	t.Helper()
	parts, err := f.parts()
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

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

// bundles are what a store holds, finished or not.
func bundles(t testing.TB, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Name() != lockName {
			names = append(names, f.Name())
		}
	}
	return names
}

func TestADirectoryThatOthersCouldChangeIsNoStore(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"one that all can write to":       {func(dir string) error { return os.Chmod(dir, 0o777) }, "others can write to"},
		"one that the group can write to": {func(dir string) error { return os.Chmod(dir, 0o775) }, "others can write to"},
		"one below a directory of all":    {func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) }, "and so replace"},
		"one that is a file":              {func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o644)) }, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state", "store")
			if err := errors.Join(os.MkdirAll(dir, 0o755), c.spoil(dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestAStoreOfAnotherUserIsNoStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: nothing can be given away")
	}
	for name, give := range map[string]func(dir string) string{
		"the directory itself": func(dir string) string { return dir },
		"the one above":        filepath.Dir,
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state", "store")
			if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(give(dir), 12345, 12345)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "belong") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestAStoreIsOpenToReadersWhateverTheUmask(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("its mode is %v, %v", st.Mode(), err)
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

func TestWhatIsUnusedForLongOrOneOfManyIsRemoved(t *testing.T) {
	f, dir := plugin(t), t.TempDir()
	s := open(t, dir)
	held := take(t, s, f) // in use, however old
	var names []string
	for n := range keepMost + 4 {
		write(t, filepath.Join(f.Dir, "one"), fmt.Sprint(n), 0o755)
		b := take(t, s, f)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		age(t, b.Dir, time.Duration(n)*time.Hour)
		names = append(names, b.Digest)
	}
	age(t, held.Dir, 10*keepFor)
	age(t, filepath.Join(dir, names[2]), keepFor+time.Hour)
	if err := os.MkdirAll(filepath.Join(dir, unfinished+"x", "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "notes.txt"), "of the operator", 0o644)
	open(t, dir)
	left := map[string]bool{}
	for _, n := range bundles(t, dir) {
		left[n] = true
	}
	if !left[held.Digest] || left[names[2]] || left[unfinished+"x"] || !left["notes.txt"] {
		t.Errorf("in use and still there: %v; old: %v; unfinished: %v; another's: %v", left[held.Digest], left[names[2]], left[unfinished+"x"], left["notes.txt"])
	}
	for n, name := range names {
		// The one that is too old is the last of all by age.
		if want := n <= keepMost && n != 2; left[name] != want {
			t.Errorf("of the %d unused the one taken %d hours ago is there: %v", len(names), n, left[name])
		}
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(held.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("given back, the old one is still there: %v", err)
	}
}

func age(t *testing.T, path string, by time.Duration) {
	t.Helper()
	if err := os.Chtimes(path, time.Now(), time.Now().Add(-by)); err != nil {
		t.Fatal(err)
	}
}

func TestManyStoresOnOneDirectoryDoNotDisturbOneAnother(t *testing.T) {
	dir := t.TempDir()
	f := plugin(t)
	want := take(t, open(t, ""), f).Digest
	failed := make(chan error, 8)
	for range cap(failed) {
		go func() {
			failed <- func() error {
				for range 20 {
					s, err := Open(context.Background(), dir, slog.New(slog.DiscardHandler))
					if err != nil {
						return err
					}
					b, err := s.Take(context.Background(), f)
					if err != nil {
						return err
					}
					if b.Digest != want {
						return fmt.Errorf("digest %s, not %s", b.Digest, want)
					}
					if _, err := os.Stat(b.Path()); err != nil {
						return err
					}
					if err := errors.Join(b.Close(), s.Close()); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if left := bundles(t, dir); len(left) != 1 {
		t.Errorf("the store has %v", left)
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
