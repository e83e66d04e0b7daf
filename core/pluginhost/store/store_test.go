package store

import (
	"bytes"
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

func TestOneProgramOfSeveralPluginsIsOneFile(t *testing.T) {
	f, dir := plugin(t), t.TempDir()
	s := open(t, dir)
	is := func(b *Bundle) fs.FileInfo {
		t.Helper()
		st, err := b.Program.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	first := take(t, s, f)
	other := f
	other.ManifestText = []byte("another manifest")
	second := take(t, s, other)
	if first.Digest == second.Digest || !os.SameFile(is(first), is(second)) {
		t.Error("two plugins of one program have a copy each")
	}
	// One that is not what it was is nobody's twin, and does not stay.
	if err := os.Chmod(first.Path(), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, first.Path(), "#!/bin/sh\necho 666\n", 0o755)
	if err := os.Chmod(first.Path(), 0o555); err != nil {
		t.Fatal(err)
	}
	other.ManifestText = []byte("a third")
	third := take(t, s, other)
	if os.SameFile(is(first), is(third)) || content(t, third) != "#!/bin/sh\necho one\n" {
		t.Errorf("a third one was given what was altered: %q", content(t, third))
	}
	if again := take(t, s, f); content(t, again) != "#!/bin/sh\necho one\n" {
		t.Errorf("the first is %q", content(t, again))
	}
	// What is removed leaves what others have.
	if err := errors.Join(first.Close(), os.RemoveAll(first.Dir)); err != nil {
		t.Fatal(err)
	}
	if b := take(t, s, other); content(t, b) != "#!/bin/sh\necho one\n" {
		t.Errorf("the third is %q", content(t, b))
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

func TestABundleIsGivenBackWithItsLastUser(t *testing.T) {
	for _, s := range []*Store{open(t, filepath.Join(t.TempDir(), "store")), open(t, "")} {
		b := take(t, s, plugin(t))
		second := b.Hold()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if got := content(t, second); got != "#!/bin/sh\necho one\n" {
			t.Errorf("the program is %q", got)
		}
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Program.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after the last close the program is open: %v", err)
		}
	}
}

func TestAStoredFileThatWasAlteredIsThrownAway(t *testing.T) {
	for name, alter := range map[string]func(b *Bundle) error{
		"a byte of the program":         func(b *Bundle) error { return replace(b.Path(), "#!/bin/sh\necho two\n", 0o555) },
		"a byte of a file":              func(b *Bundle) error { return replace(filepath.Join(b.Dir, "lib/deep/b.py"), "c", 0o444) },
		"the manifest":                  func(b *Bundle) error { return replace(filepath.Join(b.Dir, "one.plugin.hcl"), "m", 0o444) },
		"a file that is gone":           func(b *Bundle) error { return os.Remove(filepath.Join(b.Dir, "a.py")) },
		"a program that is gone":        func(b *Bundle) error { return os.Remove(b.Path()) },
		"a file that was added":         func(b *Bundle) error { return os.WriteFile(filepath.Join(b.Dir, "sitecustomize.py"), nil, 0o444) },
		"a mode":                        func(b *Bundle) error { return os.Chmod(b.Path(), 0o575) },
		"a program that can't be run":   func(b *Bundle) error { return os.Chmod(b.Path(), 0o444) },
		"a program that is set-user-id": func(b *Bundle) error { return os.Chmod(b.Path(), 0o555|fs.ModeSetuid) },
		"the directory's mode":          func(b *Bundle) error { return os.Chmod(b.Dir, 0o777) },
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
