package faults

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestNoPluginOutlivesAKilledDaemonAndTheNextOneCleansUp(t *testing.T) {
	d, p := env.StartDocker(t), load.Build(t)
	tr := harness.Start(t, withDocker(d.Socket, "mesh \"generic\" {}\n"))
	pid, before := tr.PID(), pluginProcs(t, tr.Binaries)
	if len(before) != 3 {
		t.Fatalf("three plugins are configured, these run: %v", before)
	}
	groups, sockets := pluginGroups(t, pid), instances(t, tr)
	if len(groups) != 1 || len(sockets) != 3 {
		t.Fatalf("the plugins have control groups %v and socket directories %v", groups, sockets)
	}
	tr.Signal(syscall.SIGKILL)
	if code := tr.WaitExit(harness.Patience); code != -1 {
		t.Errorf("a killed daemon ended with status %d", code)
	}
	for _, x := range before {
		eventually(t, "the end of "+filepath.Base(x.exe), func() error {
			if x.alive() {
				return errors.New("it is alive")
			}
			return nil
		})
	}
	checkNone(t, tr.Binaries)

	// Again, with the same file, socket and directories.
	tr.Launch()
	tr.WaitPlugins()
	if left := pluginGroups(t, pid); len(left) > 0 {
		t.Errorf("control groups of the killed daemon are left: %v", left)
	}
	for _, name := range instances(t, tr) {
		if slices.Contains(sockets, name) {
			t.Errorf("socket directory %s of the killed daemon is left", name)
		}
	}
	mark(t, tr, p)
	pid = tr.PID()
	tr.Signal(syscall.SIGTERM)
	if code := tr.WaitExit(harness.StopsWithin); code != 0 {
		t.Errorf("the daemon ended with status %d", code)
	}
	if left := pluginGroups(t, pid); len(left) > 0 {
		t.Errorf("control groups are left after an orderly end: %v", left)
	}
	if left := instances(t, tr); len(left) > 0 {
		t.Errorf("socket directories are left after an orderly end: %v", left)
	}
	if _, err := os.Lstat(tr.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left after an orderly end (%v)", err)
	}
}

func TestSIGTERMUnderFullLoadDrainsAndTheLedgerCloses(t *testing.T) {
	d, p := env.StartDocker(t), load.Build(t)
	tr := harness.Start(t, withDocker(d.Socket, "probe \"network\" {}\nmesh \"generic\" {}\n"))
	prefix := tag()
	wait := execs(t, p, prefix, 30000, 0)
	tr.Until("a part of the load", func(e []harness.Event) bool { return len(byArgument(e, prefix)) > 1000 })
	ledger := tr.Stop() // status 0 within five seconds, no plugin left, lines as the ledger says
	told := byArgument(tr.Events(), prefix)
	for arg, n := range told {
		if n != 1 {
			t.Errorf("exec %s was told %d times", arg, n)
		}
	}
	if lost := ledger.Sum().Lost; lost != 0 {
		t.Errorf("%d events were lost", lost)
	}
	if did := wait(); int64(len(told)) >= did.Execs {
		t.Errorf("all of %d execs were told: the load did not outlast the daemon", did.Execs)
	}
	// Up to the moment of its end nothing is missing: no hole in the sequence.
	checkNoHole(t, told)
}

// checkNoHole checks that no exec is missing before the last that was told. Those of
// the end are left out: each program of the daemon is detached at a time of its own, and
// two workers make the load.
func checkNoHole(t *testing.T, told map[string]int) {
	t.Helper()
	var seqs []int
	for arg := range told {
		n, err := strconv.Atoi(arg[strings.LastIndexByte(arg, ':')+1:])
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, n)
	}
	slices.Sort(seqs)
	const end = 8
	for i, n := range seqs[:max(0, len(seqs)-end)] {
		if n != i {
			t.Fatalf("exec %d was not told, but execs up to %d were", i, seqs[len(seqs)-1])
		}
	}
}

func TestASecondSignalEndsTheDaemonAtOnce(t *testing.T) {
	for _, second := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(second.String(), func(t *testing.T) {
			// Something that keeps the first from being done at once: a plugin that hangs.
			tr := harness.Start(t, "probe \"process\" {}\n")
			signal(t, tr.PluginPID("sampler", "threshold"), syscall.SIGSTOP)
			tr.Signal(syscall.SIGTERM)
			// When the first has been taken can't be told from outside; a second one that
			// comes before that is none.
			for tr.Running() {
				if err := syscall.Kill(tr.PID(), second); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
			if code := tr.WaitExit(harness.StopsWithin); code != -1 {
				t.Errorf("the daemon ended with status %d, not by the second signal:\n%s", code, tr.Log())
			}
			checkNone(t, tr.Binaries)
		})
	}
}

func TestADirectoryOfPluginsBesideTheSocketIsLeftAlone(t *testing.T) {
	tr := harness.Prepare(t, "probe \"process\" {}\n")
	// As where everything of a user's lies in one directory.
	beside := filepath.Join(filepath.Dir(tr.Socket), "plugins")
	if err := os.CopyFS(beside, os.DirFS(tr.Binaries.Plugins)); err != nil {
		t.Fatal(err)
	}
	tr.Launch()
	tr.WaitPlugins()
	tr.Stop()
	for _, file := range []string{"discoverer/docker", "mesh/generic", "sampler/threshold", "sampler/threshold.plugin.hcl"} {
		if _, err := os.Stat(filepath.Join(beside, file)); err != nil {
			t.Errorf("the daemon took a plugin away: %v", err)
		}
	}
}
