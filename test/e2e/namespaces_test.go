package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// until asks until there is no error.
func until(t *testing.T, what string, ask func() error) {
	t.Helper()
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(20 * time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}

// namespacesOf are the namespaces of a process by the kernel's word: inodes by type.
func namespacesOf(t *testing.T, pid int) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, typ := range []string{"pid", "net", "mnt", "user", "uts", "ipc", "cgroup", "time"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, typ))
		if err != nil {
			t.Fatal(err)
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, typ+":["), "]"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[typ] = inode
	}
	return out
}

// statusOf is a line of numbers of a process's status.
func statusOf(t *testing.T, pid int, name string) (out []int) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			for _, field := range strings.Fields(rest) {
				n, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, n)
			}
		}
	}
	return out
}

func pidOf(t *testing.T, d *env.Docker, id string) int {
	t.Helper()
	out, err := d.CLI(t.Context(), "inspect", "--format", "{{.State.Pid}}", id)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(out)
	if err != nil || pid == 0 {
		t.Fatalf("the pid of %s is %q", id, out)
	}
	return pid
}

type nsRef struct {
	Type  string
	Inode uint64
	Host  bool
}

type nsView struct {
	Ref        nsRef
	Containers []struct {
		Container struct{ ID string }
		Name      string
		PID       int
		NSPID     int `json:"ns_pid"`
	}
	UIDMap []idExtent `json:"uid_map"`
	GIDMap []idExtent `json:"gid_map"`
}

type idExtent struct{ Inside, Outside, Count uint32 }

func (n nsView) names() (out []string) {
	for _, c := range n.Containers {
		out = append(out, c.Name)
	}
	slices.Sort(out)
	return out
}

type containerAnswer struct {
	Container  struct{ ID, Name string }
	Namespaces []nsRef
	Shared     []nsView `json:"shared_namespaces"`
}

// inodes are the namespaces by type.
func (c containerAnswer) inodes() map[string]uint64 {
	out := map[string]uint64{}
	for _, n := range c.Namespaces {
		out[n.Type] = n.Inode
	}
	return out
}

type processAnswer struct {
	Process struct {
		PID        int
		NSPIDs     []int `json:"ns_pids"`
		UID, GID   uint32
		NSUID      *uint32 `json:"ns_uid"`
		NSGID      *uint32 `json:"ns_gid"`
		Comm       string
		CgroupPath string `json:"cgroup_path"`
		Namespaces []nsRef
	}
	Container *struct {
		Container struct{ ID, Name string }
	}
}

// askContainer asks for a container until its namespaces are those that the kernel tells
// of its process.
func askContainer(t *testing.T, tr *harness.Tracer, name string, pid int) (c containerAnswer) {
	t.Helper()
	want := namespacesOf(t, pid)
	until(t, "the namespaces of "+name, func() error {
		text, err := tr.Command("get", "container", name, "-o", "json").Output()
		if err != nil {
			return err
		}
		c = containerAnswer{}
		if err := json.Unmarshal(text, &c); err != nil {
			return err
		}
		if got := c.inodes(); !maps.Equal(got, want) {
			return fmt.Errorf("they are %v, want %v", got, want)
		}
		return nil
	})
	return c
}

// execIn starts a program in a container and gives its pid on the host: that of the
// only process in the container's cgroup that has an argument.
func execIn(t *testing.T, d *env.Docker, id, arg string, args ...string) (pid int) {
	t.Helper()
	if _, err := d.CLI(t.Context(), append(append([]string{"exec", "--detach"}, args...), arg)...); err != nil {
		t.Fatal(err)
	}
	procs := filepath.Join(findCgroup(t, id), "cgroup.procs")
	until(t, "the process in the container", func() error {
		text, err := os.ReadFile(procs)
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(text)) {
			line, err := os.ReadFile("/proc/" + field + "/cmdline")
			// A runtime's own process is there for a moment, and unshare forks.
			if err == nil && strings.HasPrefix(string(line), "sleep\x00"+arg+"\x00") {
				pid, err = strconv.Atoi(field)
				return err
			}
		}
		return errors.New("it is not there yet")
	})
	return pid
}

