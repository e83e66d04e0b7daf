package config_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// Each file of testdata/lock holds a lock file, what is said of it, and how what
// was understood is written.
func TestALockFileIsReadAndWritten(t *testing.T) {
	files, err := filepath.Glob("testdata/lock/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := archive.Files[0]
			lock, found := config.ParseLock(in.Name, in.Data)
			out := []txtar.File{in, {Name: "found", Data: []byte(asText(t, found))}}
			if !found.HasErrors() {
				text := lock.Format()
				out = append(out, txtar.File{Name: "written", Data: text})
				again, found := config.ParseLock(in.Name, text)
				if found.HasErrors() || string(again.Format()) != string(text) {
					t.Errorf("written and read it is\n%s%s", again.Format(), asText(t, found))
				}
			}
			for _, d := range found {
				if d.Range.Filename != in.Name || d.Range.Start.Line < 1 || d.Range.Start.Column < 1 {
					t.Errorf("no place: %v", d)
				}
			}
			if *update {
				archive.Files = out
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got, want := string(txtar.Format(&txtar.Archive{Files: out})), string(txtar.Format(&txtar.Archive{Files: archive.Files})); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func FuzzParseLock(f *testing.F) {
	files, err := filepath.Glob("testdata/lock/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		lock, found := config.ParseLock("lock", src)
		if err := found.Write(io.Discard, config.TextOptions{Width: 80}); err != nil {
			t.Fatal(err)
		}
		if found.HasErrors() {
			return
		}
		if again, found := config.ParseLock("lock", lock.Format()); found.HasErrors() || string(again.Format()) != string(lock.Format()) {
			t.Fatalf("it is not read as it was written: %v\n%s", found, lock.Format())
		}
	})
}

func locked(program, manifest string, files map[string]string) config.LockedFiles {
	hash := func(s string) string {
		if s == "" {
			return ""
		}
		return strings.Repeat(s, 64)
	}
	l := config.LockedFiles{Program: hash(program), Manifest: hash(manifest), Files: map[string]string{}}
	for n, s := range files {
		l.Files[n] = hash(s)
	}
	return l
}

var docker = config.PluginRef{Kind: config.Discoverer, Name: "docker"}

func TestAPluginThatIsNotAsLockedIsRefusedWithBothHashes(t *testing.T) {
	lock := &config.Lock{Name: "ebpf-tracer.lock.hcl", Exists: true}
	lock.Set(config.Discoverer, "docker", "v1", 1, "linux_amd64", locked("1", "2", map[string]string{"x.py": "3", "y.py": "4"}))
	lock, diags := config.ParseLock(lock.Name, lock.Format())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	h := func(s string) string { return "sha256:" + strings.Repeat(s, 64) }
	for name, c := range map[string]struct {
		ref      config.PluginRef
		platform string
		now      config.LockedFiles
		want     []string // nil: it may run
	}{
		"nothing has changed": {now: locked("1", "2", map[string]string{"x.py": "3", "y.py": "4"})},
		"the program":         {now: locked("5", "2", map[string]string{"x.py": "3", "y.py": "4"}), want: []string{"its program", h("1"), h("5"), "ebpf-tracer.lock.hcl:9:"}},
		"the manifest":        {now: locked("1", "5", map[string]string{"x.py": "3", "y.py": "4"}), want: []string{"its manifest", h("2"), h("5"), "ebpf-tracer.lock.hcl:10:"}},
		"a file":              {now: locked("1", "2", map[string]string{"x.py": "5", "y.py": "4"}), want: []string{`its file "x.py"`, h("3"), h("5")}},
		"a file more":         {now: locked("1", "2", map[string]string{"x.py": "3", "y.py": "4", "z.py": "5"}), want: []string{`its file "z.py", ` + h("5") + ", is not locked"}},
		"a file less":         {now: locked("1", "2", map[string]string{"x.py": "3"}), want: []string{`its file "y.py" is locked`, "not among its files any more"}},
		"another platform":    {platform: "linux_arm64", now: locked("1", "2", nil), want: []string{"has it for linux_amd64, and this is linux_arm64", h("1")}},
		"another plugin":      {ref: config.PluginRef{Kind: config.Mesh, Name: "docker"}, now: locked("1", "2", nil), want: []string{"not in the lock file", h("1")}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.ref.Name == "" {
				c.ref = docker
			}
			if c.platform == "" {
				c.platform = "linux_amd64"
			}
			err := lock.Check(c.ref, c.platform, c.now)
			var refused *config.LockError
			if (c.want != nil) != errors.As(err, &refused) {
				t.Fatalf("the error is %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not say %q: %v", w, err)
				}
			}
		})
	}
}

func TestWithoutALockFileEveryPluginMayRun(t *testing.T) {
	lock, found := config.ReadLock(filepath.Join(t.TempDir(), "config.hcl"))
	if len(found) > 0 || lock.Exists {
		t.Fatalf("there is one: %v", found)
	}
	if err := lock.Check(docker, "linux_amd64", locked("1", "2", nil)); err != nil {
		t.Error(err)
	}
}

func TestALockFileThatCanNotBeReadIsNotTakenForNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, config.LockName), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, found := config.ReadLock(filepath.Join(dir, "config.hcl"))
	if !found.HasErrors() || !lock.Exists {
		t.Errorf("found is %v, it exists: %v", found, lock.Exists)
	}
}

func TestLockingKeepsWhatIsLockedForOtherPlatformsAndPlugins(t *testing.T) {
	lock := &config.Lock{}
	for _, platform := range []string{"linux_arm64", "linux_amd64"} {
		lock.Set(config.Discoverer, "docker", "v1", 1, platform, locked("1", "2", nil))
	}
	lock.Set(config.Sampler, "fixed", "v1", 1, "linux_amd64", locked("3", "4", nil))
	before, _ := lock.Find(config.Sampler, "fixed")
	lock.Set(config.Discoverer, "docker", "v2", 2, "linux_amd64", locked("5", "6", nil))
	p, _ := lock.Find(config.Discoverer, "docker")
	if p.Version != "v2" || p.Protocol != 2 || !p.Platforms["linux_amd64"].Equal(locked("5", "6", nil)) || !p.Platforms["linux_arm64"].Equal(locked("1", "2", nil)) {
		t.Errorf("it is %+v", p)
	}
	if after, ok := lock.Find(config.Sampler, "fixed"); !ok || after.Version != before.Version || len(after.Platforms) != 1 {
		t.Errorf("the other is %+v", after)
	}
}

// The refusal stands at the plugin's place in the configuration and keeps hashes whole.
func TestARefusedPluginIsShownAtItsPlaceWithWhatToDo(t *testing.T) {
	file, _ := parser(nil).Parse("config.hcl", []byte("probe \"process\" {}\nmesh \"vault\" { token = \"sesame\" }\n"))
	lock := &config.Lock{Name: "ebpf-tracer.lock.hcl", Exists: true}
	lock.Set(config.Mesh, "vault", "v1", 1, "linux_amd64", locked("1", "2", nil))
	found := file.EachPlugin(func(ref config.PluginRef) error {
		if ref.Kind != config.Mesh {
			return nil
		}
		return lock.Check(ref, "linux_amd64", locked("5", "2", nil))
	})
	text := asText(t, found)
	for _, want := range []string{"config.hcl:2:6: Error: Plugin not as locked", "\n  sha256:" + strings.Repeat("1", 64) + "\nand is now\n", "\n  sha256:" + strings.Repeat("5", 64), "ebpf-tracer plugin lock --config"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "sesame") {
		t.Errorf("a secret is shown:\n%s", text)
	}
}
