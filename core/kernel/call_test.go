package kernel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

func TestOnlyAKernelThatSaysSoRunsProgramsWithoutABreak(t *testing.T) {
	for modes, want := range map[string]bool{
		"none (voluntary) full\n":      false,
		"(none) voluntary full\n":      false,
		"none voluntary (full)\n":      true,
		"none voluntary full (lazy)\n": true,
		"none voluntary full\n":        true,
		"":                             true,
	} {
		if got := preempts(modes); got != want {
			t.Errorf("%q: preempts is %v, want %v", modes, got, want)
		}
	}
}

func TestACallWhoseFunctionCanNotBeHadIsToldByItsTracepoint(t *testing.T) {
	k, r, end := reading(t, "process")
	p, err := k.loader.load("file")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.programs, func(one program) bool { return ofTracepoint(one.name) == "file_openat" })
	// Loaded for the tracepoint, or not: it can't be attached to this.
	p.programs[i].name, p.programs[i].section = "file_openat"+ofFunction, "tracepoint/none/such"
	k.loader.attach(p)
	k.mu.Lock()
	k.probes = append(k.probes, p)
	k.mu.Unlock()
	if p.State() != "attached" || !slices.Contains(p.Programs, "file_openat") {
		t.Errorf("%s: %v, %s", p.State(), p.Programs, p.Reason())
	}
	path := filepath.Join(t.TempDir(), "opened")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), "cat", path).Run(); err != nil {
		t.Fatal(err)
	}
	end()
	n := 0
	for _, one := range r.of(event.FileOpen) {
		if bytes.HasSuffix(one, []byte(path)) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("one open was told %d times", n)
	}
}
