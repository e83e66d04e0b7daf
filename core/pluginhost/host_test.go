package pluginhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

func TestDescribeReadsTheSchemaOfEachKind(t *testing.T) {
	h := newHost(t, Options{})
	for _, kind := range []config.PluginKind{config.Discoverer, config.Mesh, config.Sampler} {
		t.Run(string(kind), func(t *testing.T) {
			d, err := h.Describe(t.Context(), testSpec(t, kind, nil).Entry)
			if err != nil {
				t.Fatal(err)
			}
			if d.Kind != kind || d.Name != "test" || d.Version != "1.2.3" || d.Doc != "A test." {
				t.Errorf("described as %+v", d)
			}
			a := d.Schema.Attributes
			if len(a) != 3 || a[0].Name != "containers" || a[0].Type != schema.Integer || *a[0].Min != 0 || fmt.Sprintf("%s", a[0].Default) != "1" {
				t.Fatalf("attributes are %+v", a)
			}
			if fmt.Sprintf("%s", a[1].Default) != "500000000" || a[2].Default != nil {
				t.Errorf("defaults are %s and %v", a[1].Default, a[2].Default)
			}
			if b := d.Schema.Blocks; len(b) != 1 || b[0].MaxItems != 3 || !b[0].Block.Attributes[0].Required {
				t.Errorf("blocks are %+v", b)
			}
		})
	}
}

func TestDescribeOfAPluginUnderAnotherKindIsRefused(t *testing.T) {
	h := newHost(t, Options{})
	e := testSpec(t, config.Discoverer, nil).Entry
	e.Args = []string{"sampler"}
	_, err := h.Describe(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), `is sampler "test", but its manifest says discoverer "test"`) {
		t.Errorf("error is %v", err)
	}
}

func TestAProgramThatIsNoPluginSaysWhatItWrote(t *testing.T) {
	h := newHost(t, Options{})
	e := testSpec(t, config.Discoverer, nil).Entry
	e.Program, e.Args = "/bin/sh", []string{"-c", "echo no such thing as a plugin >&2; exit 3"}
	_, err := h.Describe(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), "it exited with status 3 before it was ready") || !strings.Contains(err.Error(), "no such thing as a plugin") {
		t.Errorf("error is %v", err)
	}
}

func TestAPluginThatSaysNothingIsEndedAfterItsStartTimeout(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{StartTimeout: 300 * time.Millisecond}})
	e := testSpec(t, config.Discoverer, nil).Entry
	e.Program, e.Args = "/bin/sh", []string{"-c", "echo waiting >&2; exec sleep 1000"}
	_, err := h.Describe(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), "it was not ready after 300ms") {
		t.Fatalf("error is %v", err)
	}
	if !strings.Contains(err.Error(), `it wrote last: "waiting"`) {
		t.Errorf("error is %v", err)
	}
	if h.groups == nil {
		t.Fatal("there are no control groups to tell by that it has ended")
	}
	eventually(t, "the end of the process", func() bool {
		left, err := filepath.Glob(filepath.Join(h.groups.unified, "test.*"))
		return err == nil && len(left) == 0 // a group with a process in it can't be removed
	})
}

