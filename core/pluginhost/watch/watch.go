// Package watch tells when something comes, goes or takes another's place at paths of
// the host, and when the entries of a directory there change.
//
// It exists so that sockets can be followed at once without asking for them all the
// time: the kernel tells (inotify) of names that come and go in the directories on the
// way to them. What the kernel does not tell, that a file system is mounted on the way,
// is found by a look every two seconds; where it can't be asked, a look every tenth of a
// second has to do.
//
// A Watcher owns its goroutines and its descriptor. It must never take the host's word
// for what is at a path: it only says that it is time to look.
package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/place"
)

const (
	// settle is how long a change is left alone, since one seldom comes alone: a
	// service makes its socket, and then gives it to its group.
	settle = 20 * time.Millisecond
	// pause is the least time between two looks, however much happens.
	pause = 50 * time.Millisecond
	// readPause is the least time between two reads of what the kernel tells.
	readPause = 5 * time.Millisecond
	// anyway is how often the places are looked at though nothing is told of them, and
	// untold the same where the kernel can't tell.
	anyway = 2 * time.Second
	untold = 100 * time.Millisecond
)

// events are what the kernel is asked to tell of a directory.
const events = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW

// Change is what happened at places.
type Change struct {
	// Another: something came, went, or took another's place, owner or mode. Else
	// entries of a directory changed.
	Another bool
}

// Watcher watches places. It is safe for concurrent use.
type Watcher struct {
	log *slog.Logger

	mu      sync.Mutex
	watches map[*Watch]struct{}
	closed  bool
	notify  *os.File // nil: not begun, or the kernel can't be asked
	// names that something is looked for by, of each directory that is watched, by the
	// kernel's number for it; "" is any name.
	names map[int]map[string]bool
	blind bool // the kernel can't tell of all
	said  bool // and that was logged

	stirred chan struct{} // something may have changed; buffered
	done    chan struct{}
	running sync.WaitGroup
}

// Watch is a set of places that is watched.
type Watch struct {
	watcher *Watcher
	places  []place.Place
	seen    []place.Found
	changed func(Change)
}

// New makes a watcher. It costs nothing until something is watched. Close must follow.
func New(log *slog.Logger) *Watcher {
	return &Watcher{log: log, watches: map[*Watch]struct{}{}, stirred: make(chan struct{}, 1), done: make(chan struct{})}
}

// Watch watches places until Close. changed is called, by a goroutine of the watcher,
// some time after each change since Watch was called; several changes in a row may be
// one call. It must not wait for anything, and calls nothing of this package.
func (w *Watcher) Watch(places []place.Place, changed func(Change)) *Watch {
	one := &Watch{watcher: w, places: places, changed: changed, seen: make([]place.Found, len(places))}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(places) == 0 {
		return one
	}
	if len(w.watches) == 0 {
		w.begin()
	}
	w.watches[one] = struct{}{}
	if w.look(one); w.blind {
		w.stir() // looks follow one another sooner from now on
	}
	return one
}

// There tells whether something is at any of the places.
func (w *Watch) There() bool {
	for _, p := range w.places {
		if p.Identity() != "" {
			return true
		}
	}
	return false
}

// Close ends the watch: its changed is not called any more once Close returns.
func (w *Watch) Close() {
	w.watcher.mu.Lock()
	defer w.watcher.mu.Unlock()
	if _, ok := w.watcher.watches[w]; !ok {
		return
	}
	delete(w.watcher.watches, w)
	if !w.watcher.closed {
		w.watcher.look(nil) // takes away what nobody needs any more
	}
}

// Close ends the watcher and all watches.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	clear(w.watches)
	close(w.done)
	var err error
	if w.notify != nil {
		err = w.notify.Close() // ends the read
	}
	w.mu.Unlock()
	w.running.Wait()
	return err
}

// begin starts the goroutines, once. mu is held.
func (w *Watcher) begin() {
	if w.names != nil {
		return
	}
	w.names = map[int]map[string]bool{}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		w.notify = os.NewFile(uintptr(fd), "inotify")
		w.running.Go(w.read)
	} else {
		w.cannot(err)
	}
	w.running.Go(w.run)
}

// cannot notes that the kernel does not tell of all. mu is held.
func (w *Watcher) cannot(err error) {
	w.blind = true
	if !w.said {
		w.said = true
		w.log.Info("sockets are looked at all the time, for the kernel can't tell when they change", "reason", err)
	}
}

