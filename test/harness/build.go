package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Binaries are the paths of the built programs.
type Binaries struct {
	Tracer  string // the daemon and command line
	Plugins string // KIND/NAME below it, manifests beside

	lock       *os.File // of their directory, until this process ends
	identities *identities
}

// Plugin is the path of a plugin's binary.
func (b Binaries) Plugin(kind, name string) string { return filepath.Join(b.Plugins, kind, name) }

// Build builds the daemon and all plugins of this checkout, once for each run of a test
// binary, and fails the test if that can't be done. What did not change since another
// run is not built again.
func Build(t testing.TB) Binaries {
	t.Helper()
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var build = sync.OnceValues(func() (Binaries, error) {
	ctx := context.Background() // of the whole run, not of the test that came first
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	dir, lock, err := reserve(root)
	if err != nil {
		return Binaries{}, err
	}
	// Daemons and commands keep their state, copies of the plugins above all, beside
	// what was built: nothing of it stays in the system's directories.
	if err := os.Setenv("STATE_DIRECTORY", filepath.Join(dir, "state")); err != nil {
		return Binaries{}, err
	}
	b := Binaries{Tracer: filepath.Join(dir, "ebpf-tracer"), Plugins: filepath.Join(dir, "plugins"), lock: lock, identities: &identities{}}
	if err := goBuild(ctx, root, b.Tracer, "./core/cmd/ebpf-tracer"); err != nil {
		return b, err
	}
	kinds, err := filepath.Glob(filepath.Join(root, "plugins", "*"))
	if err != nil {
		return b, err
	}
	for _, kind := range kinds {
		if err := b.buildKind(ctx, root, filepath.Base(kind)); err != nil {
			return b, err
		}
	}
	return b, nil
})

// buildKind builds the plugins of a kind and puts their manifests beside.
func (b Binaries) buildKind(ctx context.Context, root, kind string) error {
	out := filepath.Join(b.Plugins, kind)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	programs, err := filepath.Glob(filepath.Join(root, "plugins", kind, "*", "main.go"))
	if err != nil {
		return err
	}
	packages := make([]string, len(programs))
	for i, p := range programs {
		packages[i] = "./plugins/" + kind + "/" + filepath.Base(filepath.Dir(p))
	}
	if err := goBuild(ctx, root, out+"/", packages...); err != nil {
		return err
	}
	manifests, err := filepath.Glob(filepath.Join(root, "plugins", kind, "*", "*.plugin.hcl"))
	if err != nil {
		return err
	}
	for _, m := range manifests {
		text, err := os.ReadFile(m)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(m)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func goBuild(ctx context.Context, root, out string, packages ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-tags", "grpcnotrace", "-o", out}, packages...)...)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(packages, " "), err, text)
	}
	return nil
}

// StateDir is where the daemons of this test binary keep what their plugins keep. Build
// must have been called.
func StateDir() string { return os.Getenv("STATE_DIRECTORY") }

// Root is the directory of the checkout.
func Root() (string, error) {
	dir, err := os.Getwd() // of a test: its package's
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "core", "cmd")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the checkout: the tests do not run inside one")
		}
		dir = up
	}
}

// reserve gives a directory in the user's cache that is this process's alone until it
// ends, and then the next one's, for whom most is built already.
func reserve(root string) (string, *os.File, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil, fmt.Errorf("find a cache directory: %w", err)
	}
	sum := sha256.Sum256([]byte(root))
	for n := range 64 {
		dir := filepath.Join(cache, "ebpf-tracer", "built", fmt.Sprintf("%s-%d", hex.EncodeToString(sum[:6]), n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", nil, fmt.Errorf("make a directory for the built programs: %w", err)
		}
		lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return "", nil, fmt.Errorf("lock the built programs: %w", err)
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return dir, lock, nil
		}
		if err := lock.Close(); err != nil {
			return "", nil, err
		}
	}
	return "", nil, fmt.Errorf("all directories for built programs in %s are in use", cache)
}