func TestAPluginOfAnotherProtocolGetsASentence(t *testing.T) {
	for speaks, want := range map[string]string{
		"0": "it speaks protocol 0, and the oldest that this daemon speaks is 1: install a newer version of the plugin",
		"2": "it speaks protocol 2, and the newest that this daemon speaks is 1: install a newer daemon, or an older version of the plugin",
	} {
		t.Run(speaks, func(t *testing.T) {
			h := newHost(t, Options{})
			e := testSpec(t, config.Discoverer, nil).Entry
			e.Program, e.Args = "/bin/sh", []string{"-c", "echo '1|" + speaks + "|unix|/run/plugin/plugin1|grpc|'; exec sleep 1000"}
			_, err := h.Describe(t.Context(), e)
			if err == nil || err.Error() != "start plugin discoverer/test: "+want {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestAnAddressOutsideOfTheInstancesDirectoryIsRefused(t *testing.T) {
	for _, address := range []string{"unix|/run/other.sock", "tcp|127.0.0.1:1234"} {
		t.Run(address, func(t *testing.T) {
			h := newHost(t, Options{})
			e := testSpec(t, config.Discoverer, nil).Entry
			e.Program, e.Args = "/bin/sh", []string{"-c", "echo '1|1|" + address + "|grpc|'; exec sleep 1000"}
			_, err := h.Describe(t.Context(), e)
			if err == nil || !strings.Contains(err.Error(), "only a unix socket in") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestASocketThatAnotherProcessListensOnIsRefused(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{StartTimeout: 2 * time.Second}})
	e := testSpec(t, config.Discoverer, nil).Entry
	// The plugin is the shell's child: its socket is not the shell's.
	e.Args = []string{"-c", sandbox.ProgramAt + "/test discoverer & wait"}
	e.Program = "/bin/sh"
	_, err := h.Describe(t.Context(), e)
	if err == nil || !strings.Contains(err.Error(), "which is not the plugin's") {
		t.Errorf("error is %v", err)
	}
}

func TestValidateBringsDiagnosticsWithTheirPaths(t *testing.T) {
	h := newHost(t, Options{})
	spec := testSpec(t, config.Sampler, map[string]any{"refuse": "because"})
	s, err := h.Open(t.Context(), spec.Entry)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ds, err := s.Validate(t.Context(), spec.Config)
	if err != nil {
		t.Fatal(err)
	}
	if len(ds) != 2 || ds[0].Severity != diag.Error || ds[0].Path.String() != "refuse" || ds[0].Detail != "because" {
		t.Errorf("diagnostics are %+v", ds)
	}
	if len(ds) == 2 && (ds[1].Severity != diag.Warning || ds[1].Path.String() != `level[1]["a b"]`) {
		t.Errorf("the second is %+v", ds[1])
	}
	ds, err = s.Validate(t.Context(), []byte(`{"containers": "many"}`))
	if err != nil || len(ds) != 1 || ds[0].Path.String() != "containers" {
		t.Errorf("of a wrong type: %+v, %v", ds, err)
	}
	if ds, err := s.Validate(t.Context(), []byte(`{}`)); err != nil || len(ds) != 0 {
		t.Errorf("of a good configuration: %+v, %v", ds, err)
	}
}

func TestDetectTellsAbsentFromPresent(t *testing.T) {
	h := newHost(t, Options{})
	for _, absent := range []bool{true, false} {
		d, err := h.Detect(t.Context(), testSpec(t, config.Discoverer, map[string]any{"absent": absent}), nil)
		want := map[bool]string{true: "/no/socket", false: "here"}[absent]
		if err != nil || d.Present == absent || d.Detail != want || d.Description.Version != "1.2.3" {
			t.Errorf("absent=%v: %+v, %v", absent, d, err)
		}
	}
}

func TestDetectConfiguresAPluginByWhatItSaysOfItself(t *testing.T) {
	h := newHost(t, Options{})
	spec := testSpec(t, config.Discoverer, nil)
	d, err := h.Detect(t.Context(), spec, func(d Description) ([]byte, error) {
		if len(d.Schema.Attributes) == 0 {
			t.Errorf("described as %+v", d)
		}
		return []byte(`{"absent": true}`), nil
	})
	if err != nil || d.Present || d.Detail != "/no/socket" {
		t.Errorf("%+v, %v", d, err)
	}
	not := errors.New("not this one")
	if d, err := h.Detect(t.Context(), spec, func(Description) ([]byte, error) { return nil, not }); !errors.Is(err, not) || d.Description.Name != "test" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestDetectIsOverInTimeWhateverThePluginDoes(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{ConfigureTimeout: 5 * time.Second, DetectTimeout: 200 * time.Millisecond, StopTimeout: 200 * time.Millisecond}})
	for detect, want := range map[string]string{
		"hang": "detect: it did not answer in time", "crash": "crash in Detect", "error": "detect: out of order",
	} {
		_, err := h.Detect(t.Context(), testSpec(t, config.Discoverer, map[string]any{"detect": detect}), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", detect, err)
		}
	}
}

func TestAPluginGetsOnlyTheVariablesThatItsManifestNames(t *testing.T) {
	t.Setenv("PH_TEST_GIVEN", "given")
	t.Setenv("PH_TEST_SECRET", "secret")
	h := newHost(t, Options{})
	_, got := discover(t, h, map[string]any{"containers": 1, "env": []string{"all"}})
	eventually(t, "a container", func() bool { return len(got.containers()) > 0 })
	env := got.containers()[0].GetLabels()
	if env["PH_TEST_GIVEN"] != "given" || env["PATH"] == "" {
		t.Errorf("what it should be given is missing in %v", env)
	}
	if env["GOMAXPROCS"] != "1" {
		t.Errorf("it runs on %q threads", env["GOMAXPROCS"])
	}
	for _, name := range []string{"PH_TEST_SECRET", "HOME", "USER", "PWD"} {
		if v, ok := env[name]; ok {
			t.Errorf("it was given %s=%s", name, v)
		}
	}
}

func TestTheStateDirectoryIsKept(t *testing.T) {
	state := t.TempDir()
	log := &logBuffer{}
	h := newHost(t, Options{StateDir: state, Log: slog.New(slog.NewTextHandler(log, nil))})
	d, _ := discover(t, h, nil)
	running(t, d)
	want := filepath.Join(state, "discoverer", "test")
	eventually(t, "the plugin's record of it", func() bool { return strings.Contains(log.String(), "state_dir="+sandbox.StateDir) })
	if st, err := os.Stat(want); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v", st, err)
	}
	if !strings.Contains(log.String(), "msg=discovering plugin=discoverer/test node=node-1") {
		t.Errorf("the record came out differently:\n%s", log.String())
	}
}

func TestADirectoryThatNoHostHasMadeIsNeverEmptied(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "sampler", "threshold")
	if err := errors.Join(os.Mkdir(filepath.Dir(theirs), 0o755), os.WriteFile(theirs, []byte("theirs"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{RuntimeDir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("the host took the directory: %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestARuntimeDirectoryThatOthersCouldChangeIsRefused(t *testing.T) {
	top := t.TempDir()
	made := func(name string, mode os.FileMode) string {
		dir := filepath.Join(top, name)
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, mode), os.WriteFile(filepath.Join(dir, lockName), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	open, target, link := made("open", 0o777), made("target", 0o700), filepath.Join(top, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	dirs := []string{open, link}
	if os.Geteuid() == 0 {
		foreign := made("foreign", 0o700)
		if err := os.Chown(foreign, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, foreign)
	}
	for _, dir := range dirs {
		if _, err := New(Options{RuntimeDir: dir, NoCgroups: true, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "take it away") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestOneRuntimeDirectoryServesOneHost(t *testing.T) {
	dir, err := os.MkdirTemp("", "ph-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o600), os.Mkdir(filepath.Join(dir, "left-behind"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, Options{RuntimeDir: dir})
	if _, err := os.Stat(filepath.Join(dir, "left-behind")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left behind is still there: %v", err)
	}
	if _, err := New(Options{RuntimeDir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "used by another daemon") {
		t.Errorf("the second host: %v", err)
	}
	d, _ := discover(t, h, nil)
	running(t, d)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "[^.]*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := h.Describe(t.Context(), testSpec(t, config.Mesh, nil).Entry); !errors.Is(err, errStopped) {
		t.Errorf("describe after stop: %v", err)
	}
	if _, err := h.RunSampler(t.Context(), testSpec(t, config.Sampler, nil), SamplerHandler{}); !errors.Is(err, errStopped) {
		t.Errorf("run after stop: %v", err)
	}
}

func TestStopEndsAllPluginsAndWhatTheyStarted(t *testing.T) {
	h := newHost(t, Options{})
	var pids []int
	for _, conf := range []map[string]any{{}, {"ignore_stop": true}, {"grandchild": true}} {
		d, _ := discover(t, h, conf)
		pids = append(pids, running(t, d))
		if conf["grandchild"] == true {
			eventually(t, "the grandchild's pid", func() bool { return grandchild(d) != 0 })
			pids = append(pids, grandchild(d))
		}
	}
	// One that is frozen can only be killed.
	if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	for _, s := range h.Status() {
		if s.State != Stopped || s.PID != 0 || s.CPUSeconds <= 0 {
			t.Errorf("status is %+v", s)
		}
	}
	if h.groups != nil {
		if _, err := os.Stat(h.groups.unified); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("control groups are left: %v", err)
		}
	}
}

// grandchild is the process whose pid the plugin wrote to its standard error, by its
// pid out here; 0: it has not, or it is gone.
func grandchild(d *Discoverer) int {
	s := d.Status()
	for _, l := range s.LastStderr {
		if inner, ok := strings.CutPrefix(l, "grandchild "); ok {
			return outside(s.PID, inner)
		}
	}
	return 0
}

// outside finds the process that has the pid inner in the pid namespace of another.
func outside(other int, inner string) int {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", other))
	if err != nil {
		return 0
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0
	}
	for _, dir := range all {
		ns, err := os.Readlink(dir + "/ns/pid")
		if err != nil || ns != want {
			continue
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == inner {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				return pid
			}
		}
	}
	return 0
}

// victim is the body of a host process that a test kills: it runs a plugin and
// says its pid and its grandchild's.
func victim() {
	h, err := New(Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	c, err := NewCatalog([]string{pluginDir})
	if err != nil {
		panic(err)
	}
	e, err := c.Find(config.Discoverer, "test")
	if err != nil {
		panic(err)
	}
	got := &heard{}
	d, err := h.RunDiscoverer(context.Background(), Spec{Entry: e, Config: []byte(`{"containers":1,"grandchild":true}`), Node: &protov1.Node{}}, got.handler())
	if err != nil {
		panic(err)
	}
	for grandchild(d) == 0 || got.synced() == 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(d.Status().PID, grandchild(d), h.dir)
	select {}
}

func TestAHostThatIsKilledLeavesNoPluginBehind(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hostRole+"="+pluginDir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid, child int
	var dir string
	if _, err := fmt.Sscan(line, &pid, &child, &dir); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if gone(pid) || gone(child) {
		t.Fatal("the plugin does not run")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	eventually(t, "the end of the plugin", func() bool { return gone(pid) })
	// The kernel ends all of a pid namespace with its first process.
	eventually(t, "the end of the grandchild", func() bool { return gone(child) })
	newHost(t, Options{}) // sweeps the control groups
}
