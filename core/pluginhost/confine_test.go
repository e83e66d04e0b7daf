package pluginhost

import (
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// elsewhere is the variable that tells a test that it runs where its other half has
// put it: the directory with the plugins.
const elsewhere = "PLUGINHOST_TEST_ELSEWHERE"

// again runs this test once more in a process that cmd says how to start, whose last
// arguments are the test binary's. It tells whether that is where this is.
func again(t *testing.T, attr *syscall.SysProcAttr, cmd ...string) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have less of it")
	}
	if os.Getenv(elsewhere) != "" {
		return true
	}
	cmd = append(cmd, os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
	c := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...)
	c.Env, c.SysProcAttr = append(os.Environ(), elsewhere+"="+pluginDir), attr
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("elsewhere: %v", err)
	}
	return false
}

// withoutAdmin is how a daemon runs that may not make namespaces.
var withoutAdmin = []string{"setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"}

func TestAPluginThatCantHaveARootOfItsOwnRunsWithTheOtherMeasures(t *testing.T) {
	if !again(t, nil, withoutAdmin...) {
		return
	}
	state, err := os.MkdirTemp("", "ph-state-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	if err := os.Chmod(pluginDir, 0o711); err != nil { // as a store is open to all
		t.Fatal(err)
	}
	log := &logBuffer{}
	h := newHost(t, Options{StateDir: state, Log: slog.New(slog.NewTextHandler(log, nil))})
	d, _ := discover(t, h, nil)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log)
		}
	})
	running(t, d)
	c := d.Status().Confinement
	t.Logf("in force %q, not %q", c.Applied, c.NotApplied)
	if !slices.ContainsFunc(c.NotApplied, func(s string) bool {
		return strings.HasPrefix(s, "own root directory and namespaces: ") && strings.Contains(s, "not permitted")
	}) {
		t.Errorf("that it has no root of its own is not told: %q", c.NotApplied)
	}
	if c.UID == 0 || !slices.Contains(c.Applied, "no capabilities") || !slices.Contains(c.Applied, "no_new_privs") {
		t.Errorf("user %d, in force %q", c.UID, c.Applied)
	}
}

func TestWhereTheSandboxIsRequiredAPluginWithoutAMeasureDoesNotStart(t *testing.T) {
	if !again(t, nil, withoutAdmin...) {
		return
	}
	h := newHost(t, Options{RequireSandbox: true})
	_, err := h.Describe(t.Context(), testSpec(t, config.Discoverer, nil).Entry)
	if err == nil || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") || !strings.Contains(err.Error(), `sandbox = "best-effort"`) {
		t.Errorf("error is %v", err)
	}
}

func TestWhereTheSandboxIsRequiredWhatIsNotInForceIsListed(t *testing.T) {
	h := newHost(t, Options{RequireSandbox: true, NoCgroups: true})
	_, err := h.Describe(t.Context(), testSpec(t, config.Discoverer, nil).Entry)
	if err == nil || !strings.Contains(err.Error(), "own control group") || !strings.Contains(err.Error(), `sandbox = "best-effort"`) {
		t.Errorf("error is %v", err)
	}
}

func TestAPluginRunsAsAUserThatTheDaemonsUserNamespaceHas(t *testing.T) {
	ids := []syscall.SysProcIDMap{{Size: 65536}}
	if !again(t, &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
	}) {
		return
	}
	h := newHost(t, Options{})
	d, _ := discover(t, h, nil)
	running(t, d)
	c := d.Status().Confinement
	t.Logf("in force %q, not %q", c.Applied, c.NotApplied)
	if c.UID < 1000 || c.UID > 65535 {
		t.Errorf("it is user %d", c.UID)
	}
}
