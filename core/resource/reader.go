package resource

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// mostOpen is how many files are kept open. To read one that is open takes a quarter of
	// the time that opening, reading and closing it takes; but the kernel keeps 4.4 KiB
	// for each that has been read, so that the files of 1,000 containers would hold about
	// 60 MiB. These hold 4.5.
	mostOpen = 1024

	firstBuffer = 16 << 10
	mostBuffer  = 1 << 20 // a file that is larger than that is read in part
)

// What stands for a file that is not open.
const (
	closed  = -1
	missing = -2 // it is not there; it is looked for when all files are read
)

// errGone says that a container's control groups are gone.
var errGone = errors.New("the control groups are gone")

// reader reads the files of containers, one at a time, into one buffer. It allocates
// nothing for a file.
type reader struct {
	layout *Hierarchies
	open   int // files that are kept open
	most   int
	failed uint64 // files that were there and could not be read
	buffer []byte
	path   []byte
	next   Usage // that is being read
}

func newReader(h *Hierarchies) *reader {
	r := &reader{layout: h, most: mostOpen, buffer: make([]byte, firstBuffer)}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		r.most = int(min(uint64(r.most), limit.Cur/4)) // the rest is the daemon's
	}
	return r
}

// source is one container's files.
type source struct {
	groups
	fds []int32 // one for each of the layout's files; nil: nothing was read yet
}

// read reads the files of a container into u, with all: also those that change seldom.
// keep allows it to keep them open. errGone: the container's groups are not there any
// more, and u is as it was before.
func (r *reader) read(s *source, u *Usage, all, keep bool, now time.Time) error {
	if s.none() {
		return errGone
	}
	if s.fds == nil {
		s.fds = make([]int32, len(r.layout.files))
		for i := range s.fds {
			s.fds[i] = closed
		}
		all = true
	}
	next := &r.next
	*next = *u
	next.from = 0
	if next.has &= kept; all {
		next.has &= ofNetwork
	}
	for i := range r.layout.files {
		f := &r.layout.files[i]
		if f.seldom && !all || s.fds[i] == missing && !all {
			continue
		}
		b, err := r.file(s, i, keep && !f.seldom)
		switch {
		case errors.Is(err, unix.ENODEV): // an open file of a group that was removed
			return errGone
		case isMissing(err):
			continue
		case err != nil:
			r.failed++
			continue
		}
		f.parse(b, next)
		if f.v1 {
			next.from |= v1
		} else {
			next.from |= v2
		}
	}
	if next.from == 0 {
		return errGone
	}
	next.time = now.UnixNano()
	*u = *next
	return nil
}

// file reads one file. The bytes are valid until the next call.
func (r *reader) file(s *source, i int, keep bool) ([]byte, error) {
	fd := int(s.fds[i])
	if fd < 0 {
		var err error
		if fd, err = r.openFile(s, i); err != nil {
			if s.fds[i] = closed; isMissing(err) {
				s.fds[i] = missing
			}
			return nil, err
		}
		s.fds[i] = closed
		if keep && r.open < r.most {
			s.fds[i] = int32(fd)
			r.open++
		}
	}
	b, err := r.content(fd)
	if s.fds[i] != int32(fd) {
		err = errors.Join(err, unix.Close(fd))
	}
	if isMissing(err) { // stalls that the kernel was told not to account
		r.closeFile(s, i)
		s.fds[i] = missing
	}
	return b, err
}

// isMissing says that a file is not there, or is but has nothing to say on this host.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)
}

func (r *reader) openFile(s *source, i int) (int, error) {
	f := &r.layout.files[i]
	mount, group := r.layout.v2, s.v2
	if f.v1 {
		mount, group = r.layout.v1[f.controller].dir, s.v1[f.controller]
	}
	if group == "" {
		return 0, unix.ENOENT
	}
	r.path = append(r.path[:0], mount...)
	r.path = append(r.path, group...)
	r.path = append(r.path, '/')
	r.path = append(r.path, f.name...)
	r.path = append(r.path, 0)
	here := unix.AT_FDCWD
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(here), uintptr(unsafe.Pointer(&r.path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// content reads an open file from its beginning, in one go: the kernel writes it anew
// for each.
func (r *reader) content(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, r.buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n == len(r.buffer) && n < mostBuffer:
			r.buffer = make([]byte, 2*n)
		default:
			return r.buffer[:n], nil
		}
	}
}

func (r *reader) closeFile(s *source, i int) {
	if fd := s.fds[i]; fd >= 0 {
		_ = unix.Close(int(fd)) // of a file that was only read
		r.open--
	}
	s.fds[i] = closed
}

// free closes what is open of a container.
func (r *reader) free(s *source) {
	for i := range s.fds {
		r.closeFile(s, i)
	}
	s.fds = nil
}

// status is what /proc says of the control groups of a process, "" for none.
func status(proc string, pid uint32) string {
	if pid == 0 {
		return ""
	}
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/cgroup", proc, pid))
	if err != nil {
		return ""
	}
	return string(b)
}
