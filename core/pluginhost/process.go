package pluginhost

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// lastWords is how long the pipes of a process are read after its end. Another
// process may hold them open for ever.
const lastWords = 200 * time.Millisecond

// exitedWell is how a process ended that nothing ended.
const exitedWell = "it exited with status 0"

// handshakeLine is how go-plugin's handshake begins. Whatever else a plugin
// prints before it, or after, is taken for log.
var handshakeLine = regexp.MustCompile(`^\d+\|(\d+)\|[a-z]+\|`)

// process is one running process of a plugin.
type process struct {
	cmd      *exec.Cmd
	forked   time.Time // just before
	group    *cgroup
	lifeline *os.File // our end of its standard input; it closes with us
	// handshake is what go-plugin reads: one line of standard output.
	handshake *io.PipeReader
	exited    chan struct{}  // closed when it is gone and reaped
	read      chan struct{}  // closed when its pipes have been read to the end
	reaped    atomic.Bool    // its pid may be another's, or is just becoming so
	protocol  atomic.Int64   // that it shook hands in, and 1; 0: it has not
	confined  chan struct{}  // closed when it has become the plugin, or could not
	sandbox   sandbox.Report // after confined
	became    time.Time      // the plugin, or not; after confined
	refused   error          // why it did not become the plugin; after confined
	usage     time.Duration  // CPU time of it and what it waited for; after exited
	ended     string         // how it ended; after exited
}

// program says what to run: the file that is executed, and the way there.
type program struct {
	file *os.File
	plan sandbox.Plan
	env  []string
}

// spawn starts a process: the daemon's own binary, which confines itself as the
// plan says and becomes the plugin.
func spawn(f *forker, p program, g *cgroup, out *output) (_ *process, err error) {
	var ours, theirs []*os.File
	defer func() {
		for _, f := range theirs { // the child's are the child's now
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			for _, f := range ours {
				err = errors.Join(err, f.Close())
			}
		}
	}()
	pipe := func(childReads bool) (our, their *os.File) {
		if err != nil {
			return nil, nil
		}
		var r, w *os.File
		if r, w, err = os.Pipe(); err != nil {
			err = fmt.Errorf("make a pipe: %w", err)
			return nil, nil
		}
		our, their = r, w
		if childReads {
			our, their = w, r
		}
		ours, theirs = append(ours, our), append(theirs, their)
		return our, their
	}
	lifeline, stdin := pipe(true)
	stdout, stdoutW := pipe(false)
	stderr, stderrW := pipe(false)
	plan, planR := pipe(true)
	report, reportW := pipe(false)
	if err != nil {
		return nil, err
	}
	p.plan.Program, p.plan.Env = sandbox.ProgramFD, p.env
	if err := passPlan(plan, p.plan); err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{sandbox.Name}, Env: []string{"GODEBUG=madvdontneed=1"}, Dir: "/",
		Stdin: stdin, Stdout: stdoutW, Stderr: stderrW, ExtraFiles: []*os.File{planR, reportW, p.file},
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	if p.plan.Confine {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC
	}
	if p.plan.OwnNetwork {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	forked := time.Now()
	if cmd, err = startIn(f, cmd, g); err != nil {
		if cmd != nil && cmd.Process != nil {
			err = errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		} else if p.plan.Confine && errors.Is(err, unix.EPERM) {
			err = &noRootError{err}
		}
		return nil, err
	}
	if err := plan.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("pass on the plan: %w", err), cmd.Process.Kill(), cmd.Wait())
	}
	hr, hw := io.Pipe()
	pr := &process{
		cmd: cmd, forked: forked, group: g, lifeline: lifeline, handshake: hr,
		exited: make(chan struct{}), read: make(chan struct{}), confined: make(chan struct{}),
	}
	both := make(chan struct{}, 2)
	go func() {
		out.read(stderr, "stderr")
		both <- struct{}{}
	}()
	go func() {
		pr.readStdout(stdout, hw, out)
		both <- struct{}{}
	}()
	go func() {
		defer close(pr.confined)
		defer report.Close() // read to its end
		told, err := readReport(report)
		pr.became = time.Now()
		if pr.sandbox = told; err != nil {
			pr.refused = &sandboxError{err}
		}
	}()
	go pr.wait(stdout, stderr, both)
	return pr, nil
}

