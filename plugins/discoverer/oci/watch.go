package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// watcher hears of changes of files and directories from the kernel. The kernel queues
// them before the call that makes a change returns: whoever learns of something that
// happened later, and drains the watcher then, has heard of all before it. One
// goroutine uses it, but for wait.
type watcher struct {
	file    *os.File
	targets map[int32]target // by watch descriptor
	buf     []byte
}

// target is what a watch is for: a root, the state of a container, or its cgroup.
type target struct {
	root      *root
	container *container
	cgroup    bool // the container's cgroup.events
}

// event is a change of what a target is, or of name in it.
type event struct {
	target
	name string
	mask uint32
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	return &watcher{file: os.NewFile(uintptr(fd), "inotify"), targets: map[int32]target{}, buf: make([]byte, 16<<10)}, nil
}

func (w *watcher) close() error { return w.file.Close() }

// watch has changes told that are in mask. What is watched already gets another target.
func (w *watcher) watch(path string, mask uint32, t target) (int32, error) {
	wd := int32(-1)
	var err error
	if e := w.control(func(fd int) {
		n, e := unix.InotifyAddWatch(fd, path, mask)
		wd, err = int32(n), e
	}); e != nil {
		return -1, e
	}
	if err != nil {
		return -1, &fs.PathError{Op: "watch", Path: path, Err: err}
	}
	w.targets[wd] = t
	return wd, nil
}

// forget ends a watch. One that the kernel has ended by itself is forgotten too.
func (w *watcher) forget(wd int32) {
	if _, ok := w.targets[wd]; !ok {
		return
	}
	delete(w.targets, wd)
	// What is gone has no watch any more.
	_ = w.control(func(fd int) { _, _ = unix.InotifyRmWatch(fd, uint32(wd)) })
}

func (w *watcher) control(f func(fd int)) error {
	c, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { f(int(fd)) })
}

// mostReads empty the kernel's queue of 16,384 changes of files with names of usual length.
const mostReads = 64

// drain gives all that has happened, in order, and of what happens meanwhile no more than
// so much: whoever changes files for ever must not keep it from an end. lost: the kernel
// dropped some.
func (w *watcher) drain(each func(event) error) (lost bool, err error) {
	for range mostReads {
		n := 0
		var readErr error
		if err := w.control(func(fd int) { n, readErr = unix.Read(fd, w.buf) }); err != nil {
			return lost, fmt.Errorf("read what happened to files: %w", err)
		}
		switch {
		case errors.Is(readErr, unix.EAGAIN):
			return lost, nil
		case errors.Is(readErr, unix.EINTR):
			continue
		case readErr != nil:
			return lost, fmt.Errorf("read what happened to files: %w", readErr)
		}
		for b := w.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			name, _, _ := strings.Cut(string(b[unix.SizeofInotifyEvent:min(end, len(b))]), "\x00")
			b = b[min(end, len(b)):]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				lost = true
				continue
			}
			t, ok := w.targets[wd]
			if mask&unix.IN_IGNORED != 0 {
				delete(w.targets, wd)
			}
			if !ok {
				continue // of a watch that was ended since
			}
			if err := each(event{t, name, mask}); err != nil {
				return lost, err
			}
		}
	}
	return lost, nil
}

// wait sends on ready each time that there is something to drain, until stop is closed
// or the watcher is.
func (w *watcher) wait(ready chan<- struct{}, stop <-chan struct{}) {
	c, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := c.Read(func(fd uintptr) bool {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			return err != nil || n > 0
		})
		if err != nil {
			return // it is closed
		}
		select {
		case ready <- struct{}{}: // taken before the drain: it may be one too many
		case <-stop:
			return
		}
	}
}
