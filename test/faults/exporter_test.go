package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// jsonStats are the counts of the exporter json.
func jsonStats(t *testing.T, tr *harness.Tracer) *protov1.ExporterStats {
	t.Helper()
	for _, x := range tr.Stats().GetExporters() {
		if x.GetName() == "json" {
			return x
		}
	}
	t.Fatal("the stats have no exporter json")
	return nil
}

// disk mounts a file system of that many bytes in memory until the test ends.
func disk(t *testing.T, bytes int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no room on a file system.
func fill(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, os.Getpagesize()))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill a file system: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return ballast
}

func TestLinesAreWholeBeforeAndAfterTheDiskWasFull(t *testing.T) {
	p, dir := load.Build(t), disk(t, 8<<20)
	path := filepath.Join(dir, "events.json")
	tr := harness.Start(t, fmt.Sprintf("probe \"process\" {}\nexporter \"json\" {\n  path     = %q\n  max_size = \"1GiB\"\n}\n", path))
	before, during, after := tag(), tag(), tag()
	run := func(prefix string) load.ExecCounts { return execs(t, p, prefix, 500, 0)() }

	did := run(before)
	eventually(t, "the lines before", func() error { return hasAll(path, before, did.Execs) })
	ballast := fill(t, dir)
	run(during)
	eventually(t, "failed events", func() error {
		if x := jsonStats(t, tr); x.GetFailed() < 100 || x.GetQueued() > 0 || !strings.Contains(x.GetLastError(), "no space left") {
			return fmt.Errorf("the exporter says %v", x)
		}
		return nil
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	did = run(after)
	eventually(t, "the lines after", func() error { return hasAll(path, after, did.Execs) })
	ledger := tr.Stop()

	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, torn := int64(0), 0
	for line := range bytes.Lines(b) {
		if _, err := harness.Parse(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			torn++
			continue
		}
		whole++
	}
	if torn > 1 {
		t.Errorf("%d lines are torn: only where the disk became full may one be", torn)
	}
	if x := ledger.Exporters["json"]; x.Exported != whole || x.Failed < 100 {
		t.Errorf("the file has %d whole lines, the ledger says %+v", whole, x)
	}
	if lost := ledger.Sum().Lost; lost != 0 {
		t.Errorf("the kernel lost %d events over a full disk", lost)
	}
}

// hasAll tells whether a file has a line for each exec of a load.
func hasAll(path, prefix string, n int64) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i := range n {
		if !bytes.Contains(b, fmt.Appendf(nil, "%s%06d", prefix, i)) {
			return fmt.Errorf("exec %d of %d is not there", i, n)
		}
	}
	return nil
}

const toStdout = "probe \"process\" {}\nexporter \"json\" { path = \"-\" }\n"

func TestAReaderOfTheOutputThatLeavesIsCountedAndTheDaemonLives(t *testing.T) {
	p := load.Build(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	tr := harness.Prepare(t, toStdout)
	tr.Output = write
	tr.Launch()
	tr.WaitPlugins()
	execs(t, p, tag(), 10, 0)()
	if err := read.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(read).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := harness.Parse(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
		t.Error(err)
	}
	if err := errors.Join(read.Close(), write.Close()); err != nil {
		t.Fatal(err)
	}
	execs(t, p, tag(), 100, 0)()
	eventually(t, "failed events", func() error {
		if x := jsonStats(t, tr); x.GetFailed() < 100 || !strings.Contains(x.GetLastError(), "broken pipe") {
			return fmt.Errorf("the exporter says %v", x)
		}
		return nil
	})
	ledger := tr.Stop()
	if x := ledger.Exporters["json"]; x.Failed < 300 {
		t.Errorf("the ledger says %+v", x)
	}
}

func TestAReaderOfTheOutputThatHangsIsCountedAndNeverHoldsTheKernelUp(t *testing.T) {
	p := load.Build(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	tr := harness.Prepare(t, toStdout)
	tr.Output = write
	tr.Launch()
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	tr.WaitPlugins()
	prefix := tag()
	var dropped uint64
	did := execs(t, p, prefix, 20000, 0)()
	eventually(t, "dropped events", func() error {
		x := jsonStats(t, tr)
		if dropped = x.GetQueueDropped(); dropped == 0 {
			return fmt.Errorf("the exporter says %v", x)
		}
		return nil
	})
	tr.Signal(syscall.SIGTERM)
	code := tr.WaitExit(harness.StopsWithin)
	checkNone(t, tr.Binaries)
	ledger, err := harness.ParseLedger(tr.Log())
	if err != nil {
		t.Fatalf("%v:\n%s", err, tr.Log())
	}
	if !ledger.Closes {
		t.Error("the ledger does not close")
	}
	checkSeen(t, ledger, did)
	x := ledger.Exporters["json"]
	if x.QueueDropped < int64(dropped) || x.Released != x.Exported+x.QueueDropped+x.Failed+x.ScopedOut+x.Queued {
		t.Errorf("the ledger says %+v", x)
	}
	// What waited for the reader is lost, and the daemon says so by its status.
	if code != 1 || x.Queued == 0 || !strings.Contains(tr.Log(), "still writes") {
		t.Errorf("the daemon ended with status %d and %d queued:\n%s", code, x.Queued, tr.Log())
	}
	// What the reader got in the end is whole, up to where the pipe was full.
	b, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b[:bytes.LastIndexByte(b, '\n')+1]) {
		if _, err := harness.Parse(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			t.Fatal(err)
		}
	}
}