// startIn starts cmd inside g, and without it where the kernel can't. The command
// that it returns is the one that was started.
func startIn(f *forker, cmd *exec.Cmd, g *cgroup) (*exec.Cmd, error) {
	if g == nil || g.unified == "" {
		return cmd, f.start(cmd)
	}
	dir, err := os.Open(g.unified)
	if err != nil {
		return nil, fmt.Errorf("open control group: %w", err)
	}
	defer dir.Close()
	again := *cmd // a command is started once
	attr := *cmd.SysProcAttr
	again.SysProcAttr = &attr
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	if err := f.start(cmd); err == nil || errors.Is(err, errStopped) {
		return cmd, err
	}
	// Without clone3, as under some seccomp filters, it is moved there after its
	// start; another error comes up again. What it forked before the move stays
	// outside, which the process group still covers.
	if err := f.start(&again); err != nil {
		return &again, err
	}
	return &again, g.add(again.Process.Pid)
}

// pid of the process, which stays its own until exited is closed.
func (p *process) pid() int { return p.cmd.Process.Pid }

// wait waits for the end, ends what the process leaves behind, and reaps it.
func (p *process) wait(stdout, stderr *os.File, both <-chan struct{}) {
	// Not reaped yet, so that its pid and process group can't be another's.
	for {
		err := unix.Waitid(unix.P_PID, p.pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break // ended; should waitid fail for another reason, Wait below tells
		}
	}
	p.killRest()
	p.reaped.Store(true)
	err := p.cmd.Wait()
	p.ended = exitedWell
	if err != nil {
		p.ended = "it ended: " + err.Error()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		p.ended = fmt.Sprintf("it exited with status %d", exit.ExitCode())
	}
	if st := p.cmd.ProcessState; st != nil {
		p.usage = st.UserTime() + st.SystemTime()
	}
	if p.group.ranOut() {
		p.ended = "it used more memory than it may have, and the kernel ended it: give it more with plugin { memory = ... }"
	}
	p.lifeline.Close() // a pipe without a reader: nothing can be lost

	// A grandchild that escaped may hold the pipes.
	deadline := time.Now().Add(lastWords)
	for _, f := range []*os.File{stdout, stderr} {
		if err := f.SetReadDeadline(deadline); err != nil {
			f.Close() // can't wait for a while, so not at all
		}
	}
	close(p.exited)
	<-both
	<-both
	stdout.Close()
	stderr.Close()
	close(p.read)
}

// killRest ends what belongs to the process and is still there.
func (p *process) killRest() {
	// ESRCH and a group that is gone are what is wanted.
	_ = unix.Kill(-p.pid(), unix.SIGKILL)
	_ = p.group.kill()
}

// kill ends the process and all that it started. It may be called at any time.
func (p *process) kill() {
	// os.Process signals through a pidfd: it never hits another process. An
	// error says that it is gone.
	_ = p.cmd.Process.Kill()
	_ = p.group.kill()
}

// killed tells, after exited, whether SIGKILL ended the process.
func (p *process) killed() bool {
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// alive tells whether the process has not ended yet.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// readStdout hands the handshake to go-plugin and everything else to out.
func (p *process) readStdout(r io.Reader, handshake *io.PipeWriter, out *output) {
	b := bufio.NewReaderSize(r, wire.MaxLogLine)
	for {
		line, err := b.ReadSlice('\n')
		if said := handshakeLine.FindSubmatch(line); said != nil {
			if v, err := strconv.ParseInt(string(said[1]), 10, 32); err == nil {
				p.protocol.Store(v + 1)
			}
			// go-plugin reads on until it has this line; it closes neither end.
			if _, err := handshake.Write(append(bytes.TrimSpace(line), '\n')); err != nil {
				out.line([]byte("handshake: "+err.Error()), false, "stdout")
			}
			handshake.Close()
			break
		}
		cut := errors.Is(err, bufio.ErrBufferFull)
		out.line(line, cut, "stdout")
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = b.ReadSlice('\n')
		}
		if err != nil {
			handshake.Close() // go-plugin then says that there was none
			return
		}
	}
	out.read(b, "stdout")
}

// environment is what a plugin is given of the daemon's environment, and what it
// is told besides.
func environment(names []string, also ...string) []string {
	var env []string
	for _, n := range append([]string{"PATH", "LANG", "LC_ALL", "TZ"}, names...) {
		if v, ok := os.LookupEnv(n); ok && !strings.ContainsAny(n, "=") {
			env = append(env, n+"="+v)
		}
	}
	return append(env, also...)
}
