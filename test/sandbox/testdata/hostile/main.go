// Command hostile is a discoverer that tries what no plugin may do and tells how each
// attempt went, as the labels of a container that it makes up. Run with the word
// "attempt" it prints the same, to show what the attempts do where nothing stops them.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// config says whom to attack.
type config struct {
	Daemon   int    `json:"daemon"`   // its pid
	Outside  string `json:"outside"`  // a directory that everybody may write to
	Victim   string `json:"victim"`   // a unix socket that everybody may connect to
	Abstract string `json:"abstract"` // likewise, abstract
	Datagram string `json:"datagram"` // an abstract socket of datagrams
	Allowed  string `json:"allowed"`  // a unix socket that was granted
	Shown    string `json:"shown"`    // a directory to read that was granted
	TCP      string `json:"tcp"`
	UDP      string `json:"udp"`
	Bomb     int    `json:"bomb"` // processes to start
	Hog      int    `json:"hog"`  // bytes of memory to take
	// Gentle leaves out what would harm a host where nothing stops it.
	Gentle bool `json:"gentle"`
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "sleep":
			time.Sleep(time.Hour)
		case "orphan": // leaves a process of its own session behind
			if err := start("sleep"); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			os.Exit(0)
		case "attempt":
			var c config
			if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
				panic(err)
			}
			if err := json.NewEncoder(os.Stdout).Encode(attempts(c)); err != nil {
				panic(err)
			}
			return
		}
	}
	text := func(name string) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.String, Doc: "Whom to attack."}
	}
	granted := text("allowed")
	granted.Opens = schema.Socket
	shown := text("shown")
	shown.Opens = schema.Path
	plugin.Serve(plugin.Discoverer[config]{
		Name: "hostile", Version: "1.0", Doc: "Tries what no plugin may do.",
		Schema: schema.Block{Attributes: []schema.Attribute{
			{Name: "daemon", Type: schema.Integer, Required: true, Doc: "The daemon's pid."},
			text("outside"), text("victim"), text("abstract"), text("datagram"), granted, shown, text("tcp"), text("udp"),
			{Name: "bomb", Type: schema.Integer, Default: int64(0), Doc: "Processes to start."},
			{Name: "hog", Type: schema.Integer, Default: int64(0), Doc: "Bytes of memory to take."},
		}},
		New: func(_ context.Context, c config, _ plugin.Env) (discover.Discoverer, error) { return hostile{c}, nil },
	})
}

type hostile struct{ config }

func (hostile) Detect(context.Context) (string, error) { return "everywhere", nil }