func TestTheNamespacesOfContainersAreTold(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	name := func(what string) string { return what + "-" + strings.Trim(tag(), ":") }
	pids := map[string]int{}
	ids := map[string]string{}
	start := func(what string, args ...string) string {
		t.Helper()
		n := name(what)
		id := d.Run(t, append(append([]string{"--detach", "--name", n}, args...), env.BusyboxImage, "sleep", "1000")...)
		remove(t, d, id)
		ids[n], pids[n] = id, pidOf(t, d, id)
		return n
	}
	web := start("web", "--ipc", "shareable", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined")
	net := start("net", "--network", "container:"+web)
	pid := start("pid", "--pid", "container:"+web)
	ipc := start("ipc", "--ipc", "container:"+web)
	host := start("host", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host")
	user := start("user", "--runtime", env.RemappedRuntime)
	answers := map[string]containerAnswer{}
	for n, p := range pids {
		answers[n] = askContainer(t, tr, n, p)
	}

	t.Run("which are the host's", func(t *testing.T) {
		own := namespacesOf(t, os.Getpid()) // the tests run on the host itself
		for n, c := range answers {
			for _, r := range c.Namespaces {
				if r.Host != (r.Inode == own[r.Type]) {
					t.Errorf("%s's %s namespace %d is the host's: %v", n, r.Type, r.Inode, r.Host)
				}
			}
		}
		for _, typ := range []string{"net", "pid", "ipc", "uts"} {
			if got := answers[host].inodes()[typ]; got != own[typ] {
				t.Errorf("the container in the host's %s namespace is in %d", typ, got)
			}
		}
	})

	t.Run("who shares them", func(t *testing.T) {
		shared := func(of string) map[string][]string {
			out := map[string][]string{}
			for _, n := range askContainer(t, tr, of, pids[of]).Shared {
				out[n.Ref.Type] = n.names()
			}
			return out
		}
		with := func(other string) []string { return slices.Sorted(slices.Values([]string{web, other})) }
		for of, want := range map[string]map[string][]string{
			web:  {"net": with(net), "pid": with(pid), "ipc": with(ipc)},
			net:  {"net": with(net)},
			pid:  {"pid": with(pid)},
			ipc:  {"ipc": with(ipc)},
			host: {},
			user: {},
		} {
			if got := shared(of); !maps.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%s shares %v, want %v", of, got, want)
			}
		}
		inode := answers[web].inodes()["net"]
		one := askJSON[nsView](t, tr, "get", "namespace", fmt.Sprintf("net:%d", inode))
		if !slices.Equal(one.names(), with(net)) || one.Ref.Host || one.Ref.Inode != inode {
			t.Errorf("the namespace is %+v", one)
		}
		listed := askJSON[[]nsView](t, tr, "get", "namespaces", "--type", "net")
		if i := slices.IndexFunc(listed, func(n nsView) bool { return n.Ref.Inode == inode }); i < 0 || !slices.Equal(listed[i].names(), with(net)) {
			t.Errorf("listed are %+v", listed)
		}
	})

	t.Run("what their first processes are called inside", func(t *testing.T) {
		for n, inside := range map[string]int{web: 1, net: 1, pid: statusOf(t, pids[pid], "NSpid")[1], host: pids[host]} {
			space := askJSON[nsView](t, tr, "get", "namespace", fmt.Sprintf("pid:%d", answers[n].inodes()["pid"]))
			i := slices.IndexFunc(space.Containers, func(c struct {
				Container struct{ ID string }
				Name      string
				PID       int
				NSPID     int `json:"ns_pid"`
			}) bool {
				return c.Name == n
			})
			if i < 0 || space.Containers[i].PID != pids[n] || space.Containers[i].NSPID != inside || space.Containers[i].Container.ID != ids[n] {
				t.Errorf("%s is %+v, want %d on the host and %d inside", n, space, pids[n], inside)
			}
		}
	})

	ask := func(args ...string) processAnswer {
		t.Helper()
		return askJSON[processAnswer](t, tr, append([]string{"get", "pid"}, args...)...)
	}
	t.Run("what processes of docker exec are called, both ways", func(t *testing.T) {
		plain := execIn(t, d, ids[web], "1001", ids[web], "sleep")
		nested := execIn(t, d, ids[web], "1002", ids[web], "unshare", "-p", "-f", "sleep")
		if n := len(statusOf(t, nested, "NSpid")); n != 3 {
			t.Fatalf("the nested process is in %d pid namespaces", n)
		}
		for _, p := range []int{plain, nested, pids[web]} {
			want := statusOf(t, p, "NSpid")
			got := ask(strconv.Itoa(p))
			if got.Process.PID != p || !slices.Equal(got.Process.NSPIDs, want) || got.Container == nil || got.Container.Container.ID != ids[web] ||
				!strings.HasSuffix(got.Process.CgroupPath, "/"+ids[web]) || got.Process.Comm != "sleep" {
				t.Errorf("process %d is %+v, want the pids %v", p, got, want)
			}
			back := ask(strconv.Itoa(want[1]), "--container", web)
			if back.Process.PID != p {
				t.Errorf("process %d of the container is %d on the host, want %d", want[1], back.Process.PID, p)
			}
		}
		// Who shares the namespace has a pid there as well.
		if sharer := ask(strconv.Itoa(statusOf(t, pids[pid], "NSpid")[1]), "--container", web); sharer.Process.PID != pids[pid] || sharer.Container.Container.Name != pid {
			t.Errorf("the process of who shares the pid namespace is %+v", sharer)
		}
		if own := ask(strconv.Itoa(os.Getpid())); own.Container != nil || own.Process.PID != os.Getpid() || len(own.Process.NSPIDs) != 1 {
			t.Errorf("this process is %+v", own)
		}
		if same := ask(strconv.Itoa(pids[host]), "--container", host); same.Process.PID != pids[host] {
			t.Errorf("in the host's pid namespace, %d is %d", pids[host], same.Process.PID)
		}
		none := tr.Command("get", "pid", "99999", "--container", web)
		if out, err := none.CombinedOutput(); err == nil || !strings.Contains(string(out), "has no process 99999") {
			t.Errorf("of a process that there is not it says %q (%v)", out, err)
		}
	})

	t.Run("user ids in a user namespace", func(t *testing.T) {
		space := askJSON[nsView](t, tr, "get", "namespace", fmt.Sprintf("user:%d", answers[user].inodes()["user"]))
		if !slices.Equal(space.UIDMap, []idExtent{{0, 100000, 65536}}) || !slices.Equal(space.GIDMap, []idExtent{{0, 200000, 65536}}) || space.Ref.Host {
			t.Errorf("the namespace is %+v", space)
		}
		p := execIn(t, d, ids[user], "1003", "--user", "33:44", ids[user], "sleep")
		got := ask(strconv.Itoa(p)).Process
		if got.UID != 100033 || got.GID != 200044 || got.NSUID == nil || *got.NSUID != 33 || got.NSGID == nil || *got.NSGID != 44 {
			t.Errorf("user 33 and group 44 inside are %+v", got)
		}
		if got := ask(strconv.Itoa(pids[web])).Process; got.UID != 0 || got.NSUID == nil || *got.NSUID != 0 {
			t.Errorf("root in the host's user namespace is %+v", got)
		}
	})

	t.Run("how many there are", func(t *testing.T) {
		c, err := client.Dial(t.Context(), tr.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all, err := c.ListNamespaces(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		stats, err := c.GetStats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := stats.Map()
		if m["namespaces_discovered"] != uint64(len(all)) || m["containers_discovered"].(uint64) < 6 || m["namespace_isolation"] != true ||
			m["kubernetes_enabled"] != false || m["service_mesh_support"] != false || len(m) != 7 {
			t.Errorf("%v, and %d namespaces are listed", m, len(all))
		}
		if n, err := c.GetNamespace(t.Context(), fmt.Sprint(answers[web].inodes()["pid"])); err != nil || n.Type != "pid" || len(n.Containers) != 2 {
			t.Errorf("%+v, %v", n, err)
		}
	})
	tr.Stop()
}

func TestNamespacesFollowAContainersRestartsAndEnd(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	name := strings.Trim(tag(), ":")
	id := d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sleep", "1000")
	remove(t, d, id)
	before := pidOf(t, d, id)
	first := askContainer(t, tr, name, before)
	if _, err := d.CLI(t.Context(), "restart", "--time", "0", name); err != nil {
		t.Fatal(err)
	}
	after := pidOf(t, d, id)
	second := askContainer(t, tr, name, after)
	member := func(inode uint64) (pid int, err error) {
		text, err := tr.Command("get", "namespace", fmt.Sprintf("mnt:%d", inode), "-o", "json").Output()
		if err != nil {
			return 0, err
		}
		var n nsView
		if err := json.Unmarshal(text, &n); err != nil {
			return 0, err
		}
		for _, c := range n.Containers {
			if c.Container.ID == id {
				return c.PID, nil
			}
		}
		return 0, errors.New("it is not among them")
	}
	if pid, err := member(second.inodes()["mnt"]); err != nil || pid != after || after == before {
		t.Errorf("its first process is %d, want %d and not %d (%v)", pid, after, before, err)
	}
	// The kernel may have given the same number again.
	if old := first.inodes()["mnt"]; old != second.inodes()["mnt"] {
		if pid, err := member(old); err == nil {
			t.Errorf("it is still in the namespace of its first start, with process %d", pid)
		}
	}

	if _, err := d.CLI(t.Context(), "stop", "--time", "0", name); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of the container's namespaces", func() error {
		if c := askJSON[containerAnswer](t, tr, "get", "container", name); len(c.Namespaces) > 0 {
			return fmt.Errorf("they are %v", c.Namespaces)
		}
		return nil
	})
	if _, err := d.CLI(t.Context(), "rm", name); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of the container", func() error {
		out, err := tr.Command("get", "container", name).CombinedOutput()
		if err == nil {
			return errors.New("it is told")
		}
		if !strings.Contains(string(out), "no container is known by the id or name") {
			t.Fatalf("it says %q", out)
		}
		return nil
	})
	tr.Stop()
}

