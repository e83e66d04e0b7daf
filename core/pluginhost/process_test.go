package pluginhost

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAControlGroupThatCantBeForkedIntoIsJoinedAfterTheStart(t *testing.T) {
	h := newHost(t, Options{})
	if h.groups == nil {
		t.Skip("needs root and a cgroup2 mount")
	}
	g, err := h.groups.make("joined")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := h.forker.start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := g.add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := g.kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended: %v", err)
	}
	if err := g.remove(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheHandshakeReachesGoPlugin(t *testing.T) {
	const handshake = "1|1|unix|/run/x/plugin1|grpc|"
	for name, c := range map[string]struct{ in, handshake, log string }{
		"alone":               {handshake + "\n", handshake + "\n", ""},
		"after other lines":   {"hello\n1 | 2\n" + handshake + "\nlater\n", handshake + "\n", "hello;1 | 2;later"},
		"none":                {"hello\n", "", "hello"},
		"nothing":             {"", "", ""},
		"after a long line":   {strings.Repeat("z", 100<<10) + "\n" + handshake + "\n", handshake + "\n", strings.Repeat("z", tailBytes) + cutMessage},
		"a last line cut off": {"no newline", "", "no newline"},
	} {
		t.Run(name, func(t *testing.T) {
			out := &output{log: slog.New(slog.DiscardHandler)}
			r, w := io.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				(&process{}).readStdout(strings.NewReader(c.in), w, out)
			}()
			got, err := io.ReadAll(r)
			<-done
			if err != nil || string(got) != c.handshake {
				t.Errorf("go-plugin read %q, %v", got, err)
			}
			if l := strings.Join(out.last(), ";"); l != c.log {
				t.Errorf("the log is %.100q", l)
			}
		})
	}
}

func TestAFloodOfLinesIsThinnedAndCounted(t *testing.T) {
	log := &logBuffer{}
	out := &output{log: slog.New(slog.NewTextHandler(log, nil))}
	var in bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	out.read(&in, "stderr")
	passed := strings.Count(log.String(), "stream=stderr")
	out.mu.Lock()
	dropped := out.dropped
	out.second = time.Time{} // a second later
	out.mu.Unlock()
	out.line([]byte("afterwards"), false, "stderr")
	if passed+int(dropped) < 20000 && !strings.Contains(log.String(), "lines were left out") {
		t.Errorf("%d lines passed and %d dropped of 20000", passed, dropped)
	}
	if !strings.Contains(log.String(), "lines were left out") || !strings.Contains(log.String(), "afterwards") {
		t.Error("the flood is not told of")
	}
	if l := out.last(); len(l) != tailLines || l[tailLines-2] != "line 19999" {
		t.Errorf("last lines are %q", l)
	}
}

func TestARetryWaitsLongerEachTimeUpToItsMost(t *testing.T) {
	r := retry{min: 100 * time.Millisecond, max: 10 * time.Second}
	if d := r.next(); d != 0 {
		t.Errorf("the first waits %s", d)
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		want *= time.Millisecond
		if d := r.next(); d < want*3/4 || d > want*5/4 {
			t.Errorf("retry %d waits %s, not about %s", i+2, d, want)
		}
	}
	r.failures = 1 << 40
	if d := r.next(); d < 7*time.Second || d > 13*time.Second {
		t.Errorf("much later it waits %s", d)
	}
	r.reset()
	if d := r.next(); d != 0 {
		t.Errorf("after it ran well it waits %s", d)
	}
}

func TestABudgetComesBackWithTime(t *testing.T) {
	b := budget{most: 2, window: time.Minute}
	now := time.Unix(1000, 0)
	for i, want := range []bool{true, true, false, false} {
		if got := b.spend(now.Add(time.Duration(i) * time.Second)); got != want {
			t.Errorf("restart %d: %v", i, got)
		}
	}
	if !b.spend(now.Add(61 * time.Second)) {
		t.Error("none came back")
	}
}

func TestALinkInThePlaceOfThePluginsSocketIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	l, err := net.Listen("unix", real)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	f, err := openSocket(real)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := openSocket(link); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link: %v", err)
	}
}

func TestAProcessIDThatMayBeAnothersProvesNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := &process{cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	if err := p.listensOn(c.(*net.UnixConn)); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	p.reaped.Store(true)
	if err := p.listensOn(c.(*net.UnixConn)); err == nil {
		t.Error("a process that has ended listens")
	}
}

func TestADirectoryIsGivenOnlyWhenAllInItIs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	dir := t.TempDir()
	last := time.Time{}
	for n := range 5000 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := chownAll(dir, 4711, 4712); err != nil {
		t.Fatal(err)
	}
	changed := func(path string) time.Time {
		st, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		if sys.Uid != 4711 || sys.Gid != 4712 {
			t.Errorf("%s belongs to %d:%d", path, sys.Uid, sys.Gid)
		}
		return time.Unix(sys.Ctim.Unix())
	}
	for n := range 5000 {
		if at := changed(filepath.Join(dir, strconv.Itoa(n))); at.After(last) {
			last = at
		}
	}
	// A daemon that ended in between finds by the directory that it was not done.
	if at := changed(dir); at.Before(last) {
		t.Errorf("the directory was given %s before the last file", last.Sub(at))
	}
}
