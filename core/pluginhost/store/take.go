package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

// Limits of one bundle.
const (
	maxFile  = 512 << 20 // bytes of a file
	maxTotal = 1 << 30   // bytes of all
	maxFiles = 1024      // besides program and manifest
)

// Files are what a plugin consists of.
type Files struct {
	Dir string // of the manifest; absolute
	// Manifest is its name in Dir, ManifestText what was read of it: that is
	// what counts, whatever the file holds by now.
	Manifest     string
	ManifestText []byte
	// Program is relative to Dir, or the absolute path of an interpreter.
	Program string
	// Others are relative to Dir.
	Others []string
}

// Bundle is a plugin's files as they were hashed. It is read-only, and safe for
// concurrent use until Close.
type Bundle struct {
	// Program is what was hashed, open for reading: to run this file, and not
	// what is found at a path, is to run what was hashed.
	Program *os.File
	// Name is how Sums calls the program.
	Name string
	// Dir holds the copies, the plugin's working directory. Without a store it is
	// the directory of the manifest.
	Dir string
	// Digest is of all of it, in hexadecimal: the same for the same files.
	Digest string
	// Manifest is the manifest's SHA-256, Sums those of all others by their names
	// in Files, in hexadecimal.
	Manifest string
	Sums     map[string]string

	held *os.File     // the directory, locked against removal; nil: no store
	more atomic.Int32 // holders beyond the first
}

// Hold is for another user of the bundle, who closes it too: it is given back with the
// last Close.
func (b *Bundle) Hold() *Bundle {
	b.more.Add(1)
	return b
}

// Path of the program, to be shown: what to run is Program.
func (b *Bundle) Path() string {
	if filepath.IsAbs(b.Name) {
		return b.Name
	}
	return filepath.Join(b.Dir, b.Name)
}

// Close gives the bundle back. What runs from it goes on.
func (b *Bundle) Close() error {
	if b.more.Add(-1) >= 0 {
		return nil
	}
	err := b.Program.Close()
	if b.held != nil {
		err = errors.Join(err, b.held.Close())
	}
	return err
}

// part is one file of a bundle.
type part struct {
	name    string // as the manifest says it
	role    role
	text    []byte // the manifest's
	sum     string
	outside bool // an interpreter: it stays where it is
}

// role of a file in a bundle; it is part of the digest.
type role string

const (
	manifest role = "manifest"
	program  role = "program"
	other    role = "file"
)

// mode that a copy has.
func (r role) mode() fs.FileMode {
	if r == program {
		return 0o555
	}
	return 0o444
}

// Take hashes a plugin's files and gives them as a bundle that nobody else can
// change. Every source must be trusted, on every step of the way to it, and none
// is a symbolic link. When a source is replaced meanwhile, the old one or the new
// one is taken. Who writes into a source while it is being copied may get what is
// neither, but under its own hash, and unchanged from then on.
// fs.ErrNotExist says that a file is missing.
func (s *Store) Take(ctx context.Context, f Files) (*Bundle, error) {
	parts, err := f.parts()
	if err != nil {
		return nil, err
	}
	const tries = 10
	for n := 1; ; n++ {
		b, err := s.take(ctx, f, slices.Clone(parts))
		if err == nil {
			return b, nil
		}
		if n == tries || !errors.Is(err, trust.ErrChanged) {
			return nil, err
		}
		select {
		case <-time.After(time.Duration(n) * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// parts lists the files and refuses a list that is no bundle.
func (f Files) parts() ([]part, error) {
	if len(f.Others) > maxFiles {
		return nil, fmt.Errorf("%s names %d files, which are more than %d: pack them into one", filepath.Join(f.Dir, f.Manifest), len(f.Others), maxFiles)
	}
	all := []part{{name: f.Manifest, role: manifest, text: f.ManifestText}, {name: f.Program, role: program, outside: filepath.IsAbs(f.Program)}}
	for _, n := range f.Others {
		all = append(all, part{name: n, role: other})
	}
	seen := map[string]bool{}
	for _, p := range all {
		clean := filepath.Clean(p.name)
		if !p.outside && !filepath.IsLocal(clean) || clean == "." {
			return nil, fmt.Errorf("%s: %q is outside of its directory: files of a plugin lie beside its manifest or below", filepath.Join(f.Dir, f.Manifest), p.name)
		}
		if seen[clean] {
			return nil, fmt.Errorf("%s: %q is named twice, or is the manifest itself: name it once", filepath.Join(f.Dir, f.Manifest), p.name)
		}
		seen[clean] = true
	}
	return all, nil
}

func (s *Store) take(ctx context.Context, f Files, parts []part) (*Bundle, error) {
	opened, err := s.read(ctx, f, parts)
	if err != nil {
		return nil, err
	}
	if s.root == nil {
		return newBundle(f.Dir, opened, nil, parts), nil
	}
	b, err := s.keep(ctx, f, parts, opened)
	if b == nil || b.Program != opened {
		err = errors.Join(err, opened.Close())
	}
	return b, err
}

// keep gives the stored bundle, and stores it before if it is not there.
func (s *Store) keep(ctx context.Context, f Files, parts []part, opened *os.File) (*Bundle, error) {
	// As a rule it is there and whole; to hash it, nobody else need wait.
	b, err := s.stored(ctx, parts, opened)
	if err == nil || ctx.Err() != nil {
		return b, err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	name, title := digest(parts), filepath.Join(f.Dir, f.Manifest)
	b, err = s.openStored(ctx, parts, opened)
	if err == nil || ctx.Err() != nil {
		return b, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("a stored plugin was altered: it is thrown away and copied anew", "plugin", title, "stored", filepath.Join(s.dir, name), "found", err)
		if err := s.remove(name); err != nil {
			return nil, fmt.Errorf("throw an altered plugin away: %w", err)
		}
	}
	if err := s.copy(ctx, f, parts); err != nil {
		return nil, fmt.Errorf("store plugin %s: %w", title, err)
	}
	if b, err = s.openStored(ctx, parts, opened); err != nil {
		return nil, fmt.Errorf("read plugin %s, which was just stored: %w", title, err)
	}
	return b, nil
}

func newBundle(dir string, opened, held *os.File, parts []part) *Bundle {
	b := &Bundle{Program: opened, Dir: dir, Digest: digest(parts), Sums: map[string]string{}, held: held}
	for _, p := range parts {
		switch p.role {
		case manifest:
			b.Manifest = p.sum
			continue
		case program:
			b.Name = p.name
		}
		b.Sums[p.name] = p.sum
	}
	return b
}

// digest is of all the parts: what they are called, are for and hold.
func digest(parts []part) string {
	lines := make([]string, len(parts))
	for i, p := range parts {
		name := p.name
		if !p.outside {
			name = filepath.Clean(name)
		}
		lines[i] = fmt.Sprintf("%s %s %q\n", p.sum, p.role, name)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte("ebpf-tracer bundle 1\n" + strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}
