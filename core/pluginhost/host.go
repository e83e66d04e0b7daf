package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/schemas"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/watch"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// lockName is the file by which a runtime directory is known for one.
const lockName = ".lock"

// Options of a Host. What is zero has the default named.
type Options struct {
	// RuntimeDir holds the plugins' sockets and nothing else: a directory that one
	// host uses at a time. "": a temporary one, as for a mere check.
	RuntimeDir string
	// StateDir holds a directory for each plugin, kept over restarts; "": none.
	StateDir string
	// CgroupMount is the root of the cgroup2 hierarchy under which plugins get
	// control groups; "": found by itself. NoCgroups: they get none.
	CgroupMount string
	NoCgroups   bool
	// Schemas keeps what plugins say of themselves; nil: they are asked each time.
	Schemas *schemas.Cache
	// RequireSandbox refuses to start a plugin that can't be confined with every
	// measure; otherwise it runs with those that this host can take.
	RequireSandbox bool
	// HostRoot is where the host's root directory is mounted: what manifests name is
	// there too. "": it is the daemon's own.
	HostRoot string
	Log      *slog.Logger // required
	Pace     Pace
}

// Pace is how patient a host is with its plugins.
type Pace struct {
	StartTimeout     time.Duration // from fork to a connection; 5 s
	ConfigureTimeout time.Duration // of Describe, Validate and Configure, each; 10 s
	DetectTimeout    time.Duration // of a discoverer's Detect; 2.5 s, for it has 2
	HealthInterval   time.Duration // between two health calls; 750 ms
	HealthTimeout    time.Duration // of one, before the process is looked at; 600 ms
	HealthDoubts     int           // that make a plugin frozen: 1 for a timeout while busy, 3 while asleep; 6
	SilentAfter      time.Duration // without an answer a plugin is frozen, whatever it does; 15 s
	StallAfter       time.Duration // without reading its stream a plugin hangs; 30 s
	AnswerTimeout    time.Duration // of a sampler; 10 s
	StopTimeout      time.Duration // from being asked to end to being killed; 1 s
	BackoffMin       time.Duration // of the second attempt in a row; 100 ms
	BackoffMax       time.Duration // 10 s
	StableAfter      time.Duration // running this long forgets earlier failures; 10 s
	Restarts         int           // within RestartWindow before a plugin is given up; 10
	RestartWindow    time.Duration // 60 s
}

func (p Pace) withDefaults() Pace {
	d := Pace{
		StartTimeout: 5 * time.Second, ConfigureTimeout: 10 * time.Second, DetectTimeout: 2500 * time.Millisecond,
		HealthInterval: 750 * time.Millisecond, HealthTimeout: 600 * time.Millisecond, HealthDoubts: 6,
		SilentAfter: 15 * time.Second, StallAfter: 30 * time.Second,
		AnswerTimeout: 10 * time.Second, StopTimeout: time.Second,
		BackoffMin: 100 * time.Millisecond, BackoffMax: 10 * time.Second, StableAfter: 10 * time.Second,
		Restarts: 10, RestartWindow: time.Minute,
	}
	return Pace{
		cmp.Or(p.StartTimeout, d.StartTimeout), cmp.Or(p.ConfigureTimeout, d.ConfigureTimeout), cmp.Or(p.DetectTimeout, d.DetectTimeout),
		cmp.Or(p.HealthInterval, d.HealthInterval), cmp.Or(p.HealthTimeout, d.HealthTimeout), cmp.Or(p.HealthDoubts, d.HealthDoubts),
		cmp.Or(p.SilentAfter, d.SilentAfter), cmp.Or(p.StallAfter, d.StallAfter),
		cmp.Or(p.AnswerTimeout, d.AnswerTimeout), cmp.Or(p.StopTimeout, d.StopTimeout),
		cmp.Or(p.BackoffMin, d.BackoffMin), cmp.Or(p.BackoffMax, d.BackoffMax), cmp.Or(p.StableAfter, d.StableAfter),
		cmp.Or(p.Restarts, d.Restarts), cmp.Or(p.RestartWindow, d.RestartWindow),
	}
}

// Host runs plugins. It is safe for concurrent use.
type Host struct {
	opts Options
	pace Pace
	log  *slog.Logger
	// watcher tells when what plugins may use changes.
	watcher *watch.Watcher
	forker  *forker
	groups  *cgroups // nil: none
	// shared says why plugins share the host's root directory; nil: each gets its own.
	shared    atomic.Pointer[noRootError]
	dir       string   // of the instances' sockets
	temporary string   // to be removed at the end; "": none
	lock      *os.File // nil: dir is temporary

	cleaning sync.WaitGroup // instances being cleaned up after

	mu      sync.Mutex
	plugins []*Plugin
	using   sync.WaitGroup // sessions and plugins, which use the forker
	stopped bool
}

