package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

func TestEveryProcessOfALoadIsToldOnceFromForkToExit(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" {}`)
	mine := tag()
	const n = 2000
	did, err := programs.RunExec(t.Context(), "-n", fmt.Sprint(n), "-p", "4", "-a", mine, programs.Noop, "last")
	if err != nil {
		t.Fatal(err)
	}
	ledger := tr.Stop()
	events := tr.Events()

	loader := one(t, "the load itself", harness.Select(events, "process.exec", func(e *harness.Event) bool {
		return e.Process.Executable.Path == programs.Exec && slices.Contains(e.Process.Args, mine)
	}))
	lives := livesOf(events, loader.Process.PID)
	execs := 0
	seen := map[string]int{}
	for _, l := range lives {
		if l.fork == nil || l.exit == nil {
			t.Fatalf("process %d: fork %v, exit %v", l.pid, l.fork, l.exit)
		}
		if len(l.execs) != 1 {
			t.Fatalf("process %d has %d execs", l.pid, len(l.execs))
		}
		execs++
		x := l.execs[0]
		p := x.Process
		if len(p.Args) != 3 || p.Args[0] != programs.Noop || p.Args[2] != "last" {
			t.Fatalf("its arguments are %q", p.Args)
		}
		seen[p.Args[1]]++
		if p.Executable.Path != programs.Noop || p.Comm != "noop" || p.ParentPID != loader.Process.PID || p.User.ID != 0 {
			t.Errorf("the exec is %s", x.Line)
		}
		if e := l.exit.Process; e.Exit.Code != 0 || e.Exit.Signal != 0 || l.exit.Priority != "info" || e.Comm != "noop" {
			t.Errorf("the exit is %s", l.exit.Line)
		}
		// Its start lies before the event of its fork and after its parent's exec.
		atLeast, atMost := l.exit.Time.Sub(l.fork.Time), l.exit.Time.Sub(loader.Time)
		if d := time.Duration(l.exit.Process.Duration); d < atLeast || d > atMost {
			t.Errorf("process %d lived for %v, which must be between %v and %v", l.pid, d, atLeast, atMost)
		}
		if x.Time.Before(l.fork.Time) || l.exit.Time.Before(x.Time) {
			t.Errorf("process %d: fork at %v, exec at %v, exit at %v", l.pid, l.fork.Time, x.Time, l.exit.Time)
		}
	}
	for i := range n {
		if arg := fmt.Sprintf("%s%06d", mine, i); seen[arg] != 1 {
			t.Errorf("the exec with %s was told %d times", arg, seen[arg])
		}
	}
	if did.Execs != n || int64(execs) != did.Execs || int64(len(lives)) != did.Forks || did.Forks != did.Exits {
		t.Errorf("%d processes with %d execs were told, the load counted %+v", len(lives), execs, did)
	}
	// its threads are no processes, and end without an event
	if got := len(harness.Select(events, "process.exit", of(loader.Process.PID))); got != 1 {
		t.Errorf("the load's own process, of four threads, has %d exits", got)
	}
	checkLedger(t, ledger, false, map[string]int64{
		"process.fork": did.Forks + 1, "process.exec": did.Execs + 1, "process.exit": did.Exits + 1,
	})
}

