package pluginhost

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestAKilledPluginIsStartedAgainAndTellsEverythingAnew(t *testing.T) {
	h := newHost(t, Options{})
	d, got := discover(t, h, map[string]any{"containers": 3})
	pid := running(t, d)
	eventually(t, "the first snapshot", func() bool { return got.synced() == 1 })
	if err := d.Started(t.Context()); err != nil {
		t.Fatalf("started: %v", err)
	}
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second snapshot", func() bool { return got.synced() == 2 })
	t.Logf("from kill to the next snapshot: %s", time.Since(killed).Round(100*time.Microsecond))
	if again := running(t, d); again == pid {
		t.Error("the process is the same")
	}
	if l := got.losses(); len(l) != 1 || !strings.Contains(l[0], "signal: killed") {
		t.Errorf("lost: %q", l)
	}
	if n := len(got.containers()); n != 6 {
		t.Errorf("%d containers were told, not 2 times 3", n)
	}
	s := d.Status()
	if s.Restarts != 1 || s.Version != "1.2.3" || s.MemoryBytes == 0 || s.CPUSeconds <= 0 || s.Reason != "" || !strings.Contains(s.LastError, "signal: killed") {
		t.Errorf("status is %+v", s)
	}
}

func TestAPluginThatPausesIsLeftAlone(t *testing.T) {
	h := newHost(t, Options{})
	d, got := discover(t, h, nil)
	pid := running(t, d)
	for range 4 {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	if s := d.Status(); s.PID != pid || s.Restarts != 0 || len(got.losses()) != 0 {
		t.Errorf("status is %+v, lost %q", s, got.losses())
	}
}

func TestAFrozenPluginIsKilledAndStartedAgain(t *testing.T) {
	h := newHost(t, Options{})
	d, got := discover(t, h, nil)
	pid := running(t, d)
	eventually(t, "the first snapshot", func() bool { return got.synced() == 1 })
	stopped := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the process", func() bool { return gone(pid) })
	t.Logf("from SIGSTOP to its end: %s", time.Since(stopped).Round(time.Millisecond))
	eventually(t, "the second snapshot", func() bool { return got.synced() == 2 })
	if again := running(t, d); again == pid {
		t.Error("the process is the same")
	}
	if l := got.losses(); len(l) != 1 || !strings.Contains(l[0], "frozen") {
		t.Errorf("lost: %q", l)
	}
}

func TestAPluginThatKeepsCrashingIsGivenUpUntilToldOtherwise(t *testing.T) {
	pace := fast
	pace.Restarts = 4
	h := newHost(t, Options{Pace: pace})
	d, _ := discover(t, h, map[string]any{"crash_new": true})
	if err := d.Started(t.Context()); err == nil || !strings.Contains(err.Error(), "configure") {
		t.Errorf("started: %v", err)
	}
	eventually(t, "state failed", func() bool { return d.Status().State == Failed })
	s := d.Status()
	if s.Restarts != 4 || s.PID != 0 {
		t.Errorf("status is %+v", s)
	}
	if !strings.Contains(s.Reason, "more than 4 times in 1m0s") || !strings.Contains(s.Reason, "it exited with status 2") || !strings.Contains(s.Reason, "panic: crash in New") {
		t.Errorf("the reason is %q", s.Reason)
	}
	if !strings.Contains(strings.Join(s.LastStderr, "\n"), "goroutine") {
		t.Errorf("last lines are %q", s.LastStderr)
	}
	d.Restart()
	eventually(t, "it fails again", func() bool { s := d.Status(); return s.State == Failed && s.Restarts == 9 })
}

func TestARefusedConfigurationFailsAtOnceWithItsDiagnostics(t *testing.T) {
	for name, conf := range map[string]map[string]any{
		"by Validate": {"refuse": "because"},
		"by New":      {"new_error": "because"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Options{})
			d, _ := discover(t, h, conf)
			err := d.Started(t.Context())
			var refusal *diag.Refusal
			if !errors.As(err, &refusal) || !strings.Contains(refusal.Diagnostics[0].Detail, "because") {
				t.Fatalf("started: %v", err)
			}
			eventually(t, "state failed", func() bool { return d.Status().State == Failed })
			if s := d.Status(); s.Restarts != 0 || !strings.Contains(s.Reason, "because") {
				t.Errorf("status is %+v", s)
			}
		})
	}
}

