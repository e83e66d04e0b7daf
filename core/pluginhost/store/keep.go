package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

// unfinished begins the names of bundles that are being made, or removed.
const unfinished = ".new-"

// copy copies the sources into the store. trust.ErrChanged says that they are no
// longer what parts says. The store is locked.
func (s *Store) copy(ctx context.Context, f Files, parts []part) (err error) {
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return fmt.Errorf("open plugin directory: %w", err)
	}
	defer root.Close()
	// The lock makes the name this process's alone.
	name := digest(parts)
	temporary := unfinished + name
	if err := s.root.RemoveAll(temporary); err != nil {
		return err
	}
	if err := s.root.Mkdir(temporary, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.root.RemoveAll(temporary))
		}
	}()
	into, err := s.root.OpenRoot(temporary)
	if err != nil {
		return err
	}
	defer into.Close()
	h := hashing{ctx: ctx}
	for i := range parts {
		p := &parts[i]
		if p.outside {
			continue
		}
		if err := s.copyPart(&h, root, into, f.Dir, p); err != nil {
			return err
		}
		if p.role == program {
			if err := s.share(ctx, temporary, *p); err != nil {
				return err
			}
		}
	}
	if now := digest(parts); now != name {
		return fmt.Errorf("copy: %w", trust.ErrChanged)
	}
	if err := finish(into); err != nil {
		return err
	}
	if err := s.root.Rename(temporary, name); err != nil {
		return err
	}
	return sync(s.root, ".")
}

// copyPart copies one file and fills in the sum of what was copied.
func (s *Store) copyPart(h *hashing, from, into *os.Root, dir string, p *part) (err error) {
	name := filepath.Clean(p.name)
	if err := into.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	to, err := into.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if p.role == manifest {
		_, err = to.Write(p.text)
	} else {
		var src *os.File
		if src, err = s.source(from, dir, p); err != nil {
			return err
		}
		defer src.Close()
		p.sum, err = h.file(src, to)
	}
	if err != nil {
		return err
	}
	// Now that all is written, whatever the umask.
	return errors.Join(to.Chmod(p.role.mode()), to.Sync())
}

// share has a program of a bundle that another bundle holds too be one file, whose pages
// all processes of both have in common: one program may be several plugins. Where that
// can't be, there are two. The store is locked.
func (s *Store) share(ctx context.Context, bundle string, p part) error {
	name := filepath.Join(bundle, filepath.Clean(p.name))
	mine, err := s.root.Lstat(name)
	if err != nil {
		return err
	}
	found, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, f := range found {
		if !bundleName.MatchString(f.Name()) {
			continue
		}
		twin := s.twin(ctx, f.Name(), mine, p.sum)
		if twin == "" {
			continue
		}
		link := name + ".link"
		if err := s.root.Link(twin, link); err != nil {
			s.log.Debug("a plugin's program can't be shared with another's", "stored", twin, "error", err)
			break
		}
		return s.root.Rename(link, name)
	}
	return ctx.Err()
}

// twin finds a file in a bundle that is the same as another in all that counts, by its
// path in the store; "": there is none, or what there is can't be told.
func (s *Store) twin(ctx context.Context, bundle string, mine fs.FileInfo, sum string) (path string) {
	h := hashing{ctx: ctx}
	_ = fs.WalkDir(s.root.FS(), bundle, func(at string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		theirs, err := d.Info()
		if err != nil || theirs.Size() != mine.Size() || theirs.Mode() != mine.Mode() || own(theirs, at) != nil {
			return err
		}
		f, err := s.root.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if st, err := f.Stat(); err != nil || !os.SameFile(st, theirs) {
			return err
		}
		if h.expect(f, part{sum: sum}, at) == nil {
			path = at
			return fs.SkipAll
		}
		return nil
	})
	return path
}

// finish makes directories what they are to be, and all of it lasting.
func finish(root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return errors.Join(root.Chmod(path, 0o755), sync(root, path))
	})
}

func sync(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
