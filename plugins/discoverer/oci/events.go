package main

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// What is watched of a directory: entries that come and go whole, files that were
// written, and its own end.
const (
	watchRoot      = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	watchContainer = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
)

// watch has changes told. What can't be watched is looked at again and again.
func (t *tracker) watch(path string, mask uint32, of target) int32 {
	if t.watcher == nil {
		return -1
	}
	wd, err := t.watcher.watch(path, mask, of)
	gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) // and something else may be there
	if err == nil || gone {
		return wd
	}
	if t.blind = true; !t.warned {
		t.warned = true
		t.log.Warn("something can't be watched, and is looked at every second instead; fs.inotify.max_user_watches may be too low", "error", err)
	}
	return wd
}

// unwatch ends a watch.
func (t *tracker) unwatch(wd *int32) {
	if t.watcher != nil && *wd >= 0 {
		t.watcher.forget(*wd)
	}
	*wd = -1
}

// facts takes a batch of what the host tells, after all that happened to files before.
func (t *tracker) facts(batch *protov1.HostFacts) error {
	if err := t.appear(); err != nil {
		return err
	}
	if err := t.drain(); err != nil {
		return err
	}
	for _, f := range batch.GetFacts() {
		if c := f.GetCgroup(); c != nil {
			if err := t.fact(c); err != nil {
				return err
			}
		}
	}
	return t.lookInto()
}

// catchUp takes all that happened to files, and looks at what it was.
func (t *tracker) catchUp() error {
	if err := t.drain(); err != nil {
		return err
	}
	return t.lookInto()
}

// lookInto answers for the cgroups whose time is up and then looks at what happened:
// after a pause there may be many states to read, and cgroups whose events are not held
// for as long as that takes.
func (t *tracker) lookInto() error {
	now := time.Now()
	if at := t.due(); !at.IsZero() && !at.After(now) {
		if err := t.settle(now); err != nil {
			return err
		}
	}
	if err := t.work(); err != nil {
		return err
	}
	return t.settleNews()
}

// drain takes all that happened to files.
func (t *tracker) drain() error {
	lost := t.blind
	if t.watcher != nil {
		l, err := t.watcher.drain(t.happened)
		if err != nil {
			return err
		}
		lost = lost || l
	}
	if lost {
		return t.compare()
	}
	return nil
}

// settleNews answers for cgroups if something became known.
func (t *tracker) settleNews() error {
	if !t.claims.news {
		return nil
	}
	return t.settle(time.Now())
}

// happened takes one change of a file or directory.
func (t *tracker) happened(e event) error {
	switch {
	case e.cgroup:
		t.need(e.container, feel)
		return nil
	case e.container != nil:
		return t.happenedIn(e)
	case e.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
		return t.vanished(e.root)
	case !validID(e.name) || e.mask&unix.IN_ISDIR == 0:
		return nil
	}
	came := e.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0
	switch {
	case e.root.parent && came:
		t.namespace(e.root, e.name)
	case e.root.parent:
		if in := e.root.inner[e.name]; in != nil {
			delete(e.root.inner, e.name)
			return t.shut(in)
		}
	case came:
		t.found(e.root, e.name)
	default:
		if c := t.containers[key{e.root, e.name}]; c != nil {
			return t.end(c)
		}
	}
	return nil
}

// happenedIn takes a change in a container's directory.
func (t *tracker) happenedIn(e event) error {
	c := e.container
	switch e.name {
	case startFifo:
		if e.mask&unix.IN_DELETE != 0 && c.unfifoed == 0 {
			c.unfifoed = time.Now().UnixNano()
		}
		t.need(c, feel)
	case stateFile, statusFile, configFile, youkiFile:
		if e.mask&(unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE) != 0 {
			t.need(c, read)
		}
	}
	return nil
}
