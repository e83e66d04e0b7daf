package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// usageOf asks the daemon what a container uses until that is as wanted.
func usageOf(t *testing.T, tr *harness.Tracer, id, what string, as func(*protov1.Usage) bool) (u *protov1.Usage) {
	t.Helper()
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(50 * time.Millisecond) {
		found, err := tr.API().GetContainer(t.Context(), &protov1.GetContainerRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		if len(found.GetContainers()) == 1 {
			if u = found.GetContainers()[0].GetUsage(); u != nil && as(u) {
				return u
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: after %v the usage is %v", what, harness.Patience, u)
		}
	}
}

// later gives a reading that is from after now.
func later(t *testing.T, tr *harness.Tracer, id string) *protov1.Usage {
	t.Helper()
	now := time.Now().UnixNano()
	return usageOf(t, tr, id, "a new reading", func(u *protov1.Usage) bool { return u.GetTimeUnixNano() > now })
}

// disk is a directory on a block device and the device's path.
func disk(t *testing.T) (dir, device string) {
	t.Helper()
	if err := os.MkdirAll(env.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(env.Root, "disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		t.Fatalf("%s is on no block device, and this test needs one: %v", dir, err)
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		sys = filepath.Dir(sys) // control groups know whole disks
	}
	return dir, "/dev/" + filepath.Base(sys)
}

const mib = 1 << 20

// aQuarter of a CPU, 64 MiB, a bounded number of tasks, and a bound on a disk that is
// never reached: without any, kernels from 6.10 on count no I/O in cgroup v1.
func limited(device string, pids int) []string {
	return []string{
		"--cpus", "0.25", "--memory", "64m", "--shm-size", "64m", "--pids-limit", strconv.Itoa(pids),
		"--device-write-bps", device + ":10gb", "--device-read-bps", device + ":10gb",
	}
}

func TestWhatAContainerUsesIsWhatDockerAndTheKernelSay(t *testing.T) {
	d := dockerd(t)
	dir, device := disk(t)
	address := freeAddress(t)
	tr := harness.Start(t, withDocker(d, fmt.Sprintf("exporter \"prometheus\" { listen = %q }\nresources { interval = \"1s\" }\n", address)))
	const script = `dd if=/dev/zero of=/disk/x bs=64k count=16 oflag=direct conv=fsync 2>/dev/null
dd if=/disk/x of=/dev/null bs=64k iflag=direct 2>/dev/null
dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null
while :; do :; done`
	id := d.Run(t, append(append([]string{"--detach", "--volume", dir + ":/disk"}, limited(device, 50)...),
		env.BusyboxImage, "sh", "-c", script)...)
	remove(t, d, id)
	usageOf(t, tr, id, "the load", func(u *protov1.Usage) bool {
		return u.GetCpuThrottledPeriods() >= 10 && u.GetWrittenBytes() >= mib && u.GetMemoryBytes() >= 20*mib
	})
	if _, err := d.CLI(t.Context(), "pause", id); err != nil {
		t.Fatal(err)
	}
	// Nothing changes now.
	u, engine := later(t, tr, id), dockerStats(t, d, id)
	shown := scrape(t, address)
	if _, err := d.CLI(t.Context(), "unpause", id); err != nil {
		t.Fatal(err)
	}
	ns := func(seconds float64) uint64 { return uint64(seconds*1e9 + 0.5) }
	near := func(a, b, by uint64) bool { return max(a, b)-min(a, b) <= by }
	for _, c := range []struct {
		what      string
		got, want uint64
		by        uint64
	}{
		{"CPU", ns(u.GetCpuSeconds()), engine.CPU.Usage.Total, 1000},
		{"CPU in user mode", ns(u.GetCpuUserSeconds()), engine.CPU.Usage.User, 1000},
		{"CPU in the kernel", ns(u.GetCpuSystemSeconds()), engine.CPU.Usage.Kernel, 1000},
		{"periods", u.GetCpuPeriods(), engine.CPU.Throttling.Periods, 0},
		{"throttled periods", u.GetCpuThrottledPeriods(), engine.CPU.Throttling.Throttled, 0},
		{"throttled time", ns(u.GetCpuThrottledSeconds()), engine.CPU.Throttling.Time, 1000},
		{"memory", u.GetMemoryBytes(), engine.Memory.Usage, mib / 4}, // the kernel keeps some in stock for each CPU
		{"working set", u.GetMemoryWorkingSetBytes(), engine.workingSet(), mib / 4},
		{"memory limit", u.GetMemoryLimitBytes(), engine.Memory.Limit, 0},
		{"memory limit as it was written", u.GetMemoryLimitBytes(), 64 * mib, 0},
		{"tasks", u.GetPids(), engine.Pids.Current, 0},
		{"tasks limit", u.GetPidsLimit(), 50, 0},
		{"bytes read", u.GetReadBytes(), ioOf(engine.IO.Bytes, "read"), 0},
		{"bytes written", u.GetWrittenBytes(), ioOf(engine.IO.Bytes, "write"), 0},
		{"reads", u.GetReads(), ioOf(engine.IO.Ops, "read"), 0},
		{"writes", u.GetWrites(), ioOf(engine.IO.Ops, "write"), 0},
	} {
		if !near(c.got, c.want, c.by) {
			t.Errorf("%s: %d, docker says %d", c.what, c.got, c.want)
		}
	}
	if u.GetWrittenBytes() < mib || u.GetReadBytes() < mib || u.GetWrites() < 16 {
		t.Errorf("1 MiB was written and read in 16 parts; told are %d written in %d, %d read", u.GetWrittenBytes(), u.GetWrites(), u.GetReadBytes())
	}
	if u.GetMemoryPeakBytes() < u.GetMemoryBytes() || u.GetMemoryPeakBytes() > 64*mib {
		t.Errorf("the peak is %d of %d now", u.GetMemoryPeakBytes(), u.GetMemoryBytes())
	}
	t.Logf("from %s: %v", u.GetSource(), u)

	// The metrics are of the last pass, a second ago at most, when the container may not
	// have been paused yet.
	labels := map[string]string{"name": nameOf(t, d, id), "image": env.BusyboxImage}
	for name, want := range map[string][2]float64{
		"container_cpu_usage_seconds_total":            {u.GetCpuSeconds() - 2, u.GetCpuSeconds()},
		"container_memory_working_set_bytes":           {20 * mib, float64(u.GetMemoryWorkingSetBytes() + mib)},
		"container_spec_memory_limit_bytes":            {64 * mib, 64 * mib},
		"container_spec_cpu_quota":                     {25_000, 25_000},
		"container_spec_cpu_period":                    {100_000, 100_000},
		"container_threads_max":                        {50, 50},
		"ebpf_tracer_container_io_written_bytes_total": {mib, float64(u.GetWrittenBytes())},
	} {
		found := shown.find(name, labels)
		if len(found) != 1 || found[0].value < want[0] || found[0].value > want[1] {
			t.Errorf("%s is %v, want %v", name, found, want)
			continue
		}
		if group := found[0].labels["id"]; !strings.HasSuffix(group, "/"+id) {
			t.Errorf("%s has the id %q", name, group)
		}
	}

	// With its container a series ends.
	if _, err := d.CLI(t.Context(), "rm", "--force", id); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(harness.Patience)
	for len(scrape(t, address).find("container_threads", labels)) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("a container that is gone has metrics")
		}
		time.Sleep(50 * time.Millisecond)
	}
	tr.Stop()
}

func TestACommandTellsWhatAContainerUses(t *testing.T) {
	d := dockerd(t)
	type answer struct {
		Usage *struct {
			CPU     float64 `json:"cpu_seconds"`
			Limit   uint64  `json:"memory_limit_bytes"`
			Memory  uint64  `json:"memory_bytes"`
			Pids    uint64  `json:"pids"`
			MostPid uint64  `json:"pids_limit"`
			Sent    *uint64 `json:"sent_packets"`
			Source  string
		}
	}
	for _, block := range []string{"", "resources {}\n"} {
		tr := harness.Start(t, withDocker(d, block))
		id := d.Run(t, "--detach", "--memory", "64m", "--pids-limit", "50", env.BusyboxImage, "sh", "-c", "sleep 1000 & exec sleep 1000")
		remove(t, d, id)
		tr.WaitContainer(id)
		u := usageOf(t, tr, id, "both processes", func(u *protov1.Usage) bool { return u.GetPids() == 2 })
		text := tr.Ask("get", "container", id)
		_, shown, _ := strings.Cut(text, "\nusage\n")
		shown, _, _ = strings.Cut(shown, "\n\n")
		for _, want := range []string{
			`(?m)^  cpu +in all \d`, `(?m)^  memory +now \d.*, limit 64\.0MiB`, `(?m)^  memory .*out of memory kills 0$`, `(?m)^  pids +now 2, limit 50$`,
			`(?m)^  as told by +` + regexp.QuoteMeta(u.GetSource()) + `$`,
		} {
			if !regexp.MustCompile(want).MatchString(shown) {
				t.Errorf("with %q the usage is shown as\n%s\nwithout %s", block, shown, want)
			}
		}
		if got := strings.Contains(shown, "\n  network "); got != (block != "") {
			t.Errorf("with %q the usage is shown as\n%s", block, shown)
		}
		told := askJSON[answer](t, tr, "get", "container", id).Usage
		if told == nil || told.CPU <= 0 || told.Limit != 64*mib || told.Memory == 0 || told.Pids != 2 || told.MostPid != 50 ||
			told.Source != u.GetSource() || (told.Sent != nil) != (block != "") {
			t.Errorf("with %q the usage is told as %+v", block, told)
		}
		tr.Stop()
	}
}

func nameOf(t *testing.T, d *env.Docker, id string) string {
	t.Helper()
	name, err := d.CLI(t.Context(), "inspect", "--format", "{{.Name}}", id)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(name, "/")
}

func TestAContainerNearItsLimitsIsWarnedOfAndAnOOMKillIsCounted(t *testing.T) {
	d := dockerd(t)
	address := freeAddress(t)
	tr := harness.Start(t, withDocker(d, fmt.Sprintf("exporter \"prometheus\" { listen = %q }\nresources { interval = \"1s\" }\n", address)))
	full := d.Run(t, "--detach", "--memory", "64m", "--shm-size", "64m", env.BusyboxImage, "sh", "-c",
		"dd if=/dev/zero of=/dev/shm/x bs=1M count=60 2>/dev/null; while [ ! -e /empty ]; do sleep 0.1; done; rm /dev/shm/x; sleep 1000")
	remove(t, d, full)
	killed := d.Run(t, "--detach", "--memory", "16m", "--memory-swap", "16m", env.BusyboxImage, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000")
	remove(t, d, killed)
	u := usageOf(t, tr, killed, "the kill", func(u *protov1.Usage) bool { return u.GetOomKills() > 0 })
	if u.GetOomKills() != 1 {
		t.Errorf("one process was killed, told are %d", u.GetOomKills())
	}
	state, err := d.CLI(t.Context(), "inspect", "--format", "{{.State.Running}}", killed)
	if err != nil || state != "true" {
		t.Errorf("the container itself was to go on: %s, %v", state, err)
	}
	u = usageOf(t, tr, full, "full memory", func(u *protov1.Usage) bool { return u.GetMemoryWorkingSetBytes() >= 60*mib })
	if u.GetMemoryWorkingSetBytes() > u.GetMemoryLimitBytes() || u.GetMemoryLimitBytes() != 64*mib {
		t.Errorf("%d of %d", u.GetMemoryWorkingSetBytes(), u.GetMemoryLimitBytes())
	}
	name := nameOf(t, d, full)
	wait := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(harness.Patience); !ok(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not after %v", what, harness.Patience)
			}
		}
	}
	near := map[string]string{"name": name, "resource": "memory"}
	wait("the warning", func() bool {
		found := scrape(t, address).find("ebpf_tracer_container_near_limit_ratio", near)
		return len(found) == 1 && found[0].value >= 0.9 && found[0].value <= 1
	})
	if found := scrape(t, address).find("ebpf_tracer_container_limit_warnings_total", map[string]string{"resource": "memory"}); len(found) != 1 || found[0].value < 1 {
		t.Errorf("the warnings are %v", found)
	}
	if found := scrape(t, address).find("container_oom_events_total", map[string]string{"name": nameOf(t, d, killed)}); len(found) != 1 || found[0].value != 1 {
		t.Errorf("the kills are %v", found)
	}
	if _, err := d.CLI(t.Context(), "exec", full, "touch", "/empty"); err != nil {
		t.Fatal(err)
	}
	wait("the end of the warning", func() bool {
		return len(scrape(t, address).find("ebpf_tracer_container_near_limit_ratio", near)) == 0
	})
	tr.Stop()
	warned, ended := 0, 0
	for line := range strings.Lines(tr.Log()) {
		if strings.Contains(line, "container="+name) && strings.Contains(line, "resource=memory") {
			if strings.Contains(line, "a container is near to a limit") {
				warned++
			} else {
				ended++
			}
		}
	}
	if warned != 1 || ended != 1 {
		t.Errorf("the log warns %d times and ends it %d times", warned, ended)
	}
}

