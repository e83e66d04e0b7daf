package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ends makes the checks of a plugin that is to go.
func (t *tester) ends(ctx context.Context) {
	t.check(ctx, "it exits by itself when asked to, and leaves nothing behind", "answer Shutdown at once, cancel the streams, wait for your children, remove the socket and exit with status 0",
		func(ctx context.Context, c *check) {
			s, ok := t.busy(ctx, c)
			if !ok {
				return
			}
			defer s.close()
			socket, children := t.probe.Socket(), t.children()
			asking, cancel := context.WithTimeout(ctx, healthWithin)
			began := time.Now()
			_, err := t.rpc().Shutdown(asking, &protov1.ShutdownRequest{})
			cancel()
			if err != nil && status.Code(err) != codes.Unavailable { // gone before the answer was
				c.failf("Shutdown: %v", text(err))
			}
			t.gone(ctx, c, began, "asked to")
			if t.probe == nil {
				return
			}
			if how := t.ended(); how != "" && !strings.Contains(how, "status 0") {
				c.warnf("%s: an end that was asked for is status 0", how)
			}
			if _, err := os.Lstat(socket); err == nil {
				c.warnf("its socket %s is left", filepath.Base(socket))
			} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ESRCH) {
				c.notef("its socket can't be looked at: %v", err)
			}
			for _, p := range children {
				if p.lives() {
					c.failf("process %d (%s), which it started, lives on", p.pid, p.comm)
				}
			}
		})
	t.end()
	t.check(ctx, "it exits by itself when its daemon is gone", "read standard input, on which nothing ever comes, and exit at its end: nobody else may be left to end the plugin",
		func(ctx context.Context, c *check) {
			s, ok := t.busy(ctx, c)
			if !ok {
				return
			}
			defer s.close()
			began := time.Now()
			if err := t.probe.Orphan(); err != nil {
				c.failf("%v", err)
				return
			}
			t.gone(ctx, c, began, "its standard input was at its end")
		})
	t.end()
}

// busy gives a fresh process with its stream open.
func (t *tester) busy(ctx context.Context, c *check) (*stream, bool) {
	err := t.fresh(ctx)
	if err == nil {
		err = t.takeConfig(ctx)
	}
	var s *stream
	if err == nil {
		s, err = t.open(ctx)
	}
	if err == nil {
		if _, err = t.settle(ctx, s); err != nil {
			s.close()
		}
	}
	if err != nil {
		c.failf("%v", text(err))
		return nil, false
	}
	return s, true
}

// gone waits for the process to end.
func (t *tester) gone(ctx context.Context, c *check, began time.Time, after string) {
	select {
	case <-t.probe.Exited():
		took := time.Since(began)
		if took > exitPromptly {
			c.warnf("it exited %s after it was %s: the daemon would have killed it after %s", took.Round(time.Millisecond), after, exitPromptly)
		}
		c.notef("after %s", took.Round(time.Millisecond))
	case <-time.After(exitWithin):
		c.failf("it still runs %s after it was %s", exitWithin, after)
	case <-ctx.Done():
	}
}

// ended says how the process ended; "": it has not.
func (t *tester) ended() string {
	if died, how := t.died(nil); died {
		return how
	}
	return ""
}

// child is a process that the plugin started.
type child struct {
	pid   int
	start string // with pid it is unique while the host is up
	comm  string
}

// lives tells whether the process is there and no zombie.
func (p child) lives() bool {
	s, err := readStat(p.pid)
	return err == nil && s.start == p.start && s.state != "Z"
}

// children are the processes below the plugin's.
func (t *tester) children() []child {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil // then nothing can be said of them
	}
	byParent := map[int][]child{}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			byParent[s.parent] = append(byParent[s.parent], child{pid: pid, start: s.start, comm: s.comm})
		}
	}
	var below func(pid, depth int) []child
	below = func(pid, depth int) []child {
		var out []child
		for _, p := range byParent[pid] {
			out = append(out, p)
			if depth < 64 {
				out = append(out, below(p.pid, depth+1)...)
			}
		}
		return out
	}
	return below(t.probe.PID(), 0)
}

// procStat is what is read of /proc/PID/stat.
type procStat struct {
	comm, state, start string
	parent             int
}

func readStat(pid int) (procStat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	text := string(raw)
	from, to := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: it has no name", pid)
	}
	const parent, start = 1, 19 // fields after the name
	fields := strings.Fields(text[to+1:])
	if len(fields) <= start {
		return procStat{}, fmt.Errorf("read /proc/%d/stat: it has %d fields", pid, len(fields))
	}
	s := procStat{comm: text[from+1 : to], state: fields[0], start: fields[start]}
	s.parent, err = strconv.Atoi(fields[parent])
	return s, err
}
