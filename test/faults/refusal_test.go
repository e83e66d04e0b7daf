package faults

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// refused runs a command that should end by itself with status 1 and one sentence on
// standard error that has all the words.
func refused(t *testing.T, cmd *exec.Cmd, words ...string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	_ = cmd.Run() // the status says how it went
	if cmd.ProcessState == nil {
		t.Fatalf("%v did not start", cmd.Args)
	}
	text := strings.TrimSpace(stderr.String())
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("status %d, want 1:\n%s", code, text)
	}
	if strings.Count(text, "\n") > 0 {
		t.Errorf("more than a sentence:\n%s", text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in %q", w, text)
		}
	}
}

func TestWithoutRootASentenceSaysWhatIsNeeded(t *testing.T) {
	b := harness.Build(t)
	// A user that is nobody can't reach into root's cache.
	dir, err := os.MkdirTemp("", "ebpf-tracer-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.CopyFS(filepath.Join(dir, "bin"), os.DirFS(filepath.Dir(b.Tracer))); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.hcl")
	if err := os.WriteFile(config, []byte("probe \"process\" {}\nexporter \"json\" {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "ebpf-tracer"), "run", "--config", config)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	refused(t, cmd, "not permitted", "run as root", "CAP_BPF")
}

func TestASecondDaemonOnTheSameSocketIsRefusedAndTheFirstGoesOn(t *testing.T) {
	p := load.Build(t)
	tr := harness.Start(t, "probe \"process\" {}\n")
	plugin := tr.PluginPID("sampler", "threshold")
	cmd := exec.CommandContext(t.Context(), tr.Binaries.Tracer, "run", "--config", tr.Config)
	cmd.Dir = tr.Dir
	refused(t, cmd, "another", "stop it", "socket")
	mark(t, tr, p)
	if now := tr.PluginPID("sampler", "threshold"); now != plugin {
		t.Errorf("the first daemon's sampler was process %d and is %d", plugin, now)
	}
	tr.Stop()
}

// inMounts starts a command in a mount namespace of its own, once script has changed
// what is mounted there.
func inMounts(script string) []string {
	return []string{"unshare", "--mount", "--", "sh", "-ec", script + "\nexec \"$@\"", "sh"}
}

func TestWithoutBTFASentenceSaysWhichKernelsHaveIt(t *testing.T) {
	tr := harness.Prepare(t, "probe \"process\" {}\n")
	argv := append(inMounts("mount -t tmpfs none /sys/kernel/btf"), tr.Binaries.Tracer, "run", "--config", tr.Config)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = tr.Dir
	refused(t, cmd, "BTF", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF")
	checkNone(t, tr.Binaries)
}

func TestWithoutTheDefaultHierarchyAWarningSaysSoAndEventsFlow(t *testing.T) {
	p := load.Build(t)
	tr := harness.Prepare(t, "probe \"process\" {}\nmesh \"generic\" {}\n")
	tr.Through = inMounts(`awk '$3 == "cgroup2" { print $2 }' /proc/mounts | while read -r at; do umount -l "$at"; done`)
	tr.Launch()
	tr.WaitPlugins()
	for _, words := range []string{"events are attributed by their pid namespaces", "cgroup2"} {
		if !strings.Contains(tr.Log(), words) {
			t.Errorf("the log does not say %q:\n%s", words, tr.Log())
		}
	}
	if key := tr.Stats().GetAttribution().GetKey(); !strings.HasPrefix(key, "pid namespace: ") {
		t.Errorf("the stats say that attribution goes by %q", key)
	}
	mark(t, tr, p)
	tr.Stop()
	checkNone(t, tr.Binaries)
}
