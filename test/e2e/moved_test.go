package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestAProcessBelongsToWhereItIsMovedTo(t *testing.T) {
	programs := load.Build(t)
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	mine := tag()
	name := strings.Trim(mine, ":")
	ids, groups := make([]string, 2), make([]string, 2)
	for i := range ids {
		ids[i] = d.Run(t, "--detach", "--name", fmt.Sprintf("%s-%d", name, i), env.BusyboxImage, "sleep", "1000")
		remove(t, d, ids[i])
		tr.WaitContainer(ids[i])
		groups[i] = findCgroup(t, ids[i])
	}
	root := cgroupRoot(t)
	// One shell goes from the host to one container, to the other, and back.
	script := `for at in "$1" "$2" "$3"; do
	n=$((n + 1))
	echo $$ >"$at/cgroup.procs" && "$0" "$4$n" || exit 1
done`
	if out, err := exec.Command("/bin/sh", "-c", script, programs.Noop, groups[0], groups[1], filepath.Clean(root), mine).CombinedOutput(); err != nil {
		t.Fatalf("move a process: %v: %s", err, out)
	}
	ran := func(n int) func(*harness.Event) bool {
		return func(e *harness.Event) bool {
			return e.Process.Executable.Path == programs.Noop && e.Arg(fmt.Sprintf("%s%d", mine, n))
		}
	}
	tr.UntilCount(1, "process.exec", ran(3))
	ledger := tr.Stop()
	for i, id := range ids {
		e := one(t, fmt.Sprintf("the exec in container %d", i), harness.Select(tr.Events(), "process.exec", ran(i+1)))
		checkIs(t, e, id, fmt.Sprintf("%s-%d", name, i), busyboxName, "test")
	}
	if e := one(t, "the exec back on the host", harness.Select(tr.Events(), "process.exec", ran(3))); e.Container != nil || e.Pending {
		t.Errorf("it is not the host's: %s", e.Line)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 3})
}

// nested has runc make a container inside one of docker's, whose cgroup is all that it
// sees of the hierarchies.
const nested = `set -e
mkdir -p /b/rootfs/proc /b/rootfs/bin
cp /bin/noop /b/rootfs/noop
cp /bin/busybox /b/rootfs/bin/sh
if ! mountpoint -q /sys/fs/cgroup || [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
	mkdir -p /sys/fs/cgroup/unified
	mount -t cgroup2 none /sys/fs/cgroup/unified
fi
cd /b
/usr/sbin/runc spec
sed -i 's/"terminal": true/"terminal": false/; s/"oomScoreAdj": *-[0-9]*/"oomScoreAdj": 0/; /"rlimits"/,/\]/d' config.json
sed -i "s#\"sh\"#\"/noop\",\"$1\"#" config.json
exec /usr/sbin/runc --root /tmp/runc run "$2"
`

func TestAContainerInsideAContainerIsTheOuterOnes(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	mine := tag()
	name := strings.Trim(mine, ":")
	// One name is as a user gives it, the other as a nested Docker would.
	inners := []string{"inner", randomID(t)}
	ids := make([]string, len(inners))
	for i, inner := range inners {
		args := []string{"--detach", "--name", fmt.Sprintf("%s-%d", name, i), "--privileged", "--cgroupns=private"}
		for _, dir := range []string{"/usr", "/lib", "/lib64"} {
			args = append(args, "--volume", dir+":"+dir+":ro")
		}
		ids[i] = d.Run(t, append(args, env.BusyboxImage, "sh", "-c", nested, "sh", fmt.Sprintf("%s%d", mine, i), inner)...)
		remove(t, d, ids[i])
		if status, err := d.CLI(t.Context(), "wait", ids[i]); err != nil || status != "0" {
			said, _ := d.Command(t.Context(), "logs", ids[i]).CombinedOutput()
			t.Fatalf("the container inside failed: %s, %v\n%s", status, err, said)
		}
	}
	ran := func(e *harness.Event) bool { return e.Process.Executable.Path == "/noop" && having(mine)(e) }
	tr.UntilCount(len(inners), "process.exec", ran)
	ledger := tr.Stop()
	for i, id := range ids {
		e := one(t, "the exec inside "+inners[i], harness.Select(tr.Events(), "process.exec", func(e *harness.Event) bool {
			return ran(e) && e.Arg(fmt.Sprintf("%s%d", mine, i))
		}))
		checkIs(t, e, id, fmt.Sprintf("%s-%d", name, i), busyboxName, "test")
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": int64(len(inners))})
}