// New prepares a host: its directories, and the end of what an earlier host left
// behind. It starts one thread; Stop ends it.
func New(o Options) (*Host, error) {
	h := &Host{opts: o, pace: o.Pace.withDefaults(), log: o.Log, watcher: watch.New(o.Log)}
	if err := h.makeDir(); err != nil {
		return nil, err
	}
	if !o.NoCgroups {
		mounts, err := findHierarchies()
		if o.CgroupMount != "" {
			mounts.unified = o.CgroupMount
		}
		if err == nil {
			h.groups, err = newCgroups(mounts)
		}
		if err != nil {
			h.log.Info("plugins have no control group of their own: what they start may outlive them", "reason", err)
		}
	}
	h.forker = newForker()
	if os.Geteuid() != 0 {
		h.shared.Store(&noRootError{errors.New("the daemon is not root")})
	}
	return h, nil
}

// makeDir makes the directory for sockets and takes it for this host alone.
func (h *Host) makeDir() error {
	if h.opts.RuntimeDir == "" {
		// A socket's path is short: a long TMPDIR leaves no room for it.
		where := os.TempDir()
		if len(where) > 40 {
			where = "/tmp"
		}
		dir, err := os.MkdirTemp(where, "ebpf-tracer-")
		if err != nil {
			return fmt.Errorf("make a runtime directory: %w", err)
		}
		h.dir, h.temporary = dir, dir
		return nil
	}
	h.dir = h.opts.RuntimeDir
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return fmt.Errorf("make a runtime directory: %w", err)
	}
	// It is emptied below: a directory that no host has made is somebody's.
	if err := errors.Join(alone(h.dir), h.ownDir()); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(h.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the runtime directory: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.Join(fmt.Errorf("%s is used by another daemon: stop it, or set another path in api { socket = ... }", h.dir), lock.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock the runtime directory: %w", err), lock.Close())
	}
	h.lock = lock
	old, err := os.ReadDir(h.dir)
	if err != nil {
		return errors.Join(fmt.Errorf("clear the runtime directory: %w", err), lock.Close())
	}
	for _, e := range old {
		if e.Name() != lockName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.dir, e.Name())))
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("clear the runtime directory: %w", err), lock.Close())
	}
	return nil
}

// alone refuses a runtime directory that somebody else could change, or has chosen.
func alone(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at the runtime directory: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is to hold plugins' sockets, and is not a directory that only this user can write to: take it away, or set another path in api { socket = ... }", dir)
	}
	return nil
}

// ownDir checks that the runtime directory is empty or has the lock of a host.
func (h *Host) ownDir() error {
	if _, err := os.Lstat(filepath.Join(h.dir, lockName)); err == nil {
		return nil
	}
	found, err := os.ReadDir(h.dir)
	if err != nil {
		return fmt.Errorf("read the runtime directory: %w", err)
	}
	for _, f := range found {
		if f.Name() != lockName { // of a host that starts at this moment
			return fmt.Errorf("%s holds what no daemon has put there, such as %s: move it away, or set another path in api { socket = ... }", h.dir, f.Name())
		}
	}
	return nil
}

// logLevel is the least level of the daemon's log, which plugins follow.
func (h *Host) logLevel(ctx context.Context) string {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if h.log.Enabled(ctx, l) {
			return l.String()
		}
	}
	return slog.LevelError.String()
}

// use keeps the host's thread while something uses it. It fails once Stop has
// begun.
func (h *Host) use() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return errStopped
	}
	h.using.Add(1)
	return nil
}

// Stop ends all plugins in parallel, and the host. It waits for ctx at most: what
// has not ended then is killed by the kernel when the daemon ends, and the error
// names it. Sessions must be closed first.
func (h *Host) Stop(ctx context.Context) error {
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		return nil
	}
	h.stopped = true
	plugins := slices.Clone(h.plugins)
	h.mu.Unlock()
	for _, p := range plugins {
		p.cancel()
	}
	ended := make(chan error, 1)
	go func() {
		h.using.Wait()
		h.cleaning.Wait()
		h.forker.stop()
		ended <- errors.Join(h.watcher.Close(), h.removeDirs())
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	var left []error
	for _, p := range plugins {
		select {
		case <-p.done:
		default:
			left = append(left, fmt.Errorf("stop plugin %s: %w", p.id, ctx.Err()))
		}
	}
	if left == nil {
		left = append(left, fmt.Errorf("clean up after plugins: %w", ctx.Err()))
	}
	return errors.Join(left...)
}

