package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/trust"
)

// read fills in the sums of the sources and returns the program, open.
func (s *Store) read(ctx context.Context, f Files, parts []part) (*os.File, error) {
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return nil, fmt.Errorf("open plugin directory: %w", err)
	}
	defer root.Close()
	h := hashing{ctx: ctx}
	var opened *os.File
	for i := range parts {
		p := &parts[i]
		if p.role == manifest {
			sum := sha256.Sum256(p.text)
			p.sum = hex.EncodeToString(sum[:])
			continue
		}
		src, err := s.source(root, f.Dir, p)
		if err == nil {
			if p.sum, err = h.file(src, io.Discard); err == nil && p.role == program {
				opened = src
				continue
			}
			err = errors.Join(err, src.Close())
		}
		if err != nil {
			if opened != nil {
				err = errors.Join(err, opened.Close())
			}
			return nil, err
		}
	}
	return opened, nil
}

// source opens and judges one file.
func (s *Store) source(root *os.Root, dir string, p *part) (*os.File, error) {
	if !p.outside {
		return s.owners.Open(root, dir, p.name)
	}
	// Of an interpreter the caller has followed the distribution's links.
	parent, err := os.OpenRoot(filepath.Dir(p.name))
	if err != nil {
		return nil, fmt.Errorf("open the directory of %s: %w", p.name, err)
	}
	defer parent.Close()
	return s.owners.Open(parent, filepath.Dir(p.name), filepath.Base(p.name))
}

// hashing hashes the files of one bundle within its limits.
type hashing struct {
	ctx   context.Context
	total int64
}

// file hashes a whole file and writes it to to. trust.ErrChanged says that it was
// written to meanwhile.
func (h *hashing) file(f *os.File, to io.Writer) (string, error) {
	before, err := f.Stat()
	if err != nil {
		return "", err
	}
	if before.Size() > maxFile {
		return "", fmt.Errorf("%s has %d bytes: a file of a plugin has at most %d", f.Name(), before.Size(), maxFile)
	}
	if h.total += before.Size(); h.total > maxTotal {
		return "", fmt.Errorf("with %s the files of the plugin have %d bytes: they may have %d in all", f.Name(), h.total, maxTotal)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(sum, to), io.LimitReader(reader{h.ctx, f}, before.Size()+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	after, err := f.Stat()
	if err != nil {
		return "", err
	}
	if n != before.Size() || changed(before, after) {
		return "", fmt.Errorf("read %s: %w", f.Name(), trust.ErrChanged)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// changed tells whether a file was written to between two looks. A kernel whose
// file times are coarse can miss it; the hash is then still that of what was read.
func changed(before, after fs.FileInfo) bool {
	a, b := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	return a.Size != b.Size || a.Mtim != b.Mtim || a.Ctim != b.Ctim
}

// reader reads until a context is done.
type reader struct {
	ctx  context.Context
	from io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(b)
}
