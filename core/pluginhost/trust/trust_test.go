package trust

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is a directory that holds a/b/file.
func tree(t *testing.T) (dir string, root *os.Root) {
	t.Helper()
	dir = t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755), os.WriteFile(filepath.Join(dir, "a", "b", "file"), []byte("text"), 0o644)); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func daemon(t *testing.T) Owners {
	t.Helper()
	o, err := Daemon()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAFileOfAFriendIsOpened(t *testing.T) {
	dir, root := tree(t)
	for _, name := range []string{"a/b/file", "./a/b/file", "a/../a/b/file"} {
		f, err := daemon(t).Open(root, dir, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := io.ReadAll(f); err != nil || string(text) != "text" {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
		f.Close()
	}
}

func TestWhatIsNotTrustedIsNotOpened(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		open  string
		want  string
	}{
		"a file that all can write to":      {spoil: func(dir string) error { return os.Chmod(filepath.Join(dir, "a/b/file"), 0o666) }, want: "a/b/file (mode 0666)"},
		"a directory that all can write to": {spoil: func(dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o777) }, want: "a (mode 0777)"},
		"a directory that is a symlink": {spoil: func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "x")), os.Symlink("x", filepath.Join(dir, "a")))
		}, want: "a is a symbolic link"},
		"a file that is a symlink": {spoil: func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "a/b/file")), os.Symlink("../../c", filepath.Join(dir, "a/b/file")))
		}, want: "a/b/file is a symbolic link"},
		"a pipe, at which opening could wait for ever": {spoil: func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "a/b/file")), unix.Mkfifo(filepath.Join(dir, "a/b/file"), 0o644))
		}, want: "no regular file"},
		"a directory":           {open: "a/b", want: "no regular file"},
		"a file outside":        {open: "../file", want: "outside of its directory"},
		"an absolute path":      {open: "/etc/passwd", want: "outside of its directory"},
		"a file as a directory": {open: "a/b/file/x", want: "a/b/file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, root := tree(t)
			if c.spoil != nil {
				if err := c.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			if c.open == "" {
				c.open = "a/b/file"
			}
			if f, err := daemon(t).Open(root, dir, c.open); err == nil || f != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestAFileOfAStrangerIsNotOpened(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: nothing can be given away")
	}
	for _, path := range []string{"a", "a/b/file"} {
		dir, root := tree(t)
		if err := os.Chown(filepath.Join(dir, path), 12345, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := daemon(t).Open(root, dir, "a/b/file"); err == nil || !strings.Contains(err.Error(), path+" belongs to user 12345") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAFileThatIsMissingIsToldApart(t *testing.T) {
	dir, root := tree(t)
	for _, name := range []string{"a/b/other", "b/file"} {
		if _, err := daemon(t).Open(root, dir, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
