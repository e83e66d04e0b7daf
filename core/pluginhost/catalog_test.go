package pluginhost

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// lay makes a plugin directory with one plugin, as the table changes it.
func lay(t *testing.T) (dir, manifest, program string) {
	t.Helper()
	dir = t.TempDir()
	sub := filepath.Join(dir, "discoverer")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	manifest, program = filepath.Join(sub, "one.plugin.hcl"), filepath.Join(sub, "one")
	write(t, manifest, "plugin \"discoverer\" \"one\" {\n  protocol = 1\n  command  = [\"./one\", \"word\"]\n  needs {\n    sockets = [\"/run/one.sock\"]\n    network = true\n  }\n}\n", 0o644)
	write(t, program, "#!/bin/sh\n", 0o755)
	return dir, manifest, program
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func find(t *testing.T, name string, dirs ...string) (Entry, error) {
	t.Helper()
	c, err := NewCatalog(dirs)
	if err != nil {
		t.Fatal(err)
	}
	return c.Find(config.Discoverer, name)
}

func TestAPluginIsFoundWithWhatItsManifestSays(t *testing.T) {
	dir, manifest, program := lay(t)
	e, err := find(t, "one", filepath.Join(dir, "missing"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if e.File != manifest || e.Program != program || len(e.Args) != 1 || e.Args[0] != "word" || e.String() != "discoverer/one" {
		t.Errorf("entry is %+v", e)
	}
	if n := e.Manifest.Needs; !n.Network || len(n.Sockets) != 1 || n.Sockets[0] != "/run/one.sock" {
		t.Errorf("needs are %+v", n)
	}
}

func TestTheFirstDirectoryThatHasAPluginDecides(t *testing.T) {
	first, _, program := lay(t)
	second, _, _ := lay(t)
	if e, err := find(t, "one", first, second); err != nil || e.Program != program {
		t.Errorf("found %+v, %v", e, err)
	}
}

func TestAnInterpreterIsFoundThroughTheDistributionsSymlinks(t *testing.T) {
	dir, manifest, _ := lay(t)
	write(t, manifest, "plugin \"discoverer\" \"one\" {\n  protocol = 1\n  command  = [\"/bin/sh\", \"./one\"]\n}\n", 0o644)
	e, err := find(t, "one", dir)
	if err != nil || !filepath.IsAbs(e.Program) || e.Args[0] != "./one" {
		t.Errorf("found %+v, %v", e, err)
	}
}

func TestAPluginThatDoesNotExistIsToldWithThoseThatDo(t *testing.T) {
	dir, _, _ := lay(t)
	_, err := find(t, "two", dir)
	var nf *config.NotFoundError
	if !errors.As(err, &nf) || len(nf.Known) != 1 || nf.Known[0] != "one" || nf.Dirs[0] != dir {
		t.Errorf("error is %#v", err)
	}
}

func TestAManifestWithoutItsProgramIsToldApart(t *testing.T) {
	dir, manifest, program := lay(t)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	_, err := find(t, "one", dir)
	var mb *config.MissingBinaryError
	if !errors.As(err, &mb) || mb.Manifest != manifest || mb.Binary != program {
		t.Errorf("error is %#v", err)
	}
}

func TestWhatOthersCouldHaveWrittenIsNotRun(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir, manifest, program string) error
		want  string
	}{
		"a plugin directory that the group can write to": {
			func(dir, _, _ string) error { return os.Chmod(dir, 0o775) }, "others can write to"},
		"a kind's directory that all can write to": {
			func(dir, _, _ string) error { return os.Chmod(filepath.Join(dir, "discoverer"), 0o777) }, "others can write to"},
		"a manifest that all can write to": {
			func(_, m, _ string) error { return os.Chmod(m, 0o646) }, "others can write to"},
		"a program that the group can write to": {
			func(_, _, p string) error { return os.Chmod(p, 0o775) }, "others can write to"},
		"a program that belongs to someone else": {
			func(_, _, p string) error { return os.Chown(p, 12345, 0) }, "belongs to user 12345"},
		"a program that is a symlink": {
			func(_, _, p string) error { return errors.Join(os.Remove(p), os.Symlink("/bin/true", p)) }, "symbolic link"},
		"a manifest that is a symlink": {
			func(dir, m, _ string) error {
				return errors.Join(os.Rename(m, filepath.Join(dir, "m")), os.Symlink("../m", m))
			}, "symbolic link"},
		"a kind's directory that is a symlink": {
			func(dir, _, _ string) error {
				return errors.Join(os.Rename(filepath.Join(dir, "discoverer"), filepath.Join(dir, "d")), os.Symlink("d", filepath.Join(dir, "discoverer")))
			}, "symbolic link"},
		"a program without permission to execute": {
			func(_, _, p string) error { return os.Chmod(p, 0o644) }, "is no program"},
		"a program outside of the directory": {
			func(_, m, _ string) error {
				return os.WriteFile(m, []byte("plugin \"discoverer\" \"one\" {\n protocol = 1\n command = [\"../../x\"]\n}\n"), 0o644)
			}, "outside of its directory"},
		"a manifest of another kind": {
			func(_, m, _ string) error {
				return os.WriteFile(m, []byte("plugin \"mesh\" \"one\" {\n protocol = 1\n command = [\"./one\"]\n}\n"), 0o644)
			}, `it says plugin "mesh" "one"`},
		"a manifest of another protocol": {
			func(_, m, _ string) error {
				return os.WriteFile(m, []byte("plugin \"discoverer\" \"one\" {\n protocol = 2\n command = [\"./one\"]\n}\n"), 0o644)
			}, "it speaks protocol 2"},
		"a manifest with a mistake": {
			func(_, m, _ string) error {
				return os.WriteFile(m, []byte("plugin \"discoverer\" \"one\" {\n protocol = 1\n commands = [\"./one\"]\n}\n"), 0o644)
			}, "one.plugin.hcl:3"},
		"a manifest without a command": {
			func(_, m, _ string) error {
				return os.WriteFile(m, []byte("plugin \"discoverer\" \"one\" {\n protocol = 1\n command = []\n}\n"), 0o644)
			}, "command is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, manifest, program := lay(t)
			if err := c.spoil(dir, manifest, program); err != nil {
				t.Fatal(err)
			}
			if _, err := find(t, "one", dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestANameThatIsNoIdIsRefusedBeforeAnythingIsRead(t *testing.T) {
	for _, name := range []string{"", "../one", "One", "one/two", "-one", "one.", strings.Repeat("a", 64)} {
		if _, err := find(t, name, "/"); err == nil || !strings.Contains(err.Error(), "a name has") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAPluginIsFoundWhereverItLies(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", "", 0o755)
	write("good.plugin.hcl", `plugin "mesh" "good" { 
  protocol = 1
  command  = ["./good"]
}`, 0o644)
	write("alone", "", 0o755)
	write("renamed.plugin.hcl", `plugin "mesh" "good" { 
  protocol = 1
  command  = ["./good"]
}`, 0o644)
	write("odd.plugin.hcl", `plugin "other" "odd" { 
  protocol = 1
  command  = ["./good"]
}`, 0o644)
	c, err := NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ file, want string }{
		{"good", ""}, {"good.plugin.hcl", ""},
		{"alone", "has no manifest beside it: it is called alone.plugin.hcl"},
		{"renamed.plugin.hcl", "so it must be called good.plugin.hcl"},
		{"odd.plugin.hcl", "a discoverer, mesh or sampler"},
		{"none.plugin.hcl", "no such file"},
	} {
		e, err := c.At(filepath.Join(dir, tt.file))
		if tt.want == "" {
			if err != nil || e.String() != "mesh/good" || e.Program != filepath.Join(dir, "good") {
				t.Errorf("%s: %v, %v", tt.file, e, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.file, err, tt.want)
		}
	}
}

func TestANeedThatCantBeGrantedIsAMistakeOfTheManifest(t *testing.T) {
	for _, tt := range []struct{ needs, says string }{
		{`capabilities = ["CAP_NET_ADMNI"]`, `there is no capability "CAP_NET_ADMNI"`},
		{`sockets = ["run/one.sock"]`, `"run/one.sock" must be an absolute path`},
		{`paths = ["/etc/../root"]`, `"/etc/../root" must be an absolute path`},
		{`paths = ["/"]`, `"/" must be an absolute path of something`},
	} {
		dir, manifest, _ := lay(t)
		write(t, manifest, "plugin \"discoverer\" \"one\" {\n  protocol = 1\n  command  = [\"./one\"]\n  needs {\n    "+tt.needs+"\n  }\n}\n", 0o644)
		if _, err := find(t, "one", dir); err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), manifest) {
			t.Errorf("with %s: %v, want %q", tt.needs, err, tt.says)
		}
	}
}
