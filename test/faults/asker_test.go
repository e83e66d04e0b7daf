package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// openBundles counts the files of plugins that the daemon holds.
func openBundles(t *testing.T, tr *harness.Tracer) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", tr.PID())
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.Contains(to, "/store/") {
			n++
		}
	}
	return n
}

func TestAReloadWhoseAskerGoesAwayHoldsNoFiles(t *testing.T) {
	tr := harness.Prepare(t, "")
	moody(t, tr, "well", "1", "discoverer", "mesh")
	tr.SetConfig("plugins { dirs = [\"@DIR@/plugins\"] }\nprobe \"process\" {}\ndiscoverer \"moody\" {}\nmesh \"moody\" {}\n")
	tr.Launch()
	tr.WaitPlugins()
	before := openBundles(t, tr)
	if before == 0 {
		t.Fatal("the daemon holds no file of a plugin, so this test sees nothing")
	}
	// When the second has found nothing wrong, the first has to be killed first.
	moody(t, tr, "stiff", "2", "discoverer")
	moody(t, tr, "slow", "2", "mesh")
	cmd := tr.Command("reload")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the check", func() error {
		if !strings.Contains(tr.Log(), "it has found nothing wrong") {
			return errors.New("it is not over")
		}
		return nil
	})
	time.Sleep(300 * time.Millisecond) // for the answer to come in
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	moody(t, tr, "well", "1", "discoverer", "mesh")
	if stdout, stderr, status := reload(t, tr); status != 0 || !strings.Contains(stdout, "nothing has changed") {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
	if after := openBundles(t, tr); after != before {
		t.Errorf("the daemon holds %d files of plugins, and held %d", after, before)
	}
	tr.Stop()
}
