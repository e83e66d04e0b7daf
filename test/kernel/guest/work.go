package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bytes that a client sends and a server answers with.
const (
	request  = 12345
	response = 54321
)

// work is what a traced child does.
func work(name string, args []string) error {
	switch name {
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "spawn":
		return spawn(args)
	case "die":
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	case "serve":
		return serve(args[0])
	case "dial":
		return dial(args[0])
	case "fail":
		return failToConnect(args[0])
	case "open":
		return openFiles(args[0])
	case "join":
		return join(args[0], args[1:])
	}
	return fmt.Errorf("no such work")
}

// spawn has a child of its own do the work `exit 7`, and tells its pid. The tracer
// leaves out the forks of its own process, so this one is told.
func spawn(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(exe, append([]string{"work"}, args...)...)
	err = c.Run()
	if c.ProcessState.ExitCode() != 7 {
		return fmt.Errorf("child ended otherwise than planned: %w", err)
	}
	fmt.Println(c.ProcessState.Pid())
	return nil
}

// serve answers one client. It tells its address on standard output.
func serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	if n, err := io.Copy(io.Discard, c); err != nil || n != request {
		return fmt.Errorf("read %d bytes of %d: %w", n, request, err)
	}
	_, err = c.Write(make([]byte, response))
	return err
}

// dial asks a server, and tells its own address.
func dial(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println(c.LocalAddr())
	if _, err := c.Write(make([]byte, request)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c)
	if err != nil || n != response {
		return fmt.Errorf("read %d bytes of %d: %w", n, response, err)
	}
	return nil
}

// failToConnect makes one blocking call of connect that must fail, and tells the
// errno.
func failToConnect(address string) error {
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())})
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("connect to %s: %w, not an errno", address, err)
	}
	fmt.Println(int(errno))
	return nil
}

// openFiles opens a file below dir with every call of the open family that the
// machine has, and one that is not there.
func openFiles(dir string) error {
	for _, call := range openCalls {
		fd, err := call.open(dir + "/" + call.name)
		if err != nil {
			return fmt.Errorf("%s: %w", call.name, err)
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	_, err := unix.Openat(unix.AT_FDCWD, dir+"/missing", unix.O_RDONLY, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("open what is missing: %w, not %w", err, unix.ENOENT)
	}
	return nil
}

// An openCall is one system call that opens a file, and the program that tells it.
type openCall struct {
	name, program string
	flags         uint32
	open          func(path string) (int, error)
}

const create = unix.O_CREAT | unix.O_WRONLY

func openat(path string) (int, error) {
	return unix.Openat(unix.AT_FDCWD, path, create, 0o600)
}

func openat2(path string) (int, error) {
	return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: create, Mode: 0o600})
}

// legacy makes a system call that takes a path and up to two numbers.
func legacy(number uintptr, path string, a, b uintptr) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, err
	}
	fd, _, errno := unix.Syscall(number, uintptr(unsafe.Pointer(p)), a, b)
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

func lines(out []byte) []string {
	var all []string
	for l := range bytes.Lines(out) {
		all = append(all, string(bytes.TrimSpace(l)))
	}
	return all
}
