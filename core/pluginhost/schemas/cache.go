// Package schemas keeps what plugins said of themselves, under the hash of the files
// that said it, so that a plugin need not be run to be asked again.
//
// Like the programs themselves, what is kept decides what a configuration may hold,
// so only who could replace the daemon may write it: what another user could have
// written, what is damaged and what another version wrote counts as not there, and
// is written anew. The cache owns its directory; losing it loses nothing but time.
package schemas

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// format begins every file, before the sum of what follows it. Another version of
// this program that reads or writes files otherwise has another one.
const format = "ebpf-tracer description 1\n"

// keepMost descriptions are kept, those written last.
const keepMost = 64

// unfinished begins the names of files that are being written.
const unfinished = ".new-"

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Cache is a directory of descriptions. It is safe for concurrent use, by several
// processes too. A nil Cache keeps nothing.
type Cache struct {
	root  *os.Root
	owner uint32
}

// Open opens the cache in dir, which is made if it is not there. Only this
// process's user may be able to write to dir. Close must follow.
func Open(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the cache of plugins' schemas: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the cache of plugins' schemas: %w", err)
	}
	c := &Cache{root: root, owner: uint32(os.Geteuid())}
	st, err := root.Stat(".")
	if err == nil && !c.owned(st) {
		err = fmt.Errorf("others can write to %s: it is not used; remove it", dir)
	}
	if err == nil {
		err = c.collect()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the cache of plugins' schemas: %w", err), root.Close())
	}
	return c, nil
}

// Close closes the cache.
func (c *Cache) Close() error {
	if c == nil {
		return nil
	}
	return c.root.Close()
}

// Get is what the plugin with the files of that digest said; nil: it is not known.
func (c *Cache) Get(digest string) *protov1.DescribeResponse {
	if c == nil || !digestForm.MatchString(digest) {
		return nil
	}
	f, err := c.root.OpenFile(digest, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || !c.owned(st) {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(f, wire.MaxMessage+1<<10))
	if err != nil {
		return nil
	}
	rest, ok := bytes.CutPrefix(text, []byte(format))
	if !ok || len(rest) < sha256.Size {
		return nil
	}
	sum, body := [sha256.Size]byte(rest), rest[sha256.Size:]
	if sha256.Sum256(body) != sum {
		return nil
	}
	var d protov1.DescribeResponse
	if proto.Unmarshal(body, &d) != nil {
		return nil
	}
	return &d
}

// Put keeps what the plugin with the files of that digest said.
func (c *Cache) Put(digest string, d *protov1.DescribeResponse) (err error) {
	if c == nil {
		return nil
	}
	if !digestForm.MatchString(digest) {
		return fmt.Errorf("keep a plugin's schema: %q is no digest", digest)
	}
	body, err := proto.Marshal(d)
	if err != nil {
		return fmt.Errorf("keep a plugin's schema: %w", err)
	}
	// Whoever writes the same at the same time writes to a file of its own.
	temporary := fmt.Sprintf("%s%016x", unfinished, rand.Uint64())
	f, err := c.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep a plugin's schema: %w", err)
	}
	_, err = f.Write(sealed(body))
	err = errors.Join(err, f.Close())
	if err == nil {
		// What is there under the name, damaged or another's, goes.
		err = c.root.Rename(temporary, digest)
		if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EEXIST) {
			if err = c.root.RemoveAll(digest); err == nil {
				err = c.root.Rename(temporary, digest)
			}
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep a plugin's schema: %w", err), c.root.RemoveAll(temporary))
	}
	return nil
}

// sealed is what a file holds.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return slices.Concat([]byte(format), sum[:], body)
}

// owned tells whether only this process's user could have written a file.
func (c *Cache) owned(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Uid == c.owner && st.Mode().Perm()&0o022 == 0
}

// collect removes what was left unfinished for an hour, and of the others all but
// those written last.
func (c *Cache) collect() error {
	found, err := fs.ReadDir(c.root.FS(), ".")
	if err != nil {
		return err
	}
	type kept struct {
		name    string
		written time.Time
	}
	var all []kept
	for _, f := range found {
		st, err := f.Info()
		if err != nil {
			continue // it is gone
		}
		switch {
		case strings.HasPrefix(f.Name(), unfinished) && time.Since(st.ModTime()) > time.Hour:
			if err := c.root.RemoveAll(f.Name()); err != nil {
				return err
			}
		case digestForm.MatchString(f.Name()):
			all = append(all, kept{f.Name(), st.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b kept) int { return b.written.Compare(a.written) })
	for _, k := range all[min(len(all), keepMost):] {
		if err := c.root.RemoveAll(k.name); err != nil {
			return err
		}
	}
	return nil
}