func TestAProcessWhoseExecFailsHasForkAndExitButNoExec(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" {}`)
	mine := tag()
	did, err := programs.RunExec(t.Context(), "-n", "50", "-a", mine, "/nonexistent/"+mine)
	if err != nil {
		t.Fatal(err)
	}
	ledger := tr.Stop()
	events := tr.Events()
	loader := one(t, "the load itself", harness.Select(events, "process.exec", having(mine)))
	lives := livesOf(events, loader.Process.PID)
	for _, l := range lives {
		if l.fork == nil || l.exit == nil || len(l.execs) != 0 {
			t.Fatalf("process %d: %+v", l.pid, l)
		}
		if e := l.exit.Process.Exit; e.Code != 127 || e.Signal != 0 || l.exit.Priority != "error" {
			t.Errorf("the exit is %s", l.exit.Line)
		}
	}
	if int64(len(lives)) != did.Forks || did.ExecFailed != did.Forks || did.Execs != 0 {
		t.Errorf("%d processes were told, the load counted %+v", len(lives), did)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.fork": did.Forks, "process.exit": did.Exits})
}

// life is what was told of one process.
type life struct {
	pid        int
	fork, exit *harness.Event
	execs      []*harness.Event
}

// livesOf gathers the children of a process. A pid that is used again is another life.
func livesOf(events []harness.Event, parent int) (all []*life) {
	now := map[int]*life{}
	for i := range events {
		e := &events[i]
		if e.Process.ParentPID != parent || e.Kind != "process.fork" && e.Kind != "process.exec" && e.Kind != "process.exit" {
			continue
		}
		l := now[e.Process.PID]
		if l == nil || e.Kind == "process.fork" {
			l = &life{pid: e.Process.PID}
			now[l.pid] = l
			all = append(all, l)
		}
		switch e.Kind {
		case "process.fork":
			l.fork = e
		case "process.exec":
			l.execs = append(l.execs, e)
		case "process.exit":
			l.exit = e
			delete(now, l.pid)
		}
	}
	return all
}

func TestAnExitTellsHowTheProcessEnded(t *testing.T) {
	tr := harness.Start(t, `probe "process" {}`)
	type end struct {
		name, script string
		code         int
		signal       string
		priority     string
	}
	ends := []end{
		{"with status 0", "exit 0", 0, "", "info"},
		{"with status 1", "exit 1", 1, "", "error"},
		{"with status 42", "exit 42", 42, "", "error"},
		{"with status 255", "exit 255", 255, "", "error"},
		{"by SIGTERM", "kill -TERM $$; sleep 1000", 0, "SIGTERM", "error"},
		{"by SIGHUP", "kill -HUP $$; sleep 1000", 0, "SIGHUP", "error"},
		{"by SIGKILL", "kill -KILL $$; sleep 1000", 0, "SIGKILL", "critical"},
		{"by SIGSEGV", "kill -SEGV $$; sleep 1000", 0, "SIGSEGV", "critical"},
		{"by SIGABRT, with leave to dump its core", "ulimit -c unlimited; kill -ABRT $$; sleep 1000", 0, "SIGABRT", "critical"},
		{"by a real-time signal", "kill -40 $$; sleep 1000", 0, "SIG40", "error"},
	}
	type ended struct {
		pid    int
		status syscall.WaitStatus
	}
	how := make([]ended, len(ends))
	dir := t.TempDir() // for a core
	for i, c := range ends {
		cmd := exec.Command("/bin/sh", "-c", c.script)
		cmd.Dir = dir
		_ = cmd.Run() // how it ended is the question
		how[i] = ended{cmd.Process.Pid, cmd.ProcessState.Sys().(syscall.WaitStatus)}
	}
	ledger := tr.Stop()
	for i, c := range ends {
		t.Run(c.name, func(t *testing.T) {
			e := one(t, "exits", harness.Select(tr.Events(), "process.exit", of(how[i].pid)))
			x := e.Process.Exit
			if x.Code != c.code || x.SignalName != c.signal || e.Priority != c.priority {
				t.Errorf("the exit is %s", e.Line)
			}
			// what the parent was told
			s := how[i].status
			if s.Exited() && x.Code != s.ExitStatus() || s.Signaled() && (x.Signal != int(s.Signal()) || x.CoreDumped != s.CoreDump()) {
				t.Errorf("the exit is %s, the parent was told %#x", e.Line, s)
			}
		})
	}
	checkLedger(t, ledger, false, map[string]int64{"process.fork": int64(len(ends)), "process.exit": int64(len(ends))})
}

func TestAnExecTellsWhatRunsAndForWhom(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" {}`)
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	noop, err := os.ReadFile(programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	install := func(path string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, noop, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := install(filepath.Join(dir, "plain"))
	link := filepath.Join(dir, "link")
	if err := os.Symlink("plain", link); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!"+plain+" word\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	deep := install(filepath.Join(dir, strings.Repeat("d/", 60)+"deep"))
	long := install(filepath.Join(dir, strings.Repeat("n", 200), strings.Repeat("m", 200), "a-name-of-more-than-fifteen-bytes"))
	big := strings.Repeat("x", 3000)

	type run struct {
		name      string
		path      string // that is run
		args      []string
		as        uint32
		executed  string // "": path
		comm      string
		told      []string // "": args
		truncated bool     // the path
		cut       bool     // the arguments
	}
	runs := []run{
		{name: "a program by its path", path: plain, args: []string{"a name of its own", "one", "", "two words"}, comm: "plain"},
		{name: "a program with no argument but its name", path: plain, args: []string{"plain"}, comm: "plain"},
		{name: "a link, by the program that it leads to", path: link, args: []string{link}, executed: plain, comm: "link"},
		{name: "a script, by its interpreter", path: script, args: []string{script, "x"}, executed: plain, comm: "script",
			told: []string{plain, "word", script, "x"}},
		{name: "a program of a long path", path: long, args: []string{long}, comm: "a-name-of-more-"},
		{name: "a program too deep to be told whole", path: deep, args: []string{"deep"}, comm: "deep", truncated: true},
		{name: "arguments too long to be told whole", path: plain, args: []string{"plain", big}, comm: "plain", cut: true},
		{name: "another user's process", path: plain, args: []string{"plain"}, as: 65534, comm: "plain"},
	}
	pids := make([]int, len(runs))
	for i, r := range runs {
		cmd := &exec.Cmd{Path: r.path, Args: r.args}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: r.as, Gid: r.as}}
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		pids[i] = cmd.Process.Pid
	}
	ledger := tr.Stop()
	for i, r := range runs {
		t.Run(r.name, func(t *testing.T) {
			e := one(t, "execs", harness.Select(tr.Events(), "process.exec", of(pids[i])))
			p := e.Process
			if p.Comm != r.comm || p.User.ID != r.as || p.ParentPID != os.Getpid() || p.ArgsTruncated != r.cut || p.Executable.Truncated != r.truncated {
				t.Errorf("the exec is %s", e.Line)
			}
			want := r.executed
			if want == "" {
				want = r.path
			}
			if got := p.Executable.Path; r.truncated {
				end, cut := strings.CutPrefix(got, "…")
				if !cut || !strings.HasSuffix(want, end) || strings.Count(end, "/") < 30 {
					t.Errorf("the path is %q, want … and the end of %q", got, want)
				}
			} else if got != want {
				t.Errorf("the path is %q, want %q", got, want)
			}
			told := r.told
			if told == nil {
				told = r.args
			}
			if r.cut {
				all := strings.Join(told, "\x00")
				if got := strings.Join(p.Args, "\x00"); !strings.HasPrefix(all, got) || len(got) < 2000 {
					t.Errorf("%d bytes of arguments were told, which are not the first of those given", len(got))
				}
			} else if !slices.Equal(p.Args, told) {
				t.Errorf("the arguments are %q, want %q", p.Args, told)
			}
		})
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": int64(len(runs))})
}

func TestArgumentsAreNotReadWhenTheConfigurationSaysSo(t *testing.T) {
	programs := load.Build(t)
	tr := harness.Start(t, `probe "process" { args = false }`)
	cmd := exec.Command(programs.Noop, "a-secret")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	ledger := tr.Stop()
	e := one(t, "execs", harness.Select(tr.Events(), "process.exec", of(cmd.Process.Pid)))
	if len(e.Process.Args) != 0 || e.Process.Executable.Path != programs.Noop || strings.Contains(e.Line, "a-secret") {
		t.Errorf("the exec is %s", e.Line)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 1})
}
