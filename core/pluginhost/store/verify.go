package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// stored is openStored for who has not locked the store. It may fail because
// another process is just copying the bundle anew.
func (s *Store) stored(ctx context.Context, parts []part, opened *os.File) (*Bundle, error) {
	lock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	held, err := s.hold(digest(parts))
	if err = errors.Join(err, lock.Close()); err != nil {
		if held != nil {
			err = errors.Join(err, held.Close())
		}
		return nil, err
	}
	return s.whole(ctx, parts, opened, held)
}

// openStored opens a bundle and hashes what it opened. fs.ErrNotExist says that it
// is not there; another error, unless ctx is done, that it is not what it should
// be. An interpreter is taken from opened. The store is locked.
func (s *Store) openStored(ctx context.Context, parts []part, opened *os.File) (*Bundle, error) {
	held, err := s.hold(digest(parts))
	if err != nil {
		return nil, err
	}
	return s.whole(ctx, parts, opened, held)
}

// hold opens a bundle's directory so that collect leaves it. The store is locked:
// else it could be removed between the two steps.
func (s *Store) hold(name string) (*os.File, error) {
	held, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(held.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("hold stored plugin %s: %w", name, err), held.Close())
	}
	return held, nil
}

// whole makes a bundle of a directory that is held, if it is what it should be.
func (s *Store) whole(ctx context.Context, parts []part, opened, held *os.File) (*Bundle, error) {
	name := digest(parts)
	opened, err := s.verify(ctx, name, parts, opened, held)
	if err == nil {
		err = s.root.Chtimes(name, time.Time{}, time.Now()) // for collect
	}
	if err != nil {
		// Without fs.ErrNotExist: it is there, though something in it may be missing.
		return nil, errors.Join(fmt.Errorf("%v", err), held.Close())
	}
	return newBundle(filepath.Join(s.dir, name), opened, held, parts), nil
}

// verify holds a stored bundle against parts, and returns the program, open.
func (s *Store) verify(ctx context.Context, name string, parts []part, opened, held *os.File) (_ *os.File, err error) {
	dir, err := s.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at := filepath.Join(s.dir, name)
	locked, err := held.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := dir.Stat("."); err != nil || !os.SameFile(locked, now) {
		return nil, errors.Join(err, fmt.Errorf("%s was replaced at this moment", at))
	}
	if err := listed(dir, at, parts); err != nil {
		return nil, err
	}
	h := hashing{ctx: ctx}
	given := opened
	defer func() {
		if err != nil && opened != given {
			err = errors.Join(err, opened.Close())
		}
	}()
	for _, p := range parts {
		if p.outside {
			continue
		}
		path := filepath.Clean(p.name)
		f, err := dir.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		err = h.expect(f, p, filepath.Join(at, path))
		if p.role == program {
			opened = f
		} else {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return nil, err
		}
	}
	return opened, nil
}

// listed makes sure that a bundle has its files and directories and nothing else,
// which an interpreter might find there.
func listed(dir *os.Root, at string, parts []part) error {
	missing := map[string]fs.FileMode{".": fs.ModeDir | 0o755}
	for _, p := range parts {
		if p.outside {
			continue
		}
		path := filepath.Clean(p.name)
		missing[path] = p.role.mode()
		for up := filepath.Dir(path); up != "."; up = filepath.Dir(up) {
			missing[up] = fs.ModeDir | 0o755
		}
	}
	err := fs.WalkDir(dir.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		full := filepath.Join(at, path)
		mode, ok := missing[path]
		if !ok {
			return fmt.Errorf("%s does not belong there", full)
		}
		delete(missing, path)
		st, err := dir.Lstat(path)
		if err != nil {
			return err
		}
		if st.Mode() != mode {
			return fmt.Errorf("%s is %v, and was %v", full, st.Mode(), mode)
		}
		return own(st, full)
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%s is missing", filepath.Join(at, slices.Sorted(maps.Keys(missing))[0]))
	}
	return err
}

// expect hashes a stored file.
func (h *hashing) expect(f *os.File, p part, path string) error {
	sum, err := h.file(f, io.Discard)
	if err == nil && sum != p.sum {
		err = fmt.Errorf("%s has sha256:%s, and was stored as sha256:%s", path, sum, p.sum)
	}
	return err
}
