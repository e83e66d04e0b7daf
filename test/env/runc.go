package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Runc runs containers with runc alone: nobody but the bundles and runc's own state tells
// of them. Its methods may be called from several goroutines.
type Runc struct {
	// Root is where runc keeps the state of the containers: the environment's own
	// directory, or with [WithDefaultRuncRoot] that of every runc.
	Root string
	// Bundles holds a directory for each container, named after its id.
	Bundles string

	state   *state
	runtime string
}

// WithDefaultRuncRoot leaves runc to keep its state where it does so by default.
func WithDefaultRuncRoot() Option { return func(o *options) { o.defaultRoot = true } }

// StartRunc prepares to run containers with runc and takes all off the machine when the
// test ends.
func StartRunc(t testing.TB, opts ...Option) *Runc {
	t.Helper()
	r, err := NewRunc(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWithTest(t, r.Close) })
	return r
}

// NewRunc prepares to run containers with runc; the owner has to call Close.
func NewRunc(ctx context.Context, opts ...Option) (*Runc, error) {
	o := collect(opts)
	s, err := newState(ctx, o.name)
	if err != nil {
		return nil, err
	}
	r := &Runc{Root: s.path("runc", "root"), Bundles: s.path("runc", "bundles"), state: s}
	if o.defaultRoot {
		r.Root = runcDir
	}
	if err := r.setUp(); err != nil {
		return nil, errors.Join(err, s.clean(ctx))
	}
	return r, nil
}

func (r *Runc) setUp() (err error) {
	if r.runtime, err = r.state.runc(); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Bundles, 0o755); err != nil {
		return fmt.Errorf("make the directory of bundles: %w", err)
	}
	// runc makes it with its first container; who is to read it can be granted it before.
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		return fmt.Errorf("make the directory of runc's state: %w", err)
	}
	noop, err := load.NoopELF(runtime.GOARCH)
	if err != nil {
		return err
	}
	busybox, err := Busybox(noop)
	if err != nil {
		return err
	}
	for _, image := range []Image{busybox, Noop(noop)} {
		if err := image.unpack(r.rootfs(image.Ref)); err != nil {
			return err
		}
	}
	return nil
}

// rootfs is the root of all containers of an image.
func (r *Runc) rootfs(image string) string {
	name, _, _ := strings.Cut(filepath.Base(image), ":")
	return r.state.path("runc", "rootfs", name)
}

// unpack writes the image's files below a directory, with those that mounts need.
func (i Image) unpack(dir string) error {
	for _, d := range []string{"dev", "etc", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("unpack an image: %w", err)
		}
	}
	for _, f := range i.Files {
		path := filepath.Join(dir, f.Path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil && f.Target != "" {
			err = os.Symlink(f.Target, path)
		} else if err == nil {
			err = os.WriteFile(path, f.Data, 0o755)
		}
		if err != nil {
			return fmt.Errorf("unpack an image: %w", err)
		}
	}
	return nil
}

// Bundle makes the bundle of a container of [BusyboxImage] or [NoopImage], which runc
// calls by the id, and returns its directory. The specification is runc's own default,
// without a terminal; change, which may be nil, is the last to change it.
func (r *Runc) Bundle(ctx context.Context, id, image string, change func(*specs.Spec), args ...string) (string, error) {
	dir := filepath.Join(r.Bundles, id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the bundle of a container: %w", err)
	}
	if _, err := output(r.Command(ctx, "spec", "--bundle", dir)); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the default specification: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", fmt.Errorf("read the default specification: %w", err)
	}
	spec.Root.Path = r.rootfs(image)
	spec.Process.Terminal = false
	spec.Process.Args = args
	spec.Process.Env = []string{"PATH=/bin", "IMAGE_ENV=from-image"}
	if change != nil {
		change(&spec)
	}
	if text, err = json.MarshalIndent(&spec, "", "\t"); err != nil {
		return "", fmt.Errorf("encode a specification: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return "", fmt.Errorf("write a specification: %w", err)
	}
	return dir, nil
}

// Command prepares the runc command, with the environment's root.
func (r *Runc) Command(ctx context.Context, args ...string) *exec.Cmd {
	if r.Root != runcDir {
		args = append([]string{"--root", r.Root}, args...)
	}
	cmd := exec.CommandContext(ctx, r.runtime, args...)
	cmd.Env = commandEnv()
	return cmd
}

// Call runs the runc command and returns what it printed, without white space around.
func (r *Runc) Call(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	return output(r.Command(ctx, args...))
}

// Run makes a bundle, runs its container to the end and removes both. It returns what was
// printed.
func (r *Runc) Run(ctx context.Context, id, image string, change func(*specs.Spec), args ...string) (string, error) {
	bundle, err := r.Bundle(ctx, id, image, change, args...)
	if err != nil {
		return "", err
	}
	out, err := r.Call(ctx, "run", "--bundle", bundle, id)
	return out, errors.Join(err, os.RemoveAll(bundle))
}

// RunDetached makes a bundle and starts its container, which runs until Remove. It has no
// standard input or output.
func (r *Runc) RunDetached(ctx context.Context, id, image string, change func(*specs.Spec), args ...string) error {
	bundle, err := r.Bundle(ctx, id, image, change, args...)
	if err != nil {
		return err
	}
	// Its files stay open in the container, and with a pipe one would wait for its end.
	log, err := os.OpenFile(r.state.path("runc", "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("run container %s: %w", id, err)
	}
	defer log.Close()
	cmd := r.Command(ctx, "run", "--detach", "--bundle", bundle, id)
	cmd.Stderr = log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("run container %s: %w\n%s", id, err, tail(string(text), 10))
	}
	return nil
}

// Remove ends a container if it runs, and removes it and its bundle.
func (r *Runc) Remove(ctx context.Context, id string) error {
	_, err := r.Call(ctx, "delete", "--force", id)
	return errors.Join(err, os.RemoveAll(filepath.Join(r.Bundles, id)))
}

// Close ends the containers and takes all they left off the machine.
func (r *Runc) Close(ctx context.Context) error { return r.state.clean(ctx) }
