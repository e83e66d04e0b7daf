package env

import (
	"strings"
	"testing"
)

func TestARemappedContainerHasAUserNamespace(t *testing.T) {
	d := StartDocker(t)
	out := d.Run(t, "--rm", "--runtime", RemappedRuntime, BusyboxImage, "sh", "-c", "id -u; cat /proc/self/uid_map /proc/self/gid_map")
	if got, want := strings.Join(strings.Fields(out), " "), "0 0 100000 65536 0 200000 65536"; got != want {
		t.Errorf("it prints %q, want %q", got, want)
	}
}
