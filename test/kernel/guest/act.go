package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// deeds are what was done, as the doers know it.
type deeds struct {
	exe    string // the path of this program
	cgroup struct {
		id   uint64
		name string // the last element of its path
	}
	pidns, mntns, netns uint32 // of all the children, which are ours
	exitProgram         string // the program that tells exits here

	spawn, exit, kill, open process
	dir                     string // of the opened files
	connections             []connection
	refusals                []refusal
}

type process struct {
	pid  uint32
	args []string
}

type connection struct {
	server, client         process
	serverAddr, clientAddr netip.AddrPort
}

type refusal struct {
	process
	to    netip.AddrPort
	errno int
}

// exitArgs are those of the child that exits with a code.
var exitArgs = []string{"exit", "7", "two words", "ümläut", ""}

// act does everything that the expectations are about, in a cgroup of its own.
func act() (d *deeds, err error) {
	d = &deeds{}
	if d.exe, err = os.Executable(); err != nil {
		return nil, err
	}
	if d.exe, err = filepath.EvalSymlinks(d.exe); err != nil {
		return nil, err
	}
	root, err := cgroup2()
	if err != nil {
		return nil, err
	}
	d.cgroup.name = fmt.Sprintf("ebpf-tracer-check-%d", os.Getpid())
	path := filepath.Join(root, d.cgroup.name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, err
	}
	d.cgroup.id = st.Ino
	for name, ns := range map[string]*uint32{"pid": &d.pidns, "mnt": &d.mntns, "net": &d.netns} {
		if err := syscall.Stat("/proc/self/ns/"+name, &st); err != nil {
			return nil, fmt.Errorf("look at namespace %s: %w", name, err)
		}
		*ns = uint32(st.Ino)
	}
	if d.dir, err = os.MkdirTemp("", "ebpf-tracer-check"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	return d, d.act(worker{exe: d.exe, cgroup: int(dir.Fd())})
}

func (d *deeds) act(w worker) error {
	var err error
	var out []byte
	if d.spawn, out, err = w.run((*os.ProcessState).Success, append([]string{"spawn"}, exitArgs...)...); err != nil {
		return err
	}
	pid, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 32)
	if err != nil {
		return fmt.Errorf("read a grandchild's pid: %w", err)
	}
	d.exit = process{pid: uint32(pid), args: append([]string{w.exe, "work"}, exitArgs...)}
	killed := func(s *os.ProcessState) bool { return s.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL }
	if d.kill, _, err = w.run(killed, "die"); err != nil {
		return err
	}
	if d.open, _, err = w.run((*os.ProcessState).Success, "open", d.dir); err != nil {
		return err
	}
	addresses := []string{"127.0.0.1:0"}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		addresses = append(addresses, "[::1]:0")
	}
	for _, a := range addresses {
		c, err := w.connect(a)
		if err != nil {
			return err
		}
		d.connections = append(d.connections, c)
	}
	// Nobody listens there any more, and nobody can be asked there: the first is
	// told by the socket's states, the second only by the call's result.
	for _, a := range []string{d.connections[0].serverAddr.String(), "255.255.255.255:80"} {
		p, out, err := w.run((*os.ProcessState).Success, "fail", a)
		if err != nil {
			return err
		}
		r := refusal{process: p, to: netip.MustParseAddrPort(a)}
		if r.errno, err = strconv.Atoi(strings.TrimSpace(string(out))); err != nil {
			return fmt.Errorf("read the errno: %w", err)
		}
		d.refusals = append(d.refusals, r)
	}
	return nil
}

// worker starts children of this program in a cgroup.
type worker struct {
	exe    string
	cgroup int // descriptor of its directory
}

func (w worker) command(args ...string) *exec.Cmd {
	c := exec.Command(w.exe, append([]string{"work"}, args...)...)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: w.cgroup, Pdeathsig: syscall.SIGKILL}
	return c
}

func (w worker) run(well func(*os.ProcessState) bool, args ...string) (process, []byte, error) {
	c := w.command(args...)
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	if c.ProcessState == nil || !well(c.ProcessState) {
		return process{}, nil, fmt.Errorf("child %q ended otherwise than planned: %v: %w", args, c.ProcessState, err)
	}
	return process{pid: uint32(c.ProcessState.Pid()), args: c.Args}, out.Bytes(), nil
}

// connect has one child serve another.
func (w worker) connect(address string) (connection, error) {
	var out connection
	server := w.command("serve", address)
	stdout, err := server.StdoutPipe()
	if err != nil {
		return out, err
	}
	if err := server.Start(); err != nil {
		return out, err
	}
	out.server = process{pid: uint32(server.Process.Pid), args: server.Args}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		err = w.ask(strings.TrimSpace(line), &out)
	}
	if err != nil {
		return out, errors.Join(err, server.Process.Kill(), server.Wait())
	}
	return out, server.Wait()
}

func (w worker) ask(address string, c *connection) error {
	var err error
	if c.serverAddr, err = netip.ParseAddrPort(address); err != nil {
		return fmt.Errorf("read the server's address: %w", err)
	}
	var out []byte
	if c.client, out, err = w.run((*os.ProcessState).Success, "dial", address); err != nil {
		return err
	}
	if c.clientAddr, err = netip.ParseAddrPort(lines(out)[0]); err != nil {
		return fmt.Errorf("read the client's address: %w", err)
	}
	return nil
}

// cgroup2 is where the default hierarchy is mounted.
func cgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for _, l := range lines(b) {
		mount, fs, _ := strings.Cut(l, " - ")
		if f := strings.Fields(mount); strings.HasPrefix(fs, "cgroup2 ") && len(f) > 4 {
			return f[4], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}
