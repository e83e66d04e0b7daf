package resource

import (
	"fmt"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestAWarningComesOnceForEachCrossing(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 1)
	at := "/docker/" + id(1)
	h.write(at+"/pids.max", "100\n")
	var told []string
	step := func(pids int) {
		h.write(at+"/pids.current", fmt.Sprintln(pids))
		h.pass(m)
		for _, w := range h.warned {
			told = append(told, fmt.Sprintf("%s %d/%d %.2f %v", w.limit, w.used, w.of, w.share, w.ended))
			if w.workload.Container.GetName() != "c1" {
				t.Errorf("it is of %v", w.workload.Container)
			}
		}
		h.warned = nil
	}
	near := func() int { return len(h.near(m, 1)) }
	h.pass(m)
	for _, pids := range []int{89, 90, 95, 89, 82, 90, 100} {
		step(pids)
	}
	if near() != 1 {
		t.Error("it is not told to be near")
	}
	for _, pids := range []int{80, 89, 91} {
		step(pids)
	}
	if got := strings.Join(told, ", "); got != "pids 90/100 0.90 false, pids 80/100 0.80 true, pids 91/100 0.91 false" {
		t.Errorf("told was %s", got)
	}
	if s := m.Stats(); s.Warnings != [Limits]uint64{OfPids: 2} {
		t.Errorf("counted were %v", s.Warnings)
	}
	log := h.log.String()
	if strings.Count(log, "is near to a limit") != 2 || strings.Count(log, "is no longer near") != 1 || !strings.Contains(log, "resource=pids container=c1") {
		t.Errorf("the log has\n%s", log)
	}
	if text := metrics(t, m); !strings.Contains(text, `name="c1",resource="pids"} 0.91`) || !strings.Contains(text, `ebpf_tracer_container_limit_warnings_total{resource="pids"} 2`) {
		t.Error("the metrics do not say so")
	}
	// Without a limit it is near to none.
	h.write(at+"/pids.max", "max\n")
	for range limitsEvery + 1 {
		h.pass(m)
	}
	if near() != 0 {
		t.Error("without a limit it is near to one")
	}
}

func TestAContainerThatIsStartedAgainIsWarnedOfAnew(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	at := "/docker/" + id(1)
	group := h.container(1, 1, 10)
	h.write(at+"/pids.max", "10\n")
	h.pass(m)
	h.gone(at, group)
	h.group(at, 1, 10)
	h.write(at+"/pids.max", "10\n")
	h.describe(1, func(c *protov1.Container) { c.StartedUnixNano = 7e9 })
	h.pass(m)
	h.pass(m)
	if n := m.Stats().Warnings[OfPids]; n != 2 {
		t.Errorf("%d warnings of two runs", n)
	}
}

func TestMemoryIsJudgedByTheWorkingSetAndCPUByThrottledPeriods(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 1)
	at := "/docker/" + id(1)
	memory := func(current, inactive int) {
		h.write(at+"/memory.max", "1000\n")
		h.write(at+"/memory.current", fmt.Sprintln(current))
		h.write(at+"/memory.stat", fmt.Sprintf("inactive_file %d\n", inactive))
	}
	cpu := func(periods, throttled int) {
		h.write(at+"/cpu.stat", fmt.Sprintf("usage_usec 1\nnr_periods %d\nnr_throttled %d\nthrottled_usec 1\n", periods, throttled))
	}
	near := func() string {
		h.pass(m)
		var all []string
		for _, l := range h.near(m, 1) {
			all = append(all, l.String())
		}
		return strings.Join(all, " ")
	}
	check := func(when, want string) {
		t.Helper()
		if got := near(); got != want {
			t.Errorf("%s: near to %q, want %q", when, got, want)
		}
	}
	memory(1000, 200)
	cpu(1000, 1000)
	near()
	check("full, but for pages of files; and nothing to compare the periods with", "")
	memory(1000, 50)
	check("full of what is used", "memory")
	cpu(1100, 1089)
	check("throttled in 89 of 100 periods", "memory")
	cpu(1200, 1189)
	check("throttled in all", "memory cpu")
	cpu(1205, 1189)
	check("too few periods to say", "memory cpu")
	cpu(1305, 1190)
	check("hardly throttled", "memory")
	cpu(1405, 1290)
	check("throttled again", "memory cpu")
	check("idle", "memory")
	memory(100, 0)
	check("emptied", "")
	if s := m.Stats(); s.Warnings != [Limits]uint64{OfMemory: 1, OfCPU: 2} {
		t.Errorf("counted were %v", s.Warnings)
	}
}

func TestWarningsInTheLogAreFew(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	for i := range 3 * mostLogged {
		h.container(i, 1, 10)
		h.write("/docker/"+id(i)+"/pids.max", "10\n")
	}
	h.pass(m)
	if n := strings.Count(h.log.String(), "is near to a limit"); n != mostLogged {
		t.Errorf("%d are logged", n)
	}
	if n := m.Stats().Warnings[OfPids]; n != 3*mostLogged || len(h.warned) != 3*mostLogged {
		t.Errorf("%d are counted, %d told", n, len(h.warned))
	}
	h.now = h.now.Add(time.Minute)
	h.container(1000, 1, 10)
	h.write("/docker/"+id(1000)+"/pids.max", "10\n")
	h.pass(m)
	h.pass(m)
	if !strings.Contains(h.log.String(), fmt.Sprintf("than are logged\" count=%d", 2*mostLogged)) {
		t.Errorf("the log does not say how many are not in it:\n%s", h.log.String())
	}
}

func TestNoWarningIsWantedWithoutAShare(t *testing.T) {
	h := newHost(t)
	m := h.monitor(func(o *Options) { o.WarnAt = 0 })
	h.container(1, 1, 10)
	h.write("/docker/"+id(1)+"/pids.max", "10\n")
	h.pass(m)
	h.pass(m)
	if m.Stats().Warnings != [Limits]uint64{} || h.log.Len() > 0 {
		t.Error("there is a warning")
	}
}
