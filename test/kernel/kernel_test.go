// Package kernel proves that the probes load, attach and tell the truth on the
// kernels that the project promises: that of this machine, and Debian's 5.10, 6.1
// and 6.12, the last two on arm64 too, which vm.sh boots under software emulation; and that what containers use is
// told as it is, there from cgroup v2 alone. The program that looks is
// test/kernel/guest; its report is the test's log.
package kernel

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// guest builds the program that looks, static, for an architecture.
func guest(t testing.TB, arch string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guest")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, out)
	}
	return path
}

// hostile builds the plugin that means harm, in a directory of plugins below the one
// that it gives.
func hostile(t *testing.T, arch string) string {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "plugins", "discoverer")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(at, "hostile")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../sandbox/testdata/hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the hostile plugin: %v\n%s", err, out)
	}
	manifest := "plugin \"discoverer\" \"hostile\" {\n  protocol = 1\n  command  = [\"./hostile\"]\n}\n"
	if err := os.WriteFile(program+".plugin.hcl", []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestEveryProbeTellsTheTruthOnThisKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading programs needs root")
	}
	out, err := exec.Command(guest(t, runtime.GOARCH)).CombinedOutput()
	t.Logf("\n%s", out)
	if err != nil {
		t.Errorf("guest: %v", err)
	}
}

func TestEveryProbeTellsTheTruthOnOlderKernels(t *testing.T) {
	const opens, olderOpens = "file_openat_fexit,file_openat2_fexit", ",file_open_fexit,file_creat_fexit"
	for _, test := range []struct {
		name, series string
		arch         string   // amd64 where it is empty
		parameters   string   // of the kernel
		functions    string   // programs that tell a system call by its function
		lacking      []string // programs that this kernel can't take
	}{
		{name: "6.12", series: "6.12", functions: opens + olderOpens},
		// A program that another may interrupt would leave out what comes meanwhile.
		{name: "6.12, preemptible", series: "6.12", parameters: "preempt=full"},
		{name: "6.1", series: "6.1", functions: opens + olderOpens},
		{name: "6.12, arm64", series: "6.12", arch: "arm64", functions: opens},
		// It loads programs of functions, and can't attach them.
		{name: "6.1, arm64", series: "6.1", arch: "arm64"},
		// No bpf_get_current_task_btf before 5.11, no storage of tasks for
		// tracepoints: forks and execs are what is left.
		{name: "5.10", series: "5.10", lacking: []string{
			"cgroup_create", "cgroup_remove", "process_exit_marked",
			"network_state", "network_accept", "network_accept4", "network_connect_exit",
			"file_openat", "file_openat2", "file_open", "file_creat",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			arch := cmp.Or(test.arch, "amd64")
			program, files := guest(t, arch), hostile(t, arch)
			args := []string{"-a", arch, "-f", files, "-k", test.parameters, test.series, program, "-emulated", "-plugins", "/test/plugins", "-functions", test.functions}
			if test.lacking != nil {
				args = append(args, "-partial", "-want", strings.Join(test.lacking, ","))
			}
			out, status := boot(t, args)
			if status == timeUp || status == crashed && bytes.Contains(out, []byte(staleCode)) {
				t.Logf("the emulated machine hung or ran stale code; once more\n%s", out)
				out, status = boot(t, args)
			}
			t.Logf("\n%s", out)
			if status != 0 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// timeUp is the status of vm.sh when the guest did not end. An emulated machine
// that hung on its way up is no finding about a probe: it is booted once more.
const timeUp = 124

// crashed is the status of vm.sh when the guest ended without one of its own. A kernel that
// switches a static key puts a breakpoint over an instruction for a moment; qemu's emulation
// of several processors may still run it when nobody expects it any more, which is no finding
// about a probe either. Any other crash is one.
const (
	crashed   = 125
	staleCode = "Oops: int3"
)

func boot(t testing.TB, args []string) (out []byte, status int) {
	t.Helper()
	out, err := exec.Command("./vm.sh", args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("start vm.sh: %v", err)
	}
	if exit != nil {
		status = exit.ExitCode()
	}
	return out, status
}
