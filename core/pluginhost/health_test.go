package pluginhost

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestAPluginThatIsStoppedIsGivenUpAtTheFirstCheck(t *testing.T) {
	// Patience with a process that only sleeps or works would last for a day.
	h := newHost(t, Options{Pace: Pace{HealthDoubts: 1 << 20, SilentAfter: 24 * time.Hour}})
	d, got := discover(t, h, nil)
	pid := running(t, d)
	halted := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its loss", func() bool { return len(got.losses()) == 1 })
	t.Logf("from SIGSTOP to its detection: %s", time.Since(halted).Round(time.Millisecond))
	if l := got.losses(); !strings.Contains(l[0], "frozen") || !strings.Contains(l[0], "a signal has stopped it") {
		t.Errorf("lost: %q", l)
	}
}

func TestAnAnswerThatIsLateIsAnAnswer(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{HealthInterval: time.Millisecond, HealthTimeout: 6 * time.Microsecond, HealthDoubts: 1 << 20}})
	d, got := discover(t, h, map[string]any{"degraded": "so that an answer shows"})
	eventually(t, "an answer", func() bool { return d.Status().State == Degraded })
	if s := d.Status(); s.Restarts != 0 || len(got.losses()) != 0 {
		t.Errorf("status is %+v, lost %q", s, got.losses())
	}
}

func TestAPluginThatStopsReadingItsStreamIsStartedAgain(t *testing.T) {
	h := newHost(t, Options{Pace: Pace{HealthInterval: 20 * time.Millisecond, StallAfter: 300 * time.Millisecond}})
	facts := &hostFacts{known: map[uint64]string{}}
	got := &heard{}
	handler := got.handler()
	handler.Facts = facts.list
	run := func(conf map[string]any) *Discoverer {
		d, err := h.RunDiscoverer(t.Context(), testSpec(t, config.Discoverer, conf), handler)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the subscription", func() bool { return d.subscribed.Load() != nil })
		return d
	}
	deaf := run(map[string]any{"deaf": true})
	deaf.Tell(facts.add(1), true)
	eventually(t, "its end", func() bool { return len(got.losses()) == 1 })
	if l := got.losses(); !strings.HasPrefix(l[0], "its stream has stopped: of 2 messages it has read 1") {
		t.Errorf("lost: %q", l)
	}
	eventually(t, "a restart", func() bool { s := deaf.Status(); return s.Restarts == 1 && s.State == Running })
	if err := deaf.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	// One that reads, and then has nothing to read, is left alone.
	reads := run(map[string]any{"subscribe": true})
	for id := range uint64(100) {
		reads.Tell(facts.add(id), true)
	}
	time.Sleep(900 * time.Millisecond)
	if s := reads.Status(); s.Restarts != 0 || s.State != Running {
		t.Errorf("status is %+v", s)
	}
}

func TestAStreamIsStalledOnlyWhileItIsToldMoreThanItReads(t *testing.T) {
	start := time.Now()
	type step struct {
		told, received, sent uint64
		seconds              int
		stalled              bool
	}
	for name, steps := range map[string][]step{
		"nothing to say":                 {{0, 0, 5, 0, false}, {0, 0, 5, 100, false}},
		"all read":                       {{9, 9, 1, 0, false}, {9, 9, 1, 100, false}},
		"slow, but it goes on":           {{9, 1, 1, 0, false}, {9, 2, 1, 25, false}, {9, 3, 1, 50, false}, {9, 4, 1, 75, false}},
		"it stops":                       {{9, 1, 1, 0, false}, {9, 1, 1, 29, false}, {9, 1, 1, 30, true}},
		"told something after a silence": {{1, 1, 1, 0, false}, {1, 1, 1, 100, false}, {2, 1, 1, 101, false}, {2, 1, 1, 129, false}, {2, 1, 1, 130, true}},
		"it does not count":              {{9, 0, 0, 0, false}, {99, 0, 0, 100, false}},
	} {
		t.Run(name, func(t *testing.T) {
			i := &instance{open: true}
			i.taken.at = start
			for n, s := range steps {
				i.told.Store(s.told)
				err := i.stalled(&protov1.HealthResponse{Received: s.received, Sent: s.sent}, start.Add(time.Duration(s.seconds)*time.Second), 30*time.Second)
				if (err != nil) != s.stalled {
					t.Errorf("step %d: %v", n, err)
				}
			}
		})
	}
}
