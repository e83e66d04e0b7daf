package runtimes

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
)

// life takes a container through its life, step by step, each once the one before was
// told: a runtime that tells by what it finds, and not as it happens, would otherwise
// miss what is short.
func life(t *testing.T, r row, rt env.Runtime) {
	tr := start(t, rt)
	mine := tag()
	heard(t, tr, rt, mine)
	name := mine + "-life"
	id := detached(t, rt, name)
	of := func(e *harness.Event) bool { return e.Container != nil && e.Container.ID == id }
	told := func(word string) {
		if r.silent[word] == "" {
			tr.UntilCount(1, "container."+word, of)
		}
	}
	told("created")
	told("started")
	for _, step := range []struct {
		word string
		do   func() error
	}{
		{"paused", func() error { return rt.Pause(t.Context(), id) }},
		{"unpaused", func() error { return rt.Unpause(t.Context(), id) }},
		{"died", func() error { return rt.Stop(t.Context(), id) }},
		{"removed", func() error { return rt.Remove(t.Context(), id) }},
	} {
		if err := step.do(); err != nil && !(errors.Is(err, errors.ErrUnsupported) && r.silent[step.word] != "") {
			t.Fatal(err)
		}
		told(step.word)
	}
	ledger := tr.Stop()
	var got, want []string
	last := time.Time{}
	for i := range tr.Events() {
		e := &tr.Events()[i]
		if e.Lifecycle == nil || !of(e) {
			continue
		}
		got = append(got, strings.TrimPrefix(e.Kind, "container."))
		r.isOf(t, e, id, name, env.BusyboxImage)
		if e.Lifecycle.Inferred || e.Time.Before(last) || e.Kind == "container.died" && (e.Lifecycle.ExitCode == nil) != (r.differs["exit_code"] != "") {
			t.Errorf("%s", e.Line)
		}
		last = e.Time
	}
	kept := map[string]int64{}
	for _, word := range []string{"created", "started", "paused", "unpaused", "died", "removed"} {
		if r.silent[word] == "" {
			want = append(want, word)
			kept["container."+word] = 1
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the life of the container is told as %q, want %q", got, want)
	}
	checkLedger(t, ledger, kept)
}
