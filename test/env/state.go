package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// state is the directory of one environment and all that has to be known to take the
// environment off the machine, by this process or, when it died, by a later one.
//
//	lock         held by the process that owns the environment, for as long as it lives
//	record.json  the daemons that were started
type state struct {
	dir   string
	lock  *os.File // nil for one that outlives its process
	users *users   // nil while it is nobody's

	mu     sync.Mutex
	record record // guarded by mu
}

type record struct {
	Daemons []*daemon `json:"daemons"`
	Outside []string  `json:"outside"` // files of its own beyond its directory
	Cgroups []string  `json:"cgroups"` // of its pods, below the root of each hierarchy
}

// shimDir is where containerd's shims keep their sockets, whatever they are told.
const shimDir = "/run/containerd"

// namedPrefix begins the directory of an environment that outlives its process.
const namedPrefix = "named-"

// newState makes the directory of an environment, after cleaning up behind those whose
// owner is gone. With a name it outlives this process, and nobody cleans it up but who
// knows the name.
func newState(ctx context.Context, name string) (*state, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("start a container runtime: run the tests as root")
	}
	if err := os.MkdirAll(Root, 0o711); err != nil {
		return nil, fmt.Errorf("make the directory of test environments: %w", err)
	}
	users, err := joinUsers()
	if err != nil {
		return nil, err
	}
	s := &state{users: users}
	if err := sweep(ctx); err != nil {
		return nil, errors.Join(err, users.leave())
	}
	if err := s.makeDir(name); err != nil {
		return nil, errors.Join(err, users.leave())
	}
	if err := s.note(func(*record) {}); err != nil {
		return nil, errors.Join(err, s.clean(ctx))
	}
	return s, nil
}

func (s *state) makeDir(name string) (err error) {
	if name != "" {
		s.dir = namedDir(name)
		if err := os.Mkdir(s.dir, 0o711); errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("start the environment %s: there is one of that name already", name)
		} else if err != nil {
			return fmt.Errorf("make the environment's directory: %w", err)
		}
		return nil
	}
	// Made under a name that sweep does not look at, and renamed once it is locked.
	fresh, err := os.MkdirTemp(Root, "new-")
	if err != nil {
		return fmt.Errorf("make the environment's directory: %w", err)
	}
	if err := os.Chmod(fresh, 0o711); err != nil {
		return fmt.Errorf("make the environment's directory: %w", err)
	}
	s.lock, err = lockFile(filepath.Join(fresh, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return err
	}
	s.dir = filepath.Join(Root, "env-"+filepath.Base(fresh)[len("new-"):])
	if err := os.Rename(fresh, s.dir); err != nil {
		return fmt.Errorf("make the environment's directory: %w", err)
	}
	return nil
}

// loadState reads the state of an environment whose owner is gone.
func loadState(dir string) (*state, error) {
	s := &state{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, "record.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil // it died before it started anything
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of an environment: %w", err)
	}
	if err := json.Unmarshal(text, &s.record); err != nil {
		return nil, fmt.Errorf("read the record of an environment, %s: %w", dir, err)
	}
	return s, nil
}

// note changes the record and saves it.
func (s *state) note(change func(*record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.record)
	text, err := json.Marshal(s.record)
	if err != nil {
		return fmt.Errorf("encode the record of an environment: %w", err)
	}
	path := s.path("record.json")
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return fmt.Errorf("write the record of an environment: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the record of an environment: %w", err)
	}
	return nil
}

func (s *state) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// start starts a daemon that clean will end, in the reverse order of their starts.
func (s *state) start(name string, argv, environ []string) (*daemon, error) {
	d, err := startDaemon(name, s.path(name+".log"), argv, environ)
	if err != nil {
		return nil, err
	}
	return d, s.note(func(r *record) { r.Daemons = append(r.Daemons, d) })
}