// takePid starts a process that has a given pid, which must be free.
func takePid(t *testing.T, pid int) *exec.Cmd {
	t.Helper()
	for range 2000 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			t.Cleanup(func() { endProcess(t, cmd) })
			return cmd
		}
		endProcess(t, cmd)
	}
	t.Fatalf("no process could be given the pid %d", pid)
	return nil
}

func endProcess(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Error(err)
	}
}

func TestAProcessThatIsGivenAContainersPidIsNotTheContainers(t *testing.T) {
	d := env.StartDocker(t)
	tr := harness.Start(t, withDocker(d, ""))
	name := strings.Trim(tag(), ":")
	id := d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sleep", "1000")
	pid := pidOf(t, d, id)
	c := askContainer(t, tr, name, pid)
	// dockerd can't tell of the end of the container.
	if err := d.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Resume(); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the container's end", func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
			return errors.New("its process is there")
		}
		return nil
	})
	other := takePid(t, pid)
	if got := askJSON[processAnswer](t, tr, "get", "pid", strconv.Itoa(pid)); got.Container != nil || got.Process.Comm != "sleep" {
		t.Errorf("the process that has the pid now is %+v", got)
	}
	until(t, "the end of the container's namespaces", func() error {
		c := askJSON[containerAnswer](t, tr, "get", "container", name)
		if len(c.Namespaces) > 0 {
			return fmt.Errorf("they are %v", c.Namespaces)
		}
		return nil
	})
	out, err := tr.Command("get", "namespace", fmt.Sprintf("net:%d", c.inodes()["net"])).CombinedOutput()
	if err == nil {
		t.Errorf("a namespace that is gone is told: %s", out)
	}
	if other.ProcessState != nil {
		t.Error("the process that has the pid ended: the test proves nothing")
	}
	tr.Stop()
}