func (h hostile) Discover(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
	taken := make([]byte, h.Hog)
	for i := 0; i < len(taken); i += os.Getpagesize() {
		taken[i] = 1
	}
	told := &protov1.Container{Id: strings.Repeat("ab", 32), Name: "attempts", Labels: attempts(h.config)}
	if err := errors.Join(inv.Reset(), inv.Container(told), inv.Synced()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// attempts tries everything. A value of "done" is a success.
func attempts(c config) map[string]string {
	out := map[string]string{}
	try := func(name string, err error) {
		out[name] = "done"
		if err != nil {
			out[name] = err.Error()
		}
	}
	daemon := strconv.Itoa(c.Daemon)
	read := func(name, path string) {
		_, err := os.ReadFile(path)
		try(name, err)
	}
	read("read /etc/shadow", "/etc/shadow")
	read("read /etc/shadow through the daemon", "/proc/"+daemon+"/root/etc/shadow")
	read("read /etc/shadow through init", "/proc/1/cwd/../../../etc/shadow")
	read("read the daemon's environment", "/proc/"+daemon+"/environ")
	read("read the host's passwd", "/etc/passwd")
	write := func(name, path string) { try(name, os.WriteFile(path, []byte("was here"), 0o666)) }
	write("write outside", filepath.Join(c.Outside, "hostile"))
	try("connect to a socket of others", dial("unix", c.Victim))
	try("connect to an abstract socket of others", dial("unix", "@"+c.Abstract))
	try("connect by TCP", dial("tcp", c.TCP))
	try("send by UDP", dial("udp", c.UDP))
	try("send by one of a pair of sockets", sendFromPair("@"+c.Datagram))
	try("outlive the daemon", outlived)
	if c.Shown != "" {
		try("write to a directory that it reads", os.WriteFile(filepath.Join(c.Shown, "hostile"), nil, 0o666))
		_, err := os.ReadDir(c.Shown)
		try("read what it was granted", err)
	}
	if c.Allowed != "" {
		try("connect to its own socket", dial("unix", c.Allowed))
	}
	try("signal the daemon", unix.Kill(c.Daemon, 0))
	try("read the daemon's memory", readMemory(c.Daemon))
	try("open a packet socket", socket(unix.AF_PACKET, unix.SOCK_RAW))
	try("open a netlink socket", socket(unix.AF_NETLINK, unix.SOCK_RAW))
	try("open a unix datagram socket", socket(unix.AF_UNIX, unix.SOCK_DGRAM))
	try("execute what it wrote", executeWritten())
	try("fill its temporary files", fill(filepath.Join(os.TempDir(), "large"), 128<<20))
	if c.Gentle {
		return out
	}
	write("write beside its program", "/plugin/hostile")
	write("write into the root", "/hostile")
	write("write over its program", "/proc/self/exe")
	write("write a kernel setting", "/proc/sys/kernel/core_pattern")
	write("write the daemon's memory", "/proc/"+daemon+"/mem")
	try("ptrace the daemon", unix.PtraceAttach(c.Daemon))
	try("kill the daemon", unix.Kill(c.Daemon, unix.SIGKILL))
	try("mount", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	try("make a user namespace", unix.Unshare(unix.CLONE_NEWUSER))
	try("become root", unix.Setresuid(0, 0, 0))
	try("change the root", unix.Chroot("/tmp"))
	try("make a device", unix.Mknod("/tmp/sda", unix.S_IFBLK|0o666, 8<<8))
	try("raise its limits", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}))
	try("use io_uring", call(unix.SYS_IO_URING_SETUP))
	try("use bpf", call(unix.SYS_BPF))
	try("load a module", call(unix.SYS_INIT_MODULE))
	try("open a perf event", call(unix.SYS_PERF_EVENT_OPEN))
	try("have the kernel's settings writable", writable("/proc"))
	out["network namespace"], _ = os.Readlink("/proc/self/ns/net")
	out["environment"] = strings.Join(os.Environ(), "\n")
	out["open files"] = openFiles()
	out["user"] = strconv.Itoa(os.Getuid())
	out["processes seen"] = processes()
	out["grandchild"] = "done"
	if err := exec.Command("/proc/self/exe", "orphan").Run(); err != nil {
		out["grandchild"] = err.Error()
	}
	if c.Bomb > 0 {
		n := 0
		for ; n < c.Bomb; n++ {
			if err := start("sleep"); err != nil {
				out["fork bomb"] = err.Error()
				break
			}
		}
		out["processes started"] = strconv.Itoa(n)
	}
	return out
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	if network == "udp" { // only now is anything sent
		_, err = c.Write([]byte("was here"))
	}
	return errors.Join(err, c.Close())
}

// sendFromPair sends to an address without a socket that was made for that.
func sendFromPair(address string) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	err = unix.Sendto(pair[0], []byte("was here"), 0, &unix.SockaddrUnix{Name: address})
	return errors.Join(err, unix.Close(pair[0]), unix.Close(pair[1]))
}

// outlived is the result of outlive.
var outlived error

// What ends a process with its parent is a thing of its first thread, which only init
// can be sure to run on.
func init() {
	runtime.LockOSThread()
	outlived = outlive()
	runtime.UnlockOSThread()
}

// outlive undoes what ends this process with its parent.
func outlive() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
		return err
	}
	var signal int32
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&signal)), 0, 0, 0); err != nil {
		return err
	}
	if signal != 0 {
		return fmt.Errorf("it still ends by signal %d", signal)
	}
	return nil
}

func writable(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return unix.EROFS
	}
	return nil
}

func readMemory(pid int) error {
	var buf [8]byte
	local := []unix.Iovec{{Base: &buf[0], Len: 8}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
	return err
}

func socket(family, kind int) error {
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// call makes a system call with arguments that are all wrong: its error says whether
// the kernel looked at them.
func call(n uintptr) error {
	_, _, e := unix.Syscall(n, 0, uintptr(unsafe.Pointer(nil)), 0)
	return e
}

func executeWritten() error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	at := filepath.Join(os.TempDir(), "copy")
	defer os.Remove(at)
	if err := os.WriteFile(at, program, 0o755); err != nil {
		return err
	}
	out, err := exec.Command(at, "orphan").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// fill writes a file bit by bit: it is the file that is to be too large, not the memory
// that it is written from.
func fill(path string, size int) (err error) {
	defer os.Remove(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	part := make([]byte, 1<<20)
	for at := 0; at < size && err == nil; at += len(part) {
		_, err = f.Write(part)
	}
	return errors.Join(err, f.Close())
}

func start(word string) error {
	cmd := exec.Command("/proc/self/exe", word)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

func openFiles() string {
	var out []string
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err.Error()
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			out = append(out, to)
		}
	}
	return strings.Join(out, "\n")
}

func processes() string {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(len(all))
}
