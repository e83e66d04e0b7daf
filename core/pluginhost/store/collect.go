package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What is kept of bundles that nobody uses: they only save copying them again.
const (
	keepFor  = 30 * 24 * time.Hour
	keepMost = 16
)

// bundleName is what a bundle is called.
var bundleName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// collect removes what was left unfinished and the bundles that nobody uses: those
// not taken for long, and of the others all but the last ones. Those that any
// process has taken and not closed stay.
func (s *Store) collect(ctx context.Context) error {
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	found, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return err
	}
	type unused struct {
		name  string
		taken time.Time
	}
	var all []unused
	for _, f := range found {
		if strings.HasPrefix(f.Name(), unfinished) {
			err = errors.Join(err, s.root.RemoveAll(f.Name()))
		}
		if !bundleName.MatchString(f.Name()) {
			continue
		}
		st, e := s.root.Lstat(f.Name())
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		if used, e := s.used(f.Name()); e != nil || used {
			err = errors.Join(err, e)
			continue
		}
		all = append(all, unused{f.Name(), st.ModTime()})
	}
	slices.SortFunc(all, func(a, b unused) int { return b.taken.Compare(a.taken) })
	for i, u := range all {
		if i >= keepMost || time.Since(u.taken) > keepFor {
			s.log.Debug("a stored plugin that nobody uses is removed", "stored", u.name, "taken", u.taken)
			err = errors.Join(err, s.remove(u.name))
		}
	}
	return err
}

// used tells whether a process has a bundle. The store is locked, so that none
// takes it afterwards.
func (s *Store) used(name string) (bool, error) {
	dir, err := s.root.Open(name)
	if err != nil {
		return false, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	used := errors.Is(err, unix.EWOULDBLOCK)
	if used {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("look whether %s is in use: %w", name, err)
	}
	return used, errors.Join(err, dir.Close())
}

// remove removes a bundle. Half removed, it has a name that collect knows.
func (s *Store) remove(name string) error {
	temporary := unfinished + name
	return errors.Join(s.root.RemoveAll(temporary), s.root.Rename(name, temporary), s.root.RemoveAll(temporary))
}