// stir asks for a look.
func (w *Watcher) stir() {
	select {
	case w.stirred <- struct{}{}:
	default:
	}
}

// run looks when something happened, and now and then.
func (w *Watcher) run() {
	timer := time.NewTimer(anyway)
	defer timer.Stop()
	for {
		wait := settle
		select {
		case <-w.done:
			return
		case <-w.stirred:
		case <-timer.C:
			wait = 0
		}
		if wait > 0 && !w.sleep(wait) {
			return
		}
		select {
		case <-w.stirred: // what has come meanwhile is seen too
		default:
		}
		w.mu.Lock()
		if !w.closed {
			w.look(nil)
		}
		next := anyway
		if w.blind {
			next = untold
		}
		w.mu.Unlock()
		timer.Reset(next)
		if wait > 0 && !w.sleep(pause-settle) {
			return
		}
	}
}

// sleep is false when the watcher was closed.
func (w *Watcher) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-w.done:
		return false
	}
}

// look goes to all places, renews what the kernel tells of the directories on the way,
// and calls for what has changed. first is a watch that begins: it only learns what
// there is. mu is held.
func (w *Watcher) look(first *Watch) {
	names := map[int]map[string]bool{}
	asked := map[string]int{} // directories, by number; -1: the kernel can't tell
	w.blind = w.notify == nil
	step := func(dir, name string) {
		n, ok := asked[dir]
		if !ok {
			n = w.ask(dir)
			asked[dir] = n
		}
		if n < 0 {
			return
		}
		if names[n] == nil {
			names[n] = map[string]bool{}
		}
		names[n][name] = true
	}
	for one := range w.watches {
		changed, another := false, false
		for i, p := range one.places {
			was := one.seen[i]
			now := p.Walk(step)
			one.seen[i] = now
			changed = changed || was != now
			another = another || was.Identity != now.Identity || was.Real != now.Real
		}
		if changed && one != first {
			one.changed(Change{Another: another})
		}
	}
	if w.notify != nil {
		for n := range w.names {
			if names[n] == nil {
				// An error says that the directory is gone, and with it the number.
				_, _ = unix.InotifyRmWatch(w.fd(), uint32(n))
			}
		}
	}
	w.names = names
}

// ask has the kernel tell of a directory. mu is held.
func (w *Watcher) ask(dir string) int {
	if w.notify == nil {
		return -1
	}
	n, err := unix.InotifyAddWatch(w.fd(), dir, events)
	switch {
	case err == nil:
		return n
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		// It went, or became another, this moment, which is told of the one above.
	default:
		w.cannot(fmt.Errorf("watch %s: %w", dir, err))
	}
	return -1
}

// fd of inotify. mu is held, and notify open.
func (w *Watcher) fd() (n int) {
	conn, err := w.notify.SyscallConn()
	if err != nil {
		return -1
	}
	// It fails once the file is closed, and then -1 is no descriptor.
	n = -1
	_ = conn.Control(func(fd uintptr) { n = int(fd) })
	return n
}

// read reads what the kernel tells until the watcher is closed.
func (w *Watcher) read() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.notify.Read(buffer)
		if err != nil {
			return // it was closed
		}
		w.mu.Lock()
		concerned := w.concerned(buffer[:n])
		w.mu.Unlock()
		if concerned {
			w.stir()
		}
		// In a directory where much happens, one read has much to tell.
		if !w.sleep(readPause) {
			return
		}
	}
}

// concerned tells whether something happened to a name that is looked for. mu is held.
func (w *Watcher) concerned(raw []byte) bool {
	for len(raw) >= unix.SizeofInotifyEvent {
		number := int(int32(binary.NativeEndian.Uint32(raw)))
		mask := binary.NativeEndian.Uint32(raw[4:])
		size := int(binary.NativeEndian.Uint32(raw[12:]))
		raw = raw[unix.SizeofInotifyEvent:]
		if size > len(raw) {
			return true
		}
		name, _, _ := bytes.Cut(raw[:size], []byte{0})
		raw = raw[size:]
		names, known := w.names[number]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0, // whatever it was
			!known && mask&unix.IN_IGNORED == 0, // a look is under way
			known && (len(name) == 0 || names[""] || names[string(name)]):
			return true
		}
	}
	return false
}