// log is the end of a daemon's log, for an error's text.
func (s *state) log(name string) string {
	text, err := os.ReadFile(s.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	return tail(string(text), 30)
}

// clean ends what runs and takes away what is left, going on after an error. A state
// that could not be cleaned keeps its directory, and may be cleaned again; one that was
// has nothing left to clean.
func (s *state) clean(ctx context.Context) error {
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// before the daemons forget them
	ids, sockets, namespaces := s.containerIDs(), s.shimSockets(), s.podmanNamespaces()
	// The containers first, so that their daemons, if they live, can see them end.
	errs := []error{killContained(s.dir)}
	for _, d := range slices.Backward(s.record.Daemons) {
		errs = append(errs, d.stop(ctx, 20*time.Second))
	}
	errs = append(errs, killOwned(ctx, s.dir, s.record.Outside), removeFiles(sockets), removeFiles(s.record.Outside))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up %s: %w", s.dir, err)
	}
	// What a shim had started may still be on its way out, and write; a cgroup is busy for
	// a moment after its last process.
	err := poll(ctx, func() error {
		if err := errors.Join(removeCgroups(ids, s.record.Cgroups), unmountBelow(s.dir), s.removeCNI(ids), removeNamespaces(namespaces), removeRuncStates(ids)); err != nil {
			return err
		}
		return os.RemoveAll(s.dir)
	})
	if err != nil {
		return fmt.Errorf("clean up %s: %w", s.dir, err)
	}
	if s.users != nil {
		errs = append(errs, s.users.leave())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Remove takes an environment off the machine that was started with [WithName], by
// whatever process.
func Remove(ctx context.Context, name string) error {
	dir := namedDir(name)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("find the environment %s: %w", name, err)
	}
	users, err := joinUsers()
	if err != nil {
		return err
	}
	s, err := loadState(dir)
	if err != nil {
		return errors.Join(err, users.leave())
	}
	s.users = users
	return s.clean(ctx)
}

func namedDir(name string) string { return filepath.Join(Root, namedPrefix+name) }

// Sweep cleans up behind environments whose owner died without Close. Whoever starts
// one does that too.
func Sweep(ctx context.Context) error {
	if err := os.MkdirAll(Root, 0o711); err != nil {
		return fmt.Errorf("make the directory of test environments: %w", err)
	}
	users, err := joinUsers()
	if err != nil {
		return err
	}
	return errors.Join(sweep(ctx), users.leave())
}

// sweep cleans up behind environments whose owner died.
func sweep(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(Root, "env-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // in use, or just gone
		}
		if err != nil {
			return err
		}
		s, err := loadState(dir)
		if err == nil {
			err = s.clean(ctx)
		}
		lock.Close()
		if err != nil {
			return fmt.Errorf("clean up behind an earlier run: %w", err)
		}
	}
	return nil
}

// containerIDs are those that the environment's daemons know.
func (s *state) containerIDs() []string {
	var ids []string
	paths := append(s.glob("docker", "root", "containers", "*"), s.bundles()...)
	paths = append(paths, s.glob("runc", "bundles", "*")...)
	for _, runtime := range []string{"crio", "podman"} { // which keep their containers alike
		paths = append(paths, s.glob(runtime, "root", "overlay-containers", "*")...)
	}
	for _, path := range paths {
		if id := filepath.Base(path); !strings.HasSuffix(id, ".json") && !strings.HasSuffix(id, ".lock") {
			ids = append(ids, id)
		}
	}
	return ids
}

// bundles are the directories of the containers that have a shim.
func (s *state) bundles() []string {
	return s.glob("containerd", "state", "io.containerd.runtime.v2.task", "*", "*")
}

// shimSockets are where the shims listen: outside of this directory, and a shim that is
// killed leaves its socket.
func (s *state) shimSockets() []string {
	var paths []string
	for _, bundle := range s.bundles() {
		path, ok := strings.CutPrefix(shimAddress(bundle), "unix://")
		if ok && strings.HasPrefix(path, shimDir+"/") {
			paths = append(paths, path)
		}
	}
	return paths
}

// shimAddress is where the shim of a bundle listens, which each major version of
// containerd notes in its own way; "" when it has not done so.
func shimAddress(bundle string) string {
	var boot struct{ Address string }
	text, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err == nil && json.Unmarshal(text, &boot) == nil {
		return boot.Address
	}
	if text, err = os.ReadFile(filepath.Join(bundle, "address")); err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// runcDir is where runc keeps the state of containers unless it is told otherwise.
const runcDir = "/run/runc"

// removeRuncStates removes what runc knows of containers that were killed.
func removeRuncStates(ids []string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, os.RemoveAll(filepath.Join(runcDir, id)))
	}
	return errors.Join(errs...)
}

func (s *state) glob(elem ...string) []string {
	paths, err := filepath.Glob(s.path(elem...))
	if err != nil {
		panic(err) // the pattern is wrong, whatever the machine is like
	}
	return paths
}

func removeFiles(paths []string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}