// moveToRoot moves the processes of a container to the root of the default hierarchy,
// where those of a runtime are that knows cgroup v1 alone.
func moveToRoot(t *testing.T, id string) {
	t.Helper()
	root := filepath.Join(cgroupRoot(t), "cgroup.procs")
	procs := filepath.Join(findCgroup(t, id), "cgroup.procs")
	until(t, "the last process of the container's cgroup", func() error {
		text, err := os.ReadFile(procs)
		if err != nil {
			return err
		}
		left := strings.Fields(string(text))
		for _, pid := range left {
			if err := os.WriteFile(root, []byte(pid), 0); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("processes %v are there", left)
		}
		return nil
	})
}

// ticking is a command that executes /bin/noop with an argument again and again.
func ticking(arg string) []string {
	return []string{"sh", "-c", "while :; do /bin/noop " + arg + "; sleep 0.1; done"}
}

// waitTicks waits for some more execs of ticking, and gives the last.
func waitTicks(tr *harness.Tracer, arg string) *harness.Event {
	match := func(e *harness.Event) bool { return e.Arg(arg) && e.Process.Executable.Path == "/bin/noop" }
	before := len(harness.Select(tr.Events(), "process.exec", match))
	found := tr.UntilCount(before+5, "process.exec", match)
	return found[len(found)-1]
}

