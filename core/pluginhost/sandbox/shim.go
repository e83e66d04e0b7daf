package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Name is argument 0 of the child: by it the daemon's binary knows that it is to
// become a plugin.
const Name = "ebpf-tracer-plugin"

// Descriptors of the child, besides the three of every process. The host passes
// them in this order.
const (
	planFD    = 3 // the Plan, to its end
	reportFD  = 4 // the Report; it closes when the child has become the plugin
	ProgramFD = 5
)

// Called tells whether this process was started as a plugin's shim.
func Called() bool { return len(os.Args) > 0 && os.Args[0] == Name }

// Main becomes a plugin, as the plan says, and never returns: after an error the
// process ends with status 126, and the report says why.
func Main() {
	// All that follows is about this thread: exec makes it the process, with its
	// rights, and ends all others.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	report := os.NewFile(reportFD, "report")
	r := &run{}
	err := r.become(report)
	r.report.Error = err.Error()
	r.tell(report)
	os.Exit(126)
}

// run is the way from the daemon's binary to the plugin.
type run struct {
	plan   Plan
	report Report
}

func (r *run) applied(format string, args ...any) {
	r.report.Applied = append(r.report.Applied, fmt.Sprintf(format, args...))
}

func (r *run) notApplied(what string, err error) {
	r.report.NotApplied = append(r.report.NotApplied, what+": "+err.Error())
}

func (r *run) tell(to io.Writer) {
	raw, err := json.Marshal(r.report)
	if err == nil {
		_, err = to.Write(append(raw, '\n'))
	}
	if err != nil { // the daemon is gone
		os.Exit(126)
	}
}

// become does the steps in the order in which each still has the rights it needs.
// It returns only an error.
func (r *run) become(report io.Writer) error {
	plan := os.NewFile(planFD, "plan")
	if err := json.NewDecoder(plan).Decode(&r.plan); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if err := plan.Close(); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	for _, step := range []func() error{
		r.joinGroups, r.setLimits, r.enterRoot, r.changeUser, r.noNewPrivileges, r.landlock, r.dieWithParent,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	r.report.UID = uint32(os.Geteuid())
	if err := r.closeOnExec(); err != nil {
		return err
	}
	if err := r.seccomp(); err != nil {
		return err
	}
	if err := r.judge(); err != nil {
		return err
	}
	r.tell(report)
	if r.plan.Trial {
		os.Exit(0)
	}
	// Only for a program that could not be executed is there a second report.
	argv := append([]string{r.plan.Path}, r.plan.Args...)
	err := execAt(r.plan.Program, argv, r.plan.Env)
	if errors.Is(err, unix.ENOENT) && r.sameFile() {
		// Debian's 5.10 executes nothing by its descriptor alone. The name in the
		// plugin's own root, which only root could change, is that of the same file.
		err = unix.Exec(r.plan.Path, argv, r.plan.Env)
	}
	return fmt.Errorf("execute %s: %w", r.plan.Path, err)
}

// sameFile tells whether the program's name in the plugin's root is that of the file
// that was hashed.
func (r *run) sameFile() bool {
	var hashed, named unix.Stat_t
	if unix.Fstat(r.plan.Program, &hashed) != nil || unix.Stat(r.plan.Path, &named) != nil {
		return false
	}
	return hashed.Dev == named.Dev && hashed.Ino == named.Ino
}

// judge refuses to become a plugin that lacks a measure, where all are required.
func (r *run) judge() error {
	lacking := slices.Concat(r.plan.Lacking, r.report.NotApplied)
	if !r.plan.Required || len(lacking) == 0 {
		return nil
	}
	return fmt.Errorf("plugins { sandbox = \"required\" } demands what this host can't take: %s; let the host take it, or set sandbox = \"best-effort\"", strings.Join(lacking, "; "))
}

// joinGroups enters the control groups of hierarchies that a process can't be
// started in.
func (r *run) joinGroups() error {
	for _, g := range r.plan.Groups {
		if err := os.WriteFile(g+"/cgroup.procs", []byte("0"), 0); err != nil {
			return fmt.Errorf("enter a control group: %w", err)
		}
	}
	return nil
}

func (r *run) setLimits() error {
	l := r.plan.Limits
	for _, x := range []struct {
		what     string
		resource int
		most     int64
		unit     uint64
	}{
		{"MiB of private memory in a process", unix.RLIMIT_DATA, l.DataBytes, 1 << 20},
		{"processes and threads", unix.RLIMIT_NPROC, l.Processes, 1},
		{"open files", unix.RLIMIT_NOFILE, l.OpenFiles, 1},
		{"MiB in a file", unix.RLIMIT_FSIZE, l.FileBytes, 1 << 20},
	} {
		if x.most <= 0 {
			continue
		}
		var old unix.Rlimit
		if err := unix.Getrlimit(x.resource, &old); err != nil {
			return fmt.Errorf("limit %s: %w", x.what, err)
		}
		most := min(uint64(x.most), old.Max)
		if err := unix.Setrlimit(x.resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit %s: %w", x.what, err)
		}
		r.applied("at most %d %s", most/x.unit, x.what)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turn off core dumps: %w", err)
	}
	return nil
}

func (r *run) noNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	r.applied("no_new_privs")
	return nil
}

// dieWithParent asks for the daemon's end to be ours too, once no change of user
// clears that any more, and makes sure that it has not ended before.
func (r *run) dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask to end with the daemon: %w", err)
	}
	// In a pid namespace of its own a process can't see its parent; the daemon
	// holds the other end of standard input.
	poll := []unix.PollFd{{Fd: 0}}
	for {
		_, err := unix.Poll(poll, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for the daemon: %w", err)
		}
		break
	}
	if poll[0].Revents&unix.POLLHUP != 0 {
		return errors.New("the daemon has ended")
	}
	r.applied("ends with the daemon")
	return nil
}

// closeOnExec lets the plugin inherit nothing but its three standard files.
func (r *run) closeOnExec() error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err == nil {
		return nil
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the open files: %w", err)
	}
	for _, f := range open {
		var fd int
		if _, err := fmt.Sscan(f.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// execAt executes an open file: what the daemon has hashed.
func execAt(fd int, argv, env []string) error {
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	args, err := pointers(argv)
	if err != nil {
		return err
	}
	vars, err := pointers(env)
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&vars[0])), unix.AT_EMPTY_PATH, 0)
	runtime.KeepAlive(args)
	runtime.KeepAlive(vars)
	return errno
}

// pointers is a list of strings as exec wants it, ended by nil.
func pointers(words []string) ([]*byte, error) {
	out := make([]*byte, 0, len(words)+1)
	for _, w := range words {
		p, err := unix.BytePtrFromString(w)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", strings.ToValidUTF8(w, "?"), err)
		}
		out = append(out, p)
	}
	return slices.Clip(append(out, nil)), nil
}
