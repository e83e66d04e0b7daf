// Package e2e runs the built daemon with its plugins as a user would, and holds what it
// tells against what really happened: the load's own counts, docker's own words, the
// kernel's answers to the caller.
//
// Each test starts the daemon, makes something happen, ends the daemon, and checks its
// ledger. Other programs run on the machine meanwhile, so a test tells its own events by
// an argument, a path or a process that nobody else has.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the tests of the whole need root: they load programs into the kernel")
		os.Exit(1)
	}
	if err := env.Install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := servers.close(); err != nil {
		fmt.Fprintln(os.Stderr, "take dockerd off the machine:", err)
		code = 1
	}
	os.Exit(code)
}

// servers are the servers that the tests share: to start one takes longer than most
// tests do.
var servers shared

type shared struct {
	mu     sync.Mutex
	docker *env.Docker
}

// dockerd is the dockerd that the tests share. None of them may end or stop it.
func dockerd(t *testing.T) *env.Docker {
	t.Helper()
	servers.mu.Lock()
	defer servers.mu.Unlock()
	if servers.docker == nil {
		d, err := env.NewDocker(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		servers.docker = d
	}
	return servers.docker
}

func (s *shared) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docker == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.docker.Close(ctx)
}

// withDocker is a configuration that finds the containers of a dockerd.
func withDocker(d *env.Docker, more string) string {
	return fmt.Sprintf("probe \"process\" {}\ndiscoverer \"docker\" { host = \"unix://%s\" }\n%s", d.Socket, more)
}

var tags atomic.Int64

// tag is a word that no other process on the machine has as an argument.
func tag() string {
	return fmt.Sprintf("e2e-%d-%d-%d:", os.Getpid(), time.Now().UnixNano(), tags.Add(1))
}

// having matches the execs with an argument that starts with prefix.
func having(prefix string) func(*harness.Event) bool {
	return func(e *harness.Event) bool {
		for _, a := range e.Process.Args {
			if strings.HasPrefix(a, prefix) {
				return true
			}
		}
		return false
	}
}

// running matches the execs of a program.
func running(path string) func(*harness.Event) bool {
	return func(e *harness.Event) bool { return e.Process.Executable.Path == path }
}

// of matches the events of a process.
func of(pid int) func(*harness.Event) bool {
	return func(e *harness.Event) bool { return e.Process.PID == pid }
}

// checkLedger checks that a ledger has seen at least what the load says that it did, of
// each kind, and that nothing was lost. sampled says that not all was to be kept.
func checkLedger(t *testing.T, l *harness.Ledger, sampled bool, did map[string]int64) {
	t.Helper()
	for kind, n := range did {
		c := l.Kind(kind)
		if c.Seen < n {
			t.Errorf("the ledger has seen %d of %s, the load alone made %d", c.Seen, kind, n)
		}
		if !sampled && (c.Kept < n || c.SampledOut > 0) {
			t.Errorf("the ledger kept %d of %s and sampled out %d, the load alone made %d", c.Kept, kind, c.SampledOut, n)
		}
	}
	if lost := l.Sum().Lost; lost > 0 {
		t.Errorf("%d events were lost", lost)
	}
	for name, x := range l.Exporters {
		if x.QueueDropped > 0 || x.Failed > 0 {
			t.Errorf("exporter %s: %+v", name, x)
		}
	}
}

// one gives the only event of those found, and fails the test when there is another
// number of them.
func one(t *testing.T, what string, found []*harness.Event) *harness.Event {
	t.Helper()
	if len(found) != 1 {
		lines := make([]string, len(found))
		for i, e := range found {
			lines[i] = e.Line
		}
		t.Fatalf("%s: %d events, want one\n%s", what, len(found), strings.Join(lines, "\n"))
	}
	return found[0]
}

// ctxOf is for what a test does in its clean-up, when its own context has ended.
func ctxOf(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }
