package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/resource"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// What the children of a container do, and its limits.
const (
	burned       = 300 * time.Millisecond // CPU time
	allocated    = 32 << 20               // bytes
	memoryLimit  = 64 << 20               // bytes
	pidsLimit    = 20
	datagrams    = 50
	datagramSize = 700
	ipv4Header   = 20 + 8 // with UDP's
)

// measured is a container that the guest makes: control groups, and what an inventory
// is told of them.
type measured struct {
	id        string
	dirs      []string // of its group in each hierarchy
	inner     string   // a group inside it, on v2
	inventory *inventory.Inventory
	account   *kernel.Account
	monitor   *resource.Monitor
}

// resources makes a container, has children use its resources, and proves that what
// core/resource tells of it is what they used: whatever this host has its controllers
// in, with the accounting of traffic by the kernel's programs. It prints a line for each
// finding and gives how many are wrong.
func resources(out io.Writer, emulated bool) (wrong int, err error) {
	m, err := newMeasured(emulated)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	fmt.Fprintf(out, "accounting %s %s\n", m.account.Probe().State(), strings.Join(m.account.Probe().Programs, " "))
	check := func(sentence string, ok bool, found any) {
		if ok {
			fmt.Fprintf(out, "ok    %s\n", sentence)
			return
		}
		wrong++
		fmt.Fprintf(out, "FAIL  %s: %v\n", sentence, found)
	}

	used, err := m.run("burn")
	if err != nil {
		return wrong, err
	}
	micro, err := strconv.ParseInt(used, 10, 64)
	if err != nil {
		return wrong, err
	}
	u, err := m.usage()
	if err != nil {
		return wrong, err
	}
	took := float64(micro) / 1e6
	check("CPU time is what the process itself was told to have used", u.GetCpuSeconds() > 0.9*took && u.GetCpuSeconds() < 1.2*took+0.2,
		fmt.Sprintf("%.3f s of %.3f s", u.GetCpuSeconds(), took))
	parts := u.GetCpuUserSeconds() + u.GetCpuSystemSeconds()
	check("user and system time are all of it", parts > u.GetCpuSeconds()-0.05 && parts < u.GetCpuSeconds()+0.05,
		fmt.Sprintf("%.3f s + %.3f s of %.3f s", u.GetCpuUserSeconds(), u.GetCpuSystemSeconds(), u.GetCpuSeconds()))
	check("a fifth of a CPU throttles it", u.GetCpuThrottledPeriods() > 0 && u.GetCpuThrottledPeriods() <= u.GetCpuPeriods() && u.GetCpuThrottledSeconds() > 0,
		fmt.Sprintf("%d of %d periods, %.3f s", u.GetCpuThrottledPeriods(), u.GetCpuPeriods(), u.GetCpuThrottledSeconds()))
	if _, err := os.Stat("/proc/pressure/cpu"); err == nil {
		stalled := 0.0
		for _, p := range u.GetPressure() {
			if p.GetResource() == "cpu" {
				stalled = p.GetSomeSeconds()
			}
		}
		check("being throttled is a stall", len(u.GetPressure()) == 3 && stalled > 0, u.GetPressure())
	}

	stop, err := m.start("allocate")
	if err != nil {
		return wrong, err
	}
	u, err = m.usage()
	if err = errors.Join(err, stop()); err != nil {
		return wrong, err
	}
	check("memory that a process touched is in the working set", u.GetMemoryWorkingSetBytes() >= allocated && u.GetMemoryWorkingSetBytes() < allocated+16<<20 &&
		u.GetMemoryBytes() >= u.GetMemoryWorkingSetBytes() && u.GetMemoryLimitBytes() == memoryLimit,
		fmt.Sprintf("%d in all, %d, limit %d", u.GetMemoryBytes(), u.GetMemoryWorkingSetBytes(), u.GetMemoryLimitBytes()))
	check("one process was there, of at most 20", u.GetPids() >= 1 && u.GetPids() <= pidsLimit && u.GetPidsLimit() == pidsLimit, fmt.Sprintf("%d tasks of %d", u.GetPids(), u.GetPidsLimit()))
	if _, err := m.run("exhaust"); err == nil || !strings.Contains(err.Error(), "killed") {
		check("a process that takes too much is killed", false, err)
	}
	if u, err = m.usage(); err != nil {
		return wrong, err
	}
	check("the kill is counted, once", u.GetOomKills() == 1, u.GetOomKills())
	if u.MemoryPeakBytes != nil { // from 5.19 on, on v2
		check("the peak is the limit", u.GetMemoryPeakBytes() > memoryLimit-1<<20 && u.GetMemoryPeakBytes() < memoryLimit+1<<20, u.GetMemoryPeakBytes())
	}

	sent := u.GetSentPackets()
	if _, err := m.run("datagrams"); err != nil {
		return wrong, err
	}
	if _, err := m.runIn(m.inner, "datagrams"); err != nil {
		return wrong, err
	}
	time.Sleep(time.Second) // a reading is that fresh
	if u, err = m.usage(); err != nil {
		return wrong, err
	}
	const all, bytes = 2 * datagrams, 2 * datagrams * (datagramSize + ipv4Header)
	check("datagrams are counted to the byte, also those of a group inside", sent == 0 && u.GetSentPackets() == all && u.GetSentBytes() == bytes &&
		u.GetReceivedPackets() == all && u.GetReceivedBytes() == bytes,
		fmt.Sprintf("sent %d of %d bytes in %d packets, received %d in %d; before %d", u.GetSentBytes(), bytes, u.GetSentPackets(), u.GetReceivedBytes(), u.GetReceivedPackets(), sent))
	fmt.Fprintf(out, "figures are from %s\n", u.GetSource())
	return wrong, nil
}

func newMeasured(emulated bool) (_ *measured, err error) {
	root, err := cgroup2()
	if err != nil {
		return nil, err
	}
	m := &measured{id: fmt.Sprintf("ebpf-tracer-check-%d-r", os.Getpid())}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	layout, err := resource.Find(root)
	if err != nil {
		return nil, err
	}
	hierarchies := []string{root}
	for _, p := range layout.Places() {
		if dir, ok := strings.CutPrefix(p.Where, "cgroup1 at "); ok {
			hierarchies = append(hierarchies, dir)
		}
	}
	for _, h := range hierarchies {
		dir := filepath.Join(h, m.id)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) { // two controllers in one
			return nil, err
		}
		m.dirs = append(m.dirs, dir)
	}
	m.inner = filepath.Join(root, m.id, "inner")
	if err := os.Mkdir(m.inner, 0o755); err != nil {
		return nil, err
	}
	limit := m.limit
	if emulated {
		limit = func() error { return onOneCPU(m.limit) }
	}
	if err := limit(); err != nil {
		return nil, err
	}
	if m.account, err = kernel.NewAccount(root); err != nil {
		return nil, err
	}
	m.inventory = inventory.New(inventory.Options{})
	if _, err := m.inventory.Scan(root); err != nil {
		return nil, err
	}
	m.monitor = resource.New(resource.Options{Inventory: m.inventory, Hierarchies: layout, Traffic: m.account})
	return m, m.inventory.Apply("check", []*protov1.InventoryChange{{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{
		Id: m.id, CgroupPath: "/" + m.id, State: protov1.Container_STATE_RUNNING,
	}}}})
}

// onOneCPU does something while the machine's second CPU is off. With the first quota
// for CPU time the kernel patches its scheduler, and an emulated CPU that runs that code at
// the same time may stop at the breakpoint of the patch after it was taken out.
func onOneCPU(do func() error) error {
	const online = "/sys/devices/system/cpu/cpu1/online"
	if err := os.WriteFile(online, []byte("0"), 0); err != nil {
		return fmt.Errorf("turn the second CPU off: %w", err)
	}
	err := do()
	if e := os.WriteFile(online, []byte("1"), 0); e != nil {
		err = errors.Join(err, fmt.Errorf("turn the second CPU on: %w", e))
	}
	return err
}

