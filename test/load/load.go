// Package load holds the programs that tests and benchmarks put in front of the tracer.
//
// Why it exists: a tracer's ledger is only worth something when it is held against a
// count from outside. Each program here is one small static binary that makes the kernel
// do one thing many times, counts exactly what it did and prints the counts as JSON.
// Their usage stands at the head of each C file in src.
//
// The package owns nothing but a cache of compiled programs. It must never run a program
// that nobody asked for, nor import anything of the tracer: the outside count has to stay
// outside.
package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

//go:embed src/*.c src/*.h
var sources embed.FS

// compiler and its flags. Static, so that a program runs in an image that holds nothing
// else, and so that it opens no file of its own before its work.
var compile = []string{"gcc", "-O2", "-Wall", "-static", "-pthread"}

// Programs are the paths of the compiled programs.
type Programs struct {
	Dir  string // holds all of them and nothing else
	Noop string // exits 0 at once; see [NoopELF]
	Exec string // execload: runs a program many times
	Open string // openload: opens and closes a file
	TCP  string // tcpload: makes connections, and connects that fail
}

// ExecCounts is what execload prints. Forks = Execs + ExecFailed = Exits.
type ExecCounts struct {
	Execs      int64 `json:"execs"`
	ExecFailed int64 `json:"exec_failed"`
	Forks      int64 `json:"forks"`
	Exits      int64 `json:"exits"`
	Nonzero    int64 `json:"nonzero"` // exits by a signal or with another status than 0
	Threads    int   `json:"threads"` // Threads-1 of them were cloned
	Timing
	PerSecond   float64 `json:"execs_per_s"`
	CPUChildren float64 `json:"cpu_children"` // seconds
}

// OpenCounts is what openload prints.
type OpenCounts struct {
	Opens   int64 `json:"opens"`  // calls of openat
	Failed  int64 `json:"failed"` // those of them that returned an error
	Threads int   `json:"threads"`
	Timing
	PerSecond float64 `json:"opens_per_s"`
}

// TCPCounts is what tcpload prints. Errors are keyed by the errno's name, such as
// ECONNREFUSED; in Returned "0" stands for a call of connect that succeeded at once.
type TCPCounts struct {
	Connects      int64            `json:"connects"`
	Accepts       int64            `json:"accepts"`
	Listens       int64            `json:"listens"`
	Closes        int64            `json:"closes"` // of connected sockets, either side
	BytesSent     int64            `json:"bytes_sent"`
	BytesReceived int64            `json:"bytes_received"`
	Errors        map[string]int64 `json:"errors"`
	Returned      map[string]int64 `json:"returned"`
	Timing
	PerSecond float64 `json:"connects_per_s"`
}

// Timing is how long a program worked and what CPU time it took itself, in seconds.
type Timing struct {
	Seconds float64 `json:"seconds"`
	CPUSelf float64 `json:"cpu_self"`
}

// Build compiles the programs once per version of their sources, into the user's cache,
// and fails the test if that can't be done.
func Build(t testing.TB) *Programs {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("find a cache directory: %v", err)
	}
	p, err := Compile(t.Context(), filepath.Join(cache, "ebpf-tracer", "load"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Compile puts the programs into a directory below cache that is named after the hash of
// their sources and the way they are compiled, unless it is there already. Several
// processes may do so at once.
func Compile(ctx context.Context, cache string) (*Programs, error) {
	version, err := sourcesHash()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, version)
	programs := &Programs{
		Dir:  dir,
		Noop: filepath.Join(dir, "noop"),
		Exec: filepath.Join(dir, "execload"),
		Open: filepath.Join(dir, "openload"),
		TCP:  filepath.Join(dir, "tcpload"),
	}
	if _, err := os.Stat(dir); err == nil {
		return programs, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache of load programs: %w", err)
	}
	fresh, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return nil, fmt.Errorf("make the cache of load programs: %w", err)
	}
	defer os.RemoveAll(fresh)
	if err := compileInto(ctx, fresh); err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep the load programs: %w", err)
	}
	return programs, nil
}

func sourcesHash() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.GOARCH, compile)
	files, err := fs.Glob(sources, "src/*")
	if err != nil {
		return "", err
	}
	for _, name := range files {
		text, err := sources.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, name, len(text))
		h.Write(text)
	}
	noop, err := NoopELF(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	h.Write(noop)
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func compileInto(ctx context.Context, dir string) error {
	src, err := os.MkdirTemp("", "load-src-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src)
	if err := os.CopyFS(src, sources); err != nil {
		return err
	}
	files, err := fs.Glob(sources, "src/*.c")
	if err != nil {
		return err
	}
	for _, name := range files {
		out := filepath.Join(dir, strings.TrimSuffix(path.Base(name), ".c"))
		args := append(compile[1:len(compile):len(compile)], "-o", out, filepath.Join(src, name))
		text, err := exec.CommandContext(ctx, compile[0], args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("compile %s (test/env/install.sh installs a compiler): %w\n%s", name, err, text)
		}
	}
	noop, err := NoopELF(runtime.GOARCH)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "noop"), noop, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// RunExec runs execload with the arguments and returns what it counted.
func (p *Programs) RunExec(ctx context.Context, args ...string) (ExecCounts, error) {
	return run[ExecCounts](ctx, p.Exec, args)
}

// RunOpen runs openload with the arguments and returns what it counted.
func (p *Programs) RunOpen(ctx context.Context, args ...string) (OpenCounts, error) {
	return run[OpenCounts](ctx, p.Open, args)
}

// RunTCP runs tcpload with the arguments, in any mode but serve, and returns what it
// counted.
func (p *Programs) RunTCP(ctx context.Context, args ...string) (TCPCounts, error) {
	return run[TCPCounts](ctx, p.TCP, args)
}

func run[Counts any](ctx context.Context, program string, args []string) (counts Counts, err error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return counts, fmt.Errorf("run %s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, stderr.String())
	}
	if err := json.Unmarshal(out, &counts); err != nil {
		return counts, fmt.Errorf("read the counts of %s: %w in %q", filepath.Base(program), err, out)
	}
	return counts, nil
}
