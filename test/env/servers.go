package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/sys/unix"
)

// builtServer is a server that the distribution's packages lack, and that is therefore
// built from its published Go module: once for each version, into the user's cache.
type builtServer struct {
	name     string // of the directory in the cache, with the version
	module   string
	version  string
	packages []string // whose commands are built, below the module
	tags     string
	ldflags  string
	cgo      bool
	// helper is a command in C, whose sources are in the module; "": there is none.
	helper, helperSources string
}

// containerd2 is what the distribution's containerd is not yet: one of the second major
// version. Its storage drivers for file systems that the tests don't use are left out.
func containerd2() builtServer {
	const module = "github.com/containerd/containerd/v2"
	return builtServer{
		name: "containerd", module: module, version: "2.4.2",
		packages: []string{"cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"},
		tags:     "no_btrfs no_devmapper no_zfs no_aufs",
		ldflags:  "-X " + module + "/version.Version=2.4.2",
	}
}

// crio needs a C compiler and libseccomp, which install.sh installs.
func crio() builtServer {
	return builtServer{
		name: "cri-o", module: "github.com/cri-o/cri-o", version: "1.34.0",
		packages: []string{"cmd/crio"},
		tags:     "containers_image_openpgp containers_image_ostree_stub exclude_graphdriver_btrfs btrfs_noversion seccomp",
		cgo:      true,
		helper:   "pinns", helperSources: "pinns/src/*.c",
	}
}

// BuildServers builds the servers that are not the distribution's, as far as that was not
// done before, and tells on progress, which takes minutes. Whoever starts one of them
// does that too.
func BuildServers(ctx context.Context, progress io.Writer) error {
	for _, b := range []builtServer{containerd2(), crio()} {
		if _, err := b.get(ctx, progress); err != nil {
			return err
		}
	}
	return nil
}

// get returns the directory that holds the server's commands, and builds them if it is
// not there. Of several processes that ask at once, one builds and the others wait.
func (b builtServer) get(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory: %w", err)
	}
	return b.getIn(ctx, filepath.Join(cache, "ebpf-tracer", "servers"), progress)
}

func (b builtServer) getIn(ctx context.Context, servers string, progress io.Writer) (string, error) {
	name := b.name + "-" + b.version
	dir := filepath.Join(servers, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(servers, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of servers: %w", err)
	}
	lock, err := waitLock(ctx, filepath.Join(servers, "."+name+".lock"))
	if err != nil {
		return "", fmt.Errorf("wait for another process that builds %s: %w", name, err)
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // built meanwhile
	}
	if err := removeGlob(filepath.Join(servers, "new-"+name+"-*")); err != nil {
		return "", fmt.Errorf("remove what an earlier build left: %w", err)
	}
	fresh, err := os.MkdirTemp(servers, "new-"+name+"-")
	if err != nil {
		return "", fmt.Errorf("make the cache of servers: %w", err)
	}
	defer os.RemoveAll(fresh)
	began := time.Now()
	fmt.Fprintf(progress, "test/env: building %s from its Go module, once for this machine: some minutes\n", name)
	bin := filepath.Join(fresh, "bin")
	if err := b.build(ctx, filepath.Join(fresh, "src"), bin, progress); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := os.Rename(bin, dir); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, err)
	}
	fmt.Fprintf(progress, "test/env: built %s in %.0f s\n", name, time.Since(began).Seconds())
	return dir, nil
}

// build makes, in src, a module that requires the server's, and builds its commands into
// bin. The checksums are those that the server's own go.sum gives, so that what is built
// is what its authors built.
func (b builtServer) build(ctx context.Context, src, bin string, progress io.Writer) error {
	for _, dir := range []string{src, bin} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	version := "v" + b.version
	// Required before it is there, and without its version of the language, Go would
	// fetch every module that its requirements ever required.
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module build\n"), 0o644); err != nil {
		return err
	}
	out, err := output(b.goCommand(ctx, src, "mod", "download", "-json", b.module+"@"+version))
	if err != nil {
		return err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		return fmt.Errorf("read where the module was downloaded to: %w", err)
	}
	sums, err := os.ReadFile(filepath.Join(module.Dir, "go.sum"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(src, "go.sum"), sums, 0o644); err != nil {
		return err
	}
	theirs, err := os.ReadFile(filepath.Join(module.Dir, "go.mod"))
	if err != nil {
		return err
	}
	parsed, err := modfile.ParseLax("go.mod", theirs, nil)
	if err != nil {
		return err
	}
	if parsed.Go == nil {
		return fmt.Errorf("read the module's go.mod: it names no version of Go")
	}
	text := fmt.Sprintf("module build\n\ngo %s\n\nrequire %s %s\n", parsed.Go.Version, b.module, version)
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte(text), 0o644); err != nil {
		return err
	}
	args := []string{"build", "-v", "-mod=mod", "-trimpath", "-buildvcs=false", "-tags", b.tags,
		"-ldflags", "-s -w " + b.ldflags, "-o", bin + "/"}
	for _, p := range b.packages {
		args = append(args, path.Join(b.module, p))
	}
	cmd := b.goCommand(ctx, src, args...)
	count := &packageCount{progress: progress, name: b.name, next: packageStep}
	cmd.Stdout, cmd.Stderr = count, count
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, tail(count.text.String(), 20))
	}
	if b.helper == "" {
		return nil
	}
	sources, err := filepath.Glob(filepath.Join(module.Dir, b.helperSources))
	if err != nil {
		return err
	}
	args = append([]string{"-std=c99", "-O2", "-static", "-o", filepath.Join(bin, b.helper)}, sources...)
	_, err = output(exec.CommandContext(ctx, "gcc", args...))
	return err
}

func (b builtServer) goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cgo := "CGO_ENABLED=0"
	if b.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo, "GOWORK=off")
	return cmd
}

// packageStep is after how many packages a build says that it goes on.
const packageStep = 100

// packageCount tells on progress how far go build -v is, and keeps what it said.
type packageCount struct {
	progress io.Writer
	name     string
	lines    int
	next     int
	text     strings.Builder
}

func (c *packageCount) Write(b []byte) (int, error) {
	c.text.Write(b)
	c.lines += strings.Count(string(b), "\n")
	for ; c.lines >= c.next; c.next += packageStep {
		fmt.Fprintf(c.progress, "test/env: building %s: %d packages so far\n", c.name, c.next)
	}
	return len(b), nil
}

// waitLock locks a file, and waits for whoever has it.
func waitLock(ctx context.Context, path string) (lock *os.File, err error) {
	var fault error // that no waiting cures
	err = poll(ctx, func() (err error) {
		if lock, err = lockFile(path, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			fault, err = err, nil
		}
		return err
	})
	return lock, errors.Join(err, fault)
}

func removeGlob(pattern string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}