// limit writes the limits, in the words of whichever version the controller is in.
func (m *measured) limit() error {
	set := 0
	for name, text := range map[string]string{
		"cpu.max": "20000 100000", "cpu.cfs_quota_us": "20000", "pids.max": strconv.Itoa(pidsLimit),
		"memory.max": strconv.Itoa(memoryLimit), "memory.limit_in_bytes": strconv.Itoa(memoryLimit),
		"memory.swap.max": "0", "memory.swappiness": "0",
	} {
		for _, dir := range m.dirs {
			err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0)
			switch {
			case err == nil:
				set++
			case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission): // no such file, which can't be made either
				return err
			}
		}
	}
	if set < 3 {
		return fmt.Errorf("only %d limits could be set: this host lacks controllers", set)
	}
	return nil
}

func (m *measured) close() error {
	var err error
	if m.account != nil {
		err = m.account.Close()
	}
	for _, dir := range append([]string{m.inner}, m.dirs...) {
		e := os.Remove(dir)
		for end := time.Now().Add(patience); errors.Is(e, unix.EBUSY) && time.Now().Before(end); e = os.Remove(dir) {
			time.Sleep(10 * time.Millisecond) // the last process is not quite gone
		}
		if !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (m *measured) usage() (*protov1.Usage, error) {
	u, ok := m.monitor.Of(&protov1.ContainerRef{Id: m.id})
	if !ok {
		return nil, errors.New("the container's usage is not known")
	}
	return u, nil
}

// command is a child that joins the container's groups, or one inside, before it works.
func (m *measured) command(in string, work string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dirs := m.dirs
	if in != "" {
		dirs = append([]string{in}, m.dirs[1:]...)
	}
	c := exec.Command(exe, append([]string{"work", "join", work}, dirs...)...)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c, nil
}

func (m *measured) run(work string) (string, error) { return m.runIn("", work) }

func (m *measured) runIn(in, work string) (string, error) {
	c, err := m.command(in, work)
	if err != nil {
		return "", err
	}
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", work, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// start starts a child that says when it is ready and ends with its standard input.
func (m *measured) start(work string) (stop func() error, err error) {
	c, err := m.command("", work)
	if err != nil {
		return nil, err
	}
	stdin, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	stop = func() error { return errors.Join(stdin.Close(), c.Wait()) }
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", work, err), stop())
	}
	return stop, nil
}

// join works in control groups.
func join(work string, dirs []string) error {
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	switch work {
	case "burn":
		return burn()
	case "allocate":
		return allocate(allocated)
	case "exhaust":
		return allocate(4 * memoryLimit)
	case "datagrams":
		return sendDatagrams()
	}
	return errors.New("no such work")
}

// burn uses CPU time and tells how much, in microseconds.
func burn() error {
	began, err := cpuTime()
	if err != nil {
		return err
	}
	for {
		now, err := cpuTime()
		if err != nil {
			return err
		}
		if now-began >= burned {
			fmt.Println((now - began).Microseconds())
			return nil
		}
	}
}

func cpuTime() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// allocate touches memory, says so, and waits for the end of its standard input.
func allocate(bytes int) error {
	memory, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for at := 0; at < bytes; at += os.Getpagesize() {
		memory[at] = 1
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return unix.Munmap(memory)
}

// sendDatagrams sends to itself over the loopback.
func sendDatagrams() error {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, datagramSize)
	for range datagrams {
		if _, err := c.WriteTo(b, c.LocalAddr()); err != nil {
			return err
		}
		if n, _, err := c.ReadFrom(b); err != nil || n != datagramSize {
			return fmt.Errorf("received %d of %d bytes: %w", n, datagramSize, err)
		}
	}
	return nil
}
