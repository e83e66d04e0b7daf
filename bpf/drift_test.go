package bpf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const again = "; run `make generate`, which compiles the probes with the pinned clang, and commit what it writes"

// drift compares the sources and the objects with the sums that were written when
// the one was compiled into the other.
func drift(files fs.FS) ([]string, error) {
	list, err := fs.ReadFile(files, "objects.sum")
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			return nil, fmt.Errorf("objects.sum: not a sum and a name: %q", line)
		}
		sums[path.Clean(name)] = sum
	}
	var names []string
	for _, pattern := range []string{"*.h", "*.bpf.c", "*.o"} {
		found, err := fs.Glob(files, pattern)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	var out []string
	for _, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		switch sums[name] {
		case hex.EncodeToString(sum[:]):
		case "":
			out = append(out, name+" is not in objects.sum"+again)
		default:
			out = append(out, name+" is not what objects.sum says"+again)
		}
	}
	for name := range sums {
		if !slices.Contains(names, name) {
			out = append(out, name+" is in objects.sum and not there"+again)
		}
	}
	slices.Sort(out)
	return out, nil
}

func TestTheObjectsAreThoseOfTheSources(t *testing.T) {
	found, err := drift(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

func TestDriftIsFound(t *testing.T) {
	sum := func(content string) string {
		s := sha256.Sum256([]byte(content))
		return hex.EncodeToString(s[:])
	}
	sums := "# clang\n" + sum("header") + "  ./abi.h\n" + sum("source") + "  ./file.bpf.c\n" + sum("object") + "  ./file_x86_bpfel.o\n"
	for _, test := range []struct {
		name   string
		change func(fstest.MapFS)
		want   string
	}{
		{"nothing has changed", func(fstest.MapFS) {}, ""},
		{"a header was edited", func(m fstest.MapFS) { m["abi.h"].Data = []byte("other") }, "abi.h is not what"},
		{"a source was edited", func(m fstest.MapFS) { m["file.bpf.c"].Data = []byte("other") }, "file.bpf.c is not what"},
		{"an object was rebuilt by hand", func(m fstest.MapFS) { m["file_x86_bpfel.o"].Data = []byte("other") }, "file_x86_bpfel.o is not what"},
		{"a source was added", func(m fstest.MapFS) { m["new.bpf.c"] = &fstest.MapFile{} }, "new.bpf.c is not in"},
		{"an object was forgotten", func(m fstest.MapFS) { delete(m, "file_x86_bpfel.o") }, "file_x86_bpfel.o is in objects.sum and not there"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := fstest.MapFS{
				"objects.sum":      {Data: []byte(sums)},
				"abi.h":            {Data: []byte("header")},
				"file.bpf.c":       {Data: []byte("source")},
				"file_x86_bpfel.o": {Data: []byte("object")},
			}
			test.change(files)
			found, err := drift(files)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" && len(found) > 0 {
				t.Errorf("found %q", found)
			}
			if test.want != "" && (len(found) != 1 || !strings.HasPrefix(found[0], test.want)) {
				t.Errorf("found %q, not %q", found, test.want)
			}
		})
	}
}

// A C file that Go's tool would take for cgo breaks every build.
func TestEverySourceIsHiddenFromTheGoTool(t *testing.T) {
	sources, err := fs.Glob(os.DirFS("."), "*.c")
	if err != nil || len(sources) == 0 {
		t.Fatalf("%d sources, %v", len(sources), err)
	}
	for _, name := range sources {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("//go:build ignore\n")) {
			t.Errorf("%s does not begin with //go:build ignore", name)
		}
	}
}
