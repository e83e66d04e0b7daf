package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// daemon is one process that an environment started, known by its pid and its start
// time, so that no other process that later gets the pid is ever signalled.
type daemon struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot

	exited chan struct{} // closed when reaped; nil for a process of an earlier run
}

// startDaemon runs argv in a session of its own, its output appended to a log.
func startDaemon(name, log string, argv, environ []string) (*daemon, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = environ
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	d := &daemon{Name: name, PID: cmd.Process.Pid, exited: make(chan struct{})}
	d.Start, err = startTime(d.PID)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process, which stop waits for
		_ = cmd.Wait()
		close(d.exited)
	}()
	return d, nil
}

// startTime is when a process started, in clock ticks after boot.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// the command, in brackets, may hold anything
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("read /proc/%d/stat: too few fields", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// open returns a pidfd of the process, or ESRCH when it is gone.
func (d *daemon) open() (int, error) {
	fd, err := unix.PidfdOpen(d.PID, 0)
	if err != nil {
		return -1, err
	}
	if start, err := startTime(d.PID); err != nil || start != d.Start {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

func (d *daemon) signal(s syscall.Signal) error {
	fd, err := d.open()
	if err != nil {
		return fmt.Errorf("signal %s: %w", d.Name, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil {
		return fmt.Errorf("signal %s: %w", d.Name, err)
	}
	return nil
}

func (d *daemon) alive() bool {
	fd, err := d.open()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && ready == 0
}

// wait returns once the process is gone, and reaped if it is our child.
func (d *daemon) wait(ctx context.Context) error {
	err := poll(ctx, func() error {
		if d.alive() {
			return fmt.Errorf("%s (pid %d) is still running", d.Name, d.PID)
		}
		return nil
	})
	if err == nil && d.exited != nil {
		<-d.exited
	}
	return err
}

// stop ends the process: politely, then after grace by SIGKILL.
func (d *daemon) stop(ctx context.Context, grace time.Duration) error {
	// a stopped process would not see the first signal
	for _, s := range []syscall.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		if err := d.signal(s); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	patient, cancel := context.WithTimeout(ctx, grace)
	err := d.wait(patient)
	cancel()
	if err == nil {
		return nil
	}
	return d.kill(ctx)
}

// kill ends the process by SIGKILL and waits until it is gone.
func (d *daemon) kill(ctx context.Context) error {
	if err := d.signal(syscall.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return d.wait(ctx)
}

// poll asks again and again until there is no error, or the context ends; then it
// returns the last error.
func poll(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
