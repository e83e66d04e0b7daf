package schemas

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

var digest = strings.Repeat("0a", 32)

func described() *protov1.DescribeResponse {
	return &protov1.DescribeResponse{Name: "test", Schema: &protov1.Block{Doc: "d"}}
}

func open(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestWhatWasKeptIsGivenBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "schemas")
	c := open(t, dir)
	if d := c.Get(digest); d != nil {
		t.Errorf("%v was there before", d)
	}
	if err := c.Put(digest, described()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Cache{c, open(t, dir)} {
		if d := c.Get(digest); !proto.Equal(d, described()) {
			t.Errorf("got %v", d)
		}
		if d := c.Get(strings.Repeat("0b", 32)); d != nil {
			t.Errorf("another digest gave %v", d)
		}
	}
}

func TestWhatCannotBeTrustedIsNotThereAndIsWrittenAnew(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, file string, text []byte) error{
		"cut short": func(_ *testing.T, file string, text []byte) error {
			return os.WriteFile(file, text[:len(text)-1], 0o600)
		},
		"cut to its sum": func(_ *testing.T, file string, text []byte) error {
			return os.WriteFile(file, text[:len(format)+3], 0o600)
		},
		"empty": func(_ *testing.T, file string, _ []byte) error { return os.WriteFile(file, nil, 0o600) },
		"one bit turned": func(_ *testing.T, file string, text []byte) error {
			text[len(text)-1] ^= 1
			return os.WriteFile(file, text, 0o600)
		},
		"of another format": func(_ *testing.T, file string, text []byte) error {
			return os.WriteFile(file, bytes.Replace(text, []byte("1\n"), []byte("2\n"), 1), 0o600)
		},
		"written by others": func(_ *testing.T, file string, _ []byte) error { return os.Chmod(file, 0o622) },
		"somebody else's":   func(t *testing.T, file string, _ []byte) error { return chown(t, file) },
		"a symbolic link":   func(_ *testing.T, file string, text []byte) error { return link(file, text) },
		"a directory":       func(_ *testing.T, file string, _ []byte) error { return dir(file) },
		"no protobuf message": func(_ *testing.T, file string, _ []byte) error {
			return os.WriteFile(file, sealed([]byte("\xff\xff")), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := t.TempDir()
			if err := os.Chmod(at, 0o700); err != nil {
				t.Fatal(err)
			}
			c := open(t, at)
			if err := c.Put(digest, described()); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(at, digest)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(t, file, text); err != nil {
				t.Fatal(err)
			}
			if d := c.Get(digest); d != nil {
				t.Errorf("got %v", d)
			}
			if err := c.Put(digest, described()); err != nil {
				t.Fatal(err)
			}
			if d := c.Get(digest); !proto.Equal(d, described()) {
				t.Errorf("after it was written anew: got %v", d)
			}
		})
	}
}

func chown(t *testing.T, file string) error {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	return os.Chown(file, 65534, 65534)
}

func link(file string, text []byte) error {
	if err := os.Rename(file, file+".real"); err != nil {
		return err
	}
	return os.Symlink(file+".real", file)
}

func dir(file string) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(file, "in"), 0o700)
}

func TestADirectoryThatOthersCanWriteToIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if c, err := Open(dir); err == nil {
		t.Errorf("it was opened: %v", c)
	}
}

func TestOnlyTheLastDescriptionsAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	c := open(t, dir)
	for i := range keepMost + 10 {
		name := fmt.Sprintf("%064x", i)
		if err := c.Put(name, described()); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i-1000) * time.Second)
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(dir, unfinished+"x")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(left, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != keepMost {
		t.Errorf("%d files are left: %v", len(files), err)
	}
	if c.Get(fmt.Sprintf("%064x", 9)) != nil || c.Get(fmt.Sprintf("%064x", 10)) == nil {
		t.Error("it is not the last ones that are left")
	}
}

func TestManyWriteTheSameAtTheSameTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	var all sync.WaitGroup
	for range 8 {
		c := open(t, dir)
		all.Go(func() {
			for range 50 {
				if err := c.Put(digest, described()); err != nil {
					t.Error(err)
				}
				if d := c.Get(digest); !proto.Equal(d, described()) {
					t.Errorf("got %v", d)
				}
			}
		})
	}
	all.Wait()
}

func TestNoCacheKeepsNothing(t *testing.T) {
	var c *Cache
	if err := c.Put(digest, described()); err != nil || c.Get(digest) != nil || c.Close() != nil {
		t.Error("a nil cache does something")
	}
}