func TestTheTrafficOfAContainerIsWhatItSent(t *testing.T) {
	d := env.StartDocker(t, env.WithBridge())
	tr := harness.Start(t, withDocker(d, "resources { interval = \"1s\" }\n"))
	const port, payload = "7654", 3_000_000
	listener := exec.CommandContext(t.Context(), "nsenter", "--net="+d.Netns(), "--", "busybox", "nc", "-l", "-p", port)
	received, err := listener.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	input, err := listener.StdinPipe() // at its end the listener would say goodbye
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	counted := make(chan int64, 1)
	go func() {
		n, err := io.Copy(io.Discard, received)
		if err != nil {
			t.Error(err)
		}
		counted <- n
	}()
	id := d.Run(t, "--detach", env.BusyboxImage, "sh", "-c", fmt.Sprintf(
		"host=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); until dd if=/dev/zero bs=1000 count=%d 2>/dev/null | nc $host %s; do sleep 0.1; done; sleep 1000", payload/1000, port))
	remove(t, d, id)
	if n := <-counted; n != payload {
		t.Fatalf("the listener received %d bytes", n)
	}
	if err := errors.Join(input.Close(), listener.Wait()); err != nil {
		t.Fatal(err)
	}
	u := usageOf(t, tr, id, "the traffic", func(u *protov1.Usage) bool { return u.GetSentBytes() > payload })
	// Each packet has 20 bytes of IPv4 and 20 of TCP, with options at most 60, before its
	// payload; what the stack handles as one packet may be up to 64 KiB.
	sent, packets := u.GetSentBytes(), u.GetSentPackets()
	if sent < payload+40*packets || sent > payload+80*packets || packets < payload/65536 {
		t.Errorf("%d bytes in %d packets were sent, of them %d were the payload", sent, packets, payload)
	}
	if got, packets := u.GetReceivedBytes(), u.GetReceivedPackets(); packets == 0 || got < 40*packets || got > 80*packets {
		t.Errorf("%d bytes in %d packets came back, which were acknowledgements", got, packets)
	}
	t.Logf("sent %d bytes of payload: %d in %d packets; received %d in %d", payload, sent, packets, u.GetReceivedBytes(), u.GetReceivedPackets())
	tr.Stop()
}

func TestAProcessInAGroupInsideAContainerIsTheContainers(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, "resources { interval = \"1s\" }\n"))
	const payload = 200_000
	id := d.Run(t, "--detach", "--memory", "256m", env.BusyboxImage, "sh", "-c", fmt.Sprintf(
		`sleep 1000 | nc -l -p 7777 >/dev/null & sh -c 'while [ ! -e /go ]; do sleep 0.1; done
dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null
dd if=/dev/zero bs=1000 count=%d 2>/dev/null | nc 127.0.0.1 7777
i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; touch /done; exec sleep 1000' & wait`, payload/1000))
	remove(t, d, id)
	tr.WaitContainer(id)
	before := later(t, tr, id)
	pid := innerShell(t, d, id)
	for _, group := range groupsOf(t, pid) {
		inner := makeCgroup(t, filepath.Join(group, "inside"))
		if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // before the groups are taken off
		if out, err := d.Command(ctxOf(t), "rm", "--force", id).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	if _, err := d.CLI(t.Context(), "exec", id, "touch", "/go"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(harness.Patience)
	for {
		if _, err := d.CLI(t.Context(), "exec", id, "test", "-e", "/done"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process inside has not done its work")
		}
		time.Sleep(100 * time.Millisecond)
	}
	u := later(t, tr, id)
	if got := u.GetCpuSeconds() - before.GetCpuSeconds(); got < 0.05 {
		t.Errorf("it used %.3f s of CPU", got)
	}
	if got := u.GetMemoryWorkingSetBytes(); got < 8*mib {
		t.Errorf("its working set is %d", got)
	}
	if got := u.GetSentBytes(); got < payload || got > payload+payload/2 {
		t.Errorf("%d bytes were sent", got)
	}
	if got := u.GetReceivedBytes(); got < payload || got > payload+payload/2 {
		t.Errorf("%d bytes were received", got)
	}
	tr.Stop()
}

// innerShell finds the shell that waits inside a container.
func innerShell(t *testing.T, d *env.Docker, id string) int {
	t.Helper()
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(50 * time.Millisecond) {
		out, err := d.CLI(t.Context(), "top", id, "-o", "pid,args")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			pid, args, _ := strings.Cut(strings.TrimSpace(line), " ")
			if strings.HasPrefix(strings.TrimSpace(args), "sh -c while") {
				n, err := strconv.Atoi(pid)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the container's processes are\n%s", out)
		}
	}
}

// groupsOf are the directories of a process's control groups that account something.
func groupsOf(t *testing.T, pid int) (dirs []string) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for mount := range strings.Lines(string(mounts)) {
			m := strings.Fields(mount)
			v2 := f[1] == "" && m[2] == "cgroup2"
			v1 := m[2] == "cgroup" && strings.Contains(","+m[3]+",", ","+f[1]+",") && (f[1] == "memory" || f[1] == "pids" || strings.Contains(f[1], "cpuacct"))
			if v2 || v1 {
				dirs = append(dirs, m[1]+f[2])
				break
			}
		}
	}
	if len(dirs) == 0 {
		t.Fatalf("process %d is in\n%s", pid, status)
	}
	return dirs
}