func TestContainersInTheHostsCgroupAreToldApartByTheirPidNamespaces(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	mine := tag()
	name := func(what string) string { return what + "-" + strings.Trim(mine, ":") }
	run := func(what string, args ...string) (id string) {
		t.Helper()
		args = append(append([]string{"--detach", "--name", name(what)}, args...), env.BusyboxImage)
		id = d.Run(t, append(args, ticking(mine+what)...)...)
		remove(t, d, id)
		askContainer(t, tr, name(what), pidOf(t, d, id))
		return id
	}
	alone := run("alone")
	pod := run("pod")
	sharer := run("sharer", "--pid", "container:"+pod)
	onHost := run("host", "--pid", "host")
	checkIs(t, waitTicks(tr, mine+"alone"), alone, name("alone"), busyboxName, "test")
	if n := tr.Stats().GetAttribution().GetByPidNamespace(); n != 0 {
		t.Errorf("%d events were told by the pid namespace that the cgroup tells", n)
	}
	for _, id := range []string{alone, pod, sharer, onHost} {
		moveToRoot(t, id)
	}
	// One that nobody knows.
	ctx, cancel := context.WithCancel(t.Context())
	unknown := exec.CommandContext(ctx, "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "while :; do /bin/true "+mine+"unknown; sleep 0.1; done")
	if err := unknown.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = unknown.Wait() // it was killed
	}()

	waitTicks(tr, mine+"alone") // some may be of processes that were not moved yet
	checkIs(t, waitTicks(tr, mine+"alone"), alone, name("alone"), busyboxName, "test")
	for _, what := range []string{"pod", "sharer", "host"} {
		waitTicks(tr, mine+what)
		if e := waitTicks(tr, mine+what); e.Container != nil || e.Pending {
			t.Errorf("what can't be told is: %s", e.Line)
		}
	}
	found := tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return e.Arg(mine + "unknown") })
	if e := found[0]; e.Container != nil || e.Pending || e.Process.Namespace.PID == 0 {
		t.Errorf("a process in a pid namespace that is no container's: %s", e.Line)
	}
	if n := tr.Stats().GetAttribution().GetByPidNamespace(); n == 0 {
		t.Error("no event is counted to have been told by its pid namespace")
	}

	// Once who shared it is gone, the namespace tells.
	if _, err := d.CLI(t.Context(), "rm", "--force", sharer); err != nil {
		t.Fatal(err)
	}
	until(t, "an event of the one that is left", func() error {
		if e := waitTicks(tr, mine+"pod"); e.Container == nil || e.Container.ID != pod {
			return errors.New(e.Line)
		}
		return nil
	})
	// And the exit of its first process is its own.
	pid := pidOf(t, d, alone)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exits := tr.UntilCount(1, "process.exit", of(pid))
	checkIs(t, one(t, "the end of the container", exits), alone, name("alone"), busyboxName, "test")
	tr.Stop()
}

func TestWithoutTheDefaultHierarchyThePidNamespaceTells(t *testing.T) {
	d := dockerd(t)
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, append([]string{"--detach", "--name", name, env.BusyboxImage}, ticking(mine)...)...)
	remove(t, d, id)
	moveToRoot(t, id)
	tr := harness.Prepare(t, withDocker(d, ""))
	tr.Through = []string{"unshare", "--mount", "sh", "-c", `umount "$0" && exec "$@"`, cgroupRoot(t)}
	tr.Launch()
	tr.WaitPlugins()
	until(t, "an event of the container", func() error {
		e := waitTicks(tr, mine)
		if e.Container == nil || e.Container.ID != id {
			return errors.New(e.Line)
		}
		return nil
	})
	checkIs(t, waitTicks(tr, mine), id, name, busyboxName, "test")
	if key := tr.Stats().GetAttribution().GetKey(); !strings.HasPrefix(key, "pid namespace: ") {
		t.Errorf("attribution goes by %q", key)
	}
	if log := tr.Log(); !strings.Contains(log, "attributed by their pid namespaces") {
		t.Errorf("the log does not say so:\n%s", log)
	}
	tr.Stop()
}
