package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one process in /proc. What is read through it is of this very process,
// also when its pid is given to another meanwhile: then nothing can be read any more.
type process struct {
	name string // below /proc
	dir  int    // a descriptor of the directory
}

// errGone says that there is no such process (any more).
var errGone = fmt.Errorf("the process is gone: %w", fs.ErrNotExist)

// open gives a process, which has to be closed. The error is errGone, or wraps
// fs.ErrPermission when this daemon may not look.
func open(proc string, pid uint32) (*process, error) {
	return openName(proc, strconv.FormatUint(uint64(pid), 10))
}

func openName(proc, name string) (*process, error) {
	dir, err := openAt(unix.AT_FDCWD, filepath.Join(proc, name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, ofProcess(name, err)
	}
	return &process{name, dir}, nil
}

// openAt is openat, which a signal interrupts no more.
func openAt(dir int, name string, flags int) (fd int, err error) {
	for {
		if fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0); !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (p *process) close() error { return unix.Close(p.dir) }

// ofProcess wraps an error of reading a process.
func ofProcess(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return errGone
	}
	return fmt.Errorf("read process %s: %w", name, err)
}

// mostText bounds what is read of one file; those of the kernel are smaller.
const mostText = 1 << 20

func (p *process) read(name string) (string, error) {
	text, err := readAt(p.dir, name)
	if err != nil {
		return "", ofProcess(p.name, err)
	}
	return text, nil
}

// readAt reads a small file in as few calls as there can be: the kernel makes most
// files of a process anew for each.
func readAt(dir int, name string) (string, error) {
	fd, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	var first [2048]byte
	text := first[:0]
	for err == nil && len(text) < mostText {
		if len(text) == cap(text) {
			text = slices.Grow(text, cap(text))
		}
		var n int
		n, err = unix.Read(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, unix.EINTR):
			err = nil
			continue
		case n > 0:
			text = text[:len(text)+n]
			continue
		}
		break
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return "", err
	}
	return string(text), nil
}

// link reads one of the process's namespaces.
func (p *process) link(t Type) (string, error) {
	var text [64]byte
	for {
		n, err := unix.Readlinkat(p.dir, "ns/"+t.String(), text[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return string(text[:max(n, 0)]), err
	}
}

// namespaces of the process.
func (p *process) namespaces() (set Set, err error) {
	for t := range Types {
		link, err := p.link(t)
		if errors.Is(err, fs.ErrNotExist) && (t == Cgroup || t == Time) {
			var st unix.Stat_t
			if there := unix.Fstatat(p.dir, "ns/"+t.String(), &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(there, fs.ErrNotExist) {
				continue // an old kernel
			}
		}
		if err != nil {
			if _, gone := p.start(); gone != nil { // the kernel then tells of no permission
				err = gone
			}
			return set, ofProcess(p.name, err)
		}
		if set[t], err = parseLink(link, t); err != nil {
			return set, err
		}
	}
	return set, nil
}

// status is what /proc/PID/status tells.
type status struct {
	pids     []uint32 // in each of its pid namespaces, from the reader's to its own
	uid, gid uint32   // effective, in the reader's user namespace
}

func (p *process) status() (status, error) {
	text, err := p.read("status")
	if err != nil {
		return status{}, err
	}
	return parseStatus(text)
}

func parseStatus(text string) (s status, err error) {
	number := func(f []string, at int) uint32 {
		if at >= len(f) {
			err = errors.New("too few numbers")
			return 0
		}
		n, wrong := strconv.ParseUint(f[at], 10, 32)
		err = errors.Join(err, wrong)
		return uint32(n)
	}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		switch f := strings.Fields(rest); name {
		case "Uid":
			s.uid = number(f, 1) // after the real one
		case "Gid":
			s.gid = number(f, 1)
		case "NSpid":
			if s.pids != nil {
				break // one line is enough, whatever follows
			}
			for at := range f {
				s.pids = append(s.pids, number(f, at))
			}
		}
	}
	if err != nil {
		return status{}, fmt.Errorf("read the status of a process: %w", err)
	}
	return s, nil
}

// own is the pid in the innermost namespace; 0: not told.
func (s status) own() uint32 {
	if len(s.pids) == 0 {
		return 0
	}
	return s.pids[len(s.pids)-1]
}

// start is when the process was started, in clock ticks after boot: with the pid it is
// unique while the host is up.
func (p *process) start() (uint64, error) {
	text, err := p.read("stat")
	if err != nil {
		return 0, err
	}
	return parseStart(text)
}

// startOf is when a process was started that is not open: start at the price of three
// system calls.
func startOf(proc string, pid uint32) (uint64, error) {
	name := strconv.FormatUint(uint64(pid), 10)
	text, err := readAt(unix.AT_FDCWD, proc+"/"+name+"/stat")
	if err != nil {
		return 0, ofProcess(name, err)
	}
	return parseStart(text)
}

func parseStart(stat string) (uint64, error) {
	// The name, in parentheses, may itself hold spaces and parentheses.
	at := 0
	for field := range strings.FieldsSeq(stat[strings.LastIndexByte(stat, ')')+1:]) {
		if at++; at < 20 {
			continue
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the stat of a process: %w", err)
		}
		return n, nil
	}
	return 0, errors.New("read the stat of a process: it is too short")
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, 100 on every architecture
// that Go runs on.
const clockTick = 10 * time.Millisecond

// startedAt is the wall time of a start, as the clocks stand to one another now.
func startedAt(ticks uint64) (time.Time, error) {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Now().Add(time.Duration(ticks)*clockTick - time.Duration(boot.Nano())), nil
}

// maps of the process's user namespace, for user ids and for group ids, to the user
// namespace of this daemon, which is the host's.
func (p *process) maps() (uids, gids Map, err error) {
	for name, m := range map[string]*Map{"uid_map": &uids, "gid_map": &gids} {
		text, err := p.read(name)
		if err != nil {
			return nil, nil, err
		}
		if *m, err = parseMap(text); err != nil {
			return nil, nil, err
		}
	}
	return uids, gids, nil
}

// named tells whether the process is in a cgroup, of any hierarchy, that is named
// after a container's id or has a path.
func (p *process) named(id, path string) (bool, error) {
	text, err := p.read("cgroup")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(line, ":")
		_, at, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), ":")
		if path != "" && (at == path || strings.HasPrefix(at, path+"/")) {
			return true, nil
		}
		if slices.ContainsFunc(strings.Split(at, "/"), func(name string) bool { return isNamed(name, id) }) {
			return true, nil
		}
	}
	return false, nil
}

// isNamed tells whether a cgroup is named after a container: by its id, with ".scope"
// behind it or not, and, where the id is a long one, a word before it or not.
func isNamed(cgroup, id string) bool {
	before, ok := strings.CutSuffix(strings.TrimSuffix(cgroup, ".scope"), id)
	return ok && (before == "" || len(id) == 64 && strings.HasSuffix(before, "-"))
}