func (h *Host) removeDirs() error {
	var err error
	if h.groups != nil {
		err = h.groups.close()
	}
	if h.temporary != "" {
		err = errors.Join(err, os.RemoveAll(h.temporary))
	}
	if h.lock != nil {
		err = errors.Join(err, h.lock.Close())
	}
	return err
}

// stateDir is a plugin's own directory.
func (h *Host) stateDir(e Entry) (string, error) {
	if h.opts.StateDir == "" {
		return "", nil
	}
	dir := filepath.Join(h.opts.StateDir, string(e.Manifest.Kind), e.Manifest.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make the plugin's state directory: %w", err)
	}
	return dir, nil
}

// Status is a snapshot of every plugin, in the order in which they were started.
func (h *Host) Status() []Status {
	h.mu.Lock()
	plugins := slices.Clone(h.plugins)
	h.mu.Unlock()
	all := make([]Status, 0, len(plugins))
	for _, p := range plugins {
		all = append(all, p.Status())
	}
	return all
}

// Session is a process of a plugin that is only asked: it is not supervised and
// never configured. One goroutine uses it.
type Session struct {
	inst *instance
	out  *output
}

// Open starts a plugin to be asked, with no rights at all. Close must follow.
func (h *Host) Open(ctx context.Context, e Entry) (*Session, error) {
	return h.open(ctx, e, asked(e))
}

func (h *Host) open(ctx context.Context, e Entry, how start) (*Session, error) {
	if err := h.use(); err != nil {
		return nil, err
	}
	out := &output{log: h.log.With("plugin", e.String())}
	i, err := h.launch(ctx, how, out, h.pace.StartTimeout)
	if err != nil {
		h.using.Done()
		return nil, withLastWords(fmt.Errorf("start plugin %s: %w", e, err), out)
	}
	return &Session{inst: i, out: out}, nil
}

// Describe reads the plugin's schema, and keeps it if the host keeps schemas. It
// fails when plugin and manifest disagree.
func (s *Session) Describe(ctx context.Context) (Description, error) {
	h, e := s.inst.host, s.inst.entry
	ctx, cancel := context.WithTimeout(ctx, h.pace.ConfigureTimeout)
	defer cancel()
	d, raw, err := s.inst.describe(ctx)
	if err != nil {
		return d, withLastWords(fmt.Errorf("plugin %s: %w", e, err), s.out)
	}
	if _, known := h.Described(e); !known && e.Bundle != nil {
		if err := h.opts.Schemas.Put(e.Bundle.Digest, raw); err != nil {
			h.log.Warn("a plugin's schema can't be kept: the plugin is asked each time", "plugin", e.String(), "error", err)
		}
	}
	return d, nil
}

// Validate lets the plugin check a configuration, which must follow its schema.
func (s *Session) Validate(ctx context.Context, conf []byte) (diag.Diagnostics, error) {
	ctx, cancel := context.WithTimeout(ctx, s.inst.host.pace.ConfigureTimeout)
	defer cancel()
	ds, err := s.inst.validate(ctx, conf)
	if err != nil {
		return nil, withLastWords(fmt.Errorf("plugin %s: %w", s.inst.entry, err), s.out)
	}
	return ds, nil
}

// Close ends the process.
func (s *Session) Close() {
	s.inst.stop(s.inst.host.pace.StopTimeout, false)
	s.inst.host.using.Done()
}

// Described is what the plugin of these files, which must have been taken, said
// before; false: it is not kept.
func (h *Host) Described(e Entry) (Description, bool) {
	if e.Bundle == nil {
		return Description{}, false
	}
	raw := h.opts.Schemas.Get(e.Bundle.Digest)
	if raw == nil {
		return Description{}, false
	}
	d, err := described(e, raw)
	return d, err == nil
}

// Describe is what is kept of a plugin's description, or Open, Describe and Close.
func (h *Host) Describe(ctx context.Context, e Entry) (Description, error) {
	if d, ok := h.Described(e); ok {
		return d, nil
	}
	s, err := h.Open(ctx, e)
	if err != nil {
		return Description{}, err
	}
	defer s.Close()
	return s.Describe(ctx)
}

// wireKind is a kind as messages have it.
func wireKind(k config.PluginKind) protov1.Kind {
	switch k {
	case config.Discoverer:
		return protov1.Kind_KIND_DISCOVERER
	case config.Mesh:
		return protov1.Kind_KIND_MESH
	case config.Sampler:
		return protov1.Kind_KIND_SAMPLER
	}
	return protov1.Kind_KIND_UNSPECIFIED
}

// withLastWords adds what a plugin wrote last to an error about it.
func withLastWords(err error, out *output) error {
	words := out.lastWords()
	if words == "" {
		return err
	}
	return fmt.Errorf("%w; it wrote last: %s", err, words)
}