func TestARefusalIsExplainedInTheOperatorsWords(t *testing.T) {
	h := newHost(t, Options{})
	spec := testSpec(t, config.Discoverer, map[string]any{"new_error": "because"})
	spec.Explain = func(ds diag.Diagnostics) string { return fmt.Sprintf("config.hcl:1:2: %s", ds[0].Detail) }
	d, err := h.RunDiscoverer(t.Context(), spec, (&heard{}).handler())
	if err != nil {
		t.Fatal(err)
	}
	err = d.Started(t.Context())
	var refusal *diag.Refusal
	if !errors.As(err, &refusal) || err.Error() != "config.hcl:1:2: because" {
		t.Errorf("started: %v", err)
	}
	eventually(t, "state failed", func() bool { return d.Status().State == Failed })
	if s := d.Status(); s.Reason != "config.hcl:1:2: because" {
		t.Errorf("status is %+v", s)
	}
}

func TestAStreamThatEndsIsOpenedAgainInTheSameProcess(t *testing.T) {
	h := newHost(t, Options{Pace: fast})
	d, got := discover(t, h, map[string]any{"return_error": "the runtime is odd"})
	eventually(t, "three snapshots", func() bool { return got.synced() >= 3 })
	s := d.Status()
	if s.Restarts != 0 {
		t.Errorf("status is %+v", s)
	}
	if l := got.losses(); len(l) < 2 || l[0] != "the runtime is odd" {
		t.Errorf("lost: %q", l)
	}
	eventually(t, "state degraded", func() bool {
		s := d.Status()
		return s.State == Degraded && s.Reason == "the runtime is odd"
	})
}

func TestAPluginThatSaysSoIsDegraded(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{HealthInterval: 20 * time.Millisecond}})
	d, _ := discover(t, h, map[string]any{"degraded": "the socket does not answer"})
	eventually(t, "state degraded", func() bool {
		s := d.Status()
		return s.State == Degraded && s.Reason == "the socket does not answer"
	})
}

func TestStandardOutputIsLog(t *testing.T) {
	log := &logBuffer{}
	h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	d, got := discover(t, h, map[string]any{"print": true})
	running(t, d)
	eventually(t, "a snapshot", func() bool { return got.synced() == 1 })
	for _, want := range []string{"printed before the handshake", "printed to standard output", "printed to standard error"} {
		eventually(t, want, func() bool { return strings.Contains(log.String(), want) })
	}
}

