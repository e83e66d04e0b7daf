package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

// lockName is the file whose lock its holder needs to change the store.
const lockName = ".lock"

// lockPatience is how long another process may take for a change.
const lockPatience = 30 * time.Second

// Store is a directory of bundles. Several stores, of several processes too, may
// be open on one directory at a time; a Store is safe for concurrent use.
type Store struct {
	dir    string   // absolute, without symbolic links; "": nothing is copied
	root   *os.Root // nil: nothing is copied
	owners trust.Owners
	log    *slog.Logger
}

// Open opens the store in dir, made if it is not there, and removes what nobody has
// used for long. Only the user of this process may be able to write there.
// dir "" is a store that copies nothing: files are opened and hashed where they
// are, for who is not root and could protect no copy. Close must follow.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Store, error) {
	owners, err := trust.Daemon()
	if err != nil {
		return nil, err
	}
	s := &Store{owners: owners, log: log}
	if dir == "" {
		return s, nil
	}
	if err := s.open(dir); err != nil {
		return nil, fmt.Errorf("open the store of plugins: %w", err)
	}
	if err := s.collect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("clear the store of plugins: %w", err), s.Close())
	}
	return s, nil
}

// Close closes the store. The bundles that it gave stay as they are.
func (s *Store) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

func (s *Store) open(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%w: the daemon keeps plugins there", err)
	}
	var err error
	if s.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if s.dir, err = filepath.EvalSymlinks(s.dir); err != nil {
		return err
	}
	if err := protected(s.dir); err != nil {
		return err
	}
	if s.root, err = os.OpenRoot(s.dir); err != nil {
		return err
	}
	err = func() error {
		st, err := s.root.Stat(".")
		if err != nil {
			return err
		}
		if err := own(st, s.dir); err != nil {
			return err
		}
		// For those without rights of their own it is open, whatever the umask.
		if st.Mode().Perm() != 0o755 {
			if err := s.root.Chmod(".", 0o755); err != nil {
				return err
			}
		}
		return executable(s.dir)
	}()
	if err != nil {
		return errors.Join(err, s.root.Close())
	}
	return nil
}

// own refuses what is not this user's alone.
func own(st fs.FileInfo, path string) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s does not belong to user %d, who runs this: nothing is kept there; take it away, or: chown %d %s", path, os.Geteuid(), os.Geteuid(), path)
	}
	if perm := st.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others can write to %s (mode %04o): nothing is kept there; take that away with: chmod go-w %s", path, perm, path)
	}
	return nil
}

// protected refuses a directory that others could put another one in place of.
func protected(dir string) error {
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		st, err := os.Lstat(up)
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || sys.Uid != 0 && sys.Uid != uint32(os.Geteuid()) {
			return fmt.Errorf("%s belongs to user %d, who could replace %s: nothing is kept there", up, sys.Uid, dir)
		}
		// In a sticky directory, as /tmp, others can't touch what is not theirs.
		if st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("others can write to %s (mode %04o) and so replace %s: nothing is kept there; take that away with: chmod go-w %s", up, st.Mode().Perm(), dir, up)
		}
		if up == filepath.Dir(up) {
			return nil
		}
	}
}

// executable refuses a file system from which nothing can be run.
func executable(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look up the file system of %s: %w", dir, err)
	}
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%s is on a file system mounted noexec, and plugins are run from there: mount one with exec at that directory", dir)
	}
	return nil
}

// lock takes the store for a change, until the returned file is closed.
func (s *Store) lock(ctx context.Context) (*os.File, error) {
	f, err := s.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock the store: %w", err), f.Close())
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock the store %s, which another process is changing: %w", s.dir, ctx.Err()), f.Close())
		}
	}
}
