package load

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNoopExitsWithStatusZero(t *testing.T) {
	p := Build(t)
	if out, err := exec.Command(p.Noop, "an", "argument").CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("noop: %v, output %q", err, out)
	}
}

func TestNoopIsAnExecutableOfItsArchitecture(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			b, err := NoopELF(arch)
			if err != nil {
				t.Fatal(err)
			}
			f, err := elf.NewFile(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if f.Machine != machine || f.Type != elf.ET_EXEC || len(f.Progs) != 1 {
				t.Errorf("machine %v, type %v, %d segments", f.Machine, f.Type, len(f.Progs))
			}
		})
	}
	if _, err := NoopELF("pdp11"); err == nil {
		t.Error("an unknown architecture got a program")
	}
}

func TestPauseSleepsUntilItIsToldToEnd(t *testing.T) {
	code, err := PauseELF(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, code, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Sleeping in its system call, it has blocked the signals.
		status := fmt.Sprintf("/proc/%d/syscall", cmd.Process.Pid)
		for deadline := time.Now().Add(time.Minute); ; {
			text, err := os.ReadFile(status)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), " ") && !strings.HasPrefix(string(text), "-1") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("it does not sleep: %s", text)
			}
			time.Sleep(time.Millisecond)
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v it ended with %v", signal, err)
		}
	}
}

func TestPauseIsAnExecutableOfItsArchitecture(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		b, err := PauseELF(arch)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine {
			t.Errorf("for %s it is made for %v", arch, f.Machine)
		}
	}
	if _, err := PauseELF("pdp11"); err == nil {
		t.Error("an unknown architecture got a program")
	}
}

func TestExecloadRunsEveryExecOnceWithAnArgumentOfItsOwn(t *testing.T) {
	p := Build(t)
	out := filepath.Join(t.TempDir(), "seen")
	const n = 120
	script := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1\" >>"+out+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := p.RunExec(t.Context(), "-n", fmt.Sprint(n), "-p", "4", "-a", "run-7:", script)
	if err != nil {
		t.Fatal(err)
	}
	if c.Execs != n || c.Forks != n || c.Exits != n || c.Nonzero != 0 || c.ExecFailed != 0 {
		t.Errorf("counts %+v", c)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, line := range bytes.Fields(b) {
		seen[string(line)]++
	}
	for i := range n {
		if arg := fmt.Sprintf("run-7:%06d", i); seen[arg] != 1 {
			t.Errorf("%s was seen %d times", arg, seen[arg])
		}
	}
	if len(seen) != n {
		t.Errorf("%d different arguments, want %d", len(seen), n)
	}
}

func TestExecloadCountsExecsThatFail(t *testing.T) {
	c, err := Build(t).RunExec(t.Context(), "-n", "50", "-p", "2", "/nonexistent")
	if err != nil {
		t.Fatal(err)
	}
	if c.Execs != 0 || c.ExecFailed != 50 || c.Forks != 50 || c.Exits != 50 || c.Nonzero != 50 {
		t.Errorf("counts %+v", c)
	}
}

func TestExecloadIsNeverFasterThanItsRate(t *testing.T) {
	p := Build(t)
	c, err := p.RunExec(t.Context(), "-n", "200", "-p", "2", "-r", "1000", p.Noop)
	if err != nil {
		t.Fatal(err)
	}
	if c.Execs != 200 || c.Seconds < 0.199 { // the last one is due after 199 ms
		t.Errorf("counts %+v", c)
	}
}

func TestOpenloadMakesTheOpensAndFailuresAskedFor(t *testing.T) {
	p := Build(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		args   []string
		opens  int64
		failed int64
	}{
		{"all succeed", []string{"-n", "1001", "-t", "2"}, 1001, 0},
		{"a quarter fails", []string{"-n", "2000", "-t", "2", "-f", "25"}, 2000, 500},
		{"all fail", []string{"-n", "10", "-f", "100"}, 10, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := p.RunOpen(t.Context(), append(c.args, file)...)
			if err != nil {
				t.Fatal(err)
			}
			if got.Opens != c.opens || got.Failed != c.failed {
				t.Errorf("counts %+v", got)
			}
		})
	}
}

func TestTcploadCountsConnectionsAndBytesOfBothSides(t *testing.T) {
	p := Build(t)
	for _, option := range [][]string{nil, {"-6"}, {"-b"}, {"-6", "-b"}} {
		t.Run(fmt.Sprint(option), func(t *testing.T) {
			got, err := p.RunTCP(t.Context(), append([]string{"pairs", "-n", "101", "-t", "2", "-o", "70000", "-i", "3"}, option...)...)
			if err != nil {
				t.Fatal(err)
			}
			if got.Connects != 101 || got.Accepts != 101 || got.Closes != 202 || got.Listens != 2 ||
				got.BytesSent != 101*70000 || got.BytesReceived != 303 || len(got.Errors) != 0 {
				t.Errorf("counts %+v", got)
			}
		})
	}
}

func TestTcploadFailsInTheWayAskedFor(t *testing.T) {
	p := Build(t)
	for kind, want := range map[string]struct {
		errno   string
		pending bool // a non-blocking connect is told later
		root    bool
	}{
		"refused":     {"ECONNREFUSED", true, false},
		"timeout":     {"ETIMEDOUT", true, true},
		"unreachable": {"ENETUNREACH", false, true},
		"hostunreach": {"EHOSTUNREACH", false, true},
		"noaddress":   {"EADDRNOTAVAIL", false, true},
		"family":      {"EAFNOSUPPORT", false, false},
		"fault":       {"EFAULT", false, false},
	} {
		for _, option := range [][]string{nil, {"-6"}, {"-b"}, {"-6", "-b"}} {
			t.Run(fmt.Sprint(kind, option), func(t *testing.T) {
				t.Parallel()
				if want.root && os.Getuid() != 0 {
					t.Skip("needs root: a network namespace of its own")
				}
				got, err := p.RunTCP(t.Context(), append(append([]string{"fail", "-n", "7"}, option...), kind)...)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Errors) != 1 || got.Errors[want.errno] != 7 {
					t.Errorf("errors %v, want 7 of %s", got.Errors, want.errno)
				}
				returned := want.errno
				if want.pending && len(option) > 0 && option[len(option)-1] == "-b" {
					returned = "EINPROGRESS"
				}
				if got.Returned[returned] < 7 {
					t.Errorf("connect returned %v, want 7 of %s", got.Returned, returned)
				}
			})
		}
	}
}