func TestALongLineIsCutAndStallsNothing(t *testing.T) {
	log := &logBuffer{}
	h := newHost(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	d, got := discover(t, h, map[string]any{"long_line": true})
	running(t, d)
	eventually(t, "a snapshot", func() bool { return got.synced() == 1 })
	eventually(t, "the line after them", func() bool { return strings.Contains(log.String(), "after the long lines") })
	if !strings.Contains(log.String(), "xxx [cut]") || !strings.Contains(log.String(), "log record was too long and is cut") {
		t.Errorf("the log is:\n%.4000s", log.String())
	}
	for _, l := range d.Status().LastStderr {
		if len(l) > tailBytes+len(cutMessage) {
			t.Errorf("a line of %d bytes is kept", len(l))
		}
	}
}

func TestAGrandchildThatHoldsStandardErrorDelaysNothing(t *testing.T) {
	for _, groups := range []bool{true, false} {
		t.Run(map[bool]string{true: "with control groups", false: "without"}[groups], func(t *testing.T) {
			h := newHost(t, Options{NoCgroups: !groups})
			d, got := discover(t, h, map[string]any{"grandchild": true})
			pid := running(t, d)
			var child int
			eventually(t, "the grandchild's pid", func() bool { child = grandchild(d); return child != 0 })
			eventually(t, "the first snapshot", func() bool { return got.synced() == 1 })
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the second snapshot", func() bool { return got.synced() == 2 })
			eventually(t, "the end of the grandchild", func() bool { return gone(child) })
		})
	}
}

func TestACrashNamesThePanic(t *testing.T) {
	h := newHost(t, Options{Pace: fast})
	d, _ := discover(t, h, map[string]any{"crash_after": 50})
	eventually(t, "a restart", func() bool { return d.Status().Restarts >= 1 })
	s := d.Status()
	if !strings.HasSuffix(s.LastError, `; it wrote last: "panic: crash in Discover"`) || !strings.Contains(strings.Join(s.LastStderr, "\n"), "goroutine") {
		t.Errorf("status is %+v", s)
	}
}

func TestTheLastWordsAreThoseOfTheProcessThatEnded(t *testing.T) {
	h := newHost(t, Options{})
	d, _ := discover(t, h, map[string]any{"print": true})
	eventually(t, "its words", func() bool { return strings.Contains(strings.Join(d.Status().LastStderr, "\n"), "to standard error") })
	for _, conf := range []map[string]any{{"crash_after": 100}, nil} {
		pid := running(t, d)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another process", func() bool { s := d.Status(); return s.State == Running && s.PID != pid && s.PID != 0 })
		if e := d.Status().LastError; !strings.Contains(e, "signal: killed") || strings.Contains(e, "panic") {
			t.Errorf("the last error is %q", e)
		}
		if conf == nil {
			return
		}
		if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, conf)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a panic", func() bool { return strings.Contains(d.Status().LastError, "panic") })
		if err := d.Replace(t.Context(), testSpec(t, config.Discoverer, nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFloodIsThinnedAndCountedAlsoWhenNothingFollows(t *testing.T) {
	log := &logBuffer{}
	out := &output{log: slog.New(slog.NewTextHandler(log, nil))}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		out.read(r, "stderr")
	}()
	const lines = 5000
	for n := range lines {
		fmt.Fprintln(w, "line", n)
	}
	told := regexp.MustCompile(`lines were left out" lines=(\d+)`)
	eventually(t, "a count that is complete", func() bool {
		sum := strings.Count(log.String(), `msg="line `)
		for _, m := range told.FindAllStringSubmatch(log.String(), -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		return sum == lines && len(told.FindAllString(log.String(), -1)) > 0
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestASamplerThatHangsIsStartedAgain(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{AnswerTimeout: 300 * time.Millisecond}})
	lost := make(chan string, 100)
	starts := make(chan struct{}, 100)
	s, err := h.RunSampler(t.Context(), testSpec(t, config.Sampler, map[string]any{"hang": 2}), SamplerHandler{
		Interval: func(time.Duration) time.Duration { return 10 * time.Millisecond },
		Report:   func(uint64) *protov1.Report { return &protov1.Report{} },
		Answer: func(a *protov1.Answer) {
			if a.GetReportSequence() == 0 {
				starts <- struct{}{}
			}
		},
		Lost: func(reason string) { lost <- reason },
	})
	if err != nil {
		t.Fatal(err)
	}
	<-starts
	<-lost
	<-starts
	if st := s.Status(); st.Restarts == 0 {
		t.Errorf("status is %+v", st)
	}
}

func TestAPluginThatIsStoppedIsGoneAndTheOthersGoOn(t *testing.T) {
	h := newHost(t, Options{})
	one, got := discover(t, h, nil)
	other, _ := discover(t, h, nil)
	pid := running(t, one)
	running(t, other)
	if err := one.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !gone(pid) {
		t.Error("its process is still there")
	}
	if l := got.losses(); len(l) != 1 || l[0] != "it was stopped" {
		t.Errorf("lost: %q", l)
	}
	if s := h.Status(); len(s) != 1 || s[0].State != Running {
		t.Errorf("status is %+v", s)
	}
}
