package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
)

const (
	costRounds = 3
	costCalls  = 40_000
)

// cost prints what calls take untraced, told by their tracepoints and by their functions,
// of which next to none is kept: "open tracepoints 5800", in nanoseconds, the least of some
// rounds. On a machine whose clock counts instructions that is how many there are. openload
// is the program of that name.
func cost(out io.Writer, openload string) error {
	hooks := []string{"untraced", "tracepoints", "functions"}
	least := map[string]int64{}
	for range costRounds {
		for _, hook := range hooks {
			err := costWith(openload, hook, func(call string, ns int64) {
				if at := call + " " + hook; least[at] == 0 || ns < least[at] {
					least[at] = ns
				}
			})
			if err != nil {
				return fmt.Errorf("%s: %w", hook, err)
			}
		}
	}
	for _, at := range slices.Sorted(maps.Keys(least)) {
		fmt.Fprintln(out, at, least[at])
	}
	return nil
}

func costWith(openload, hook string, took func(call string, ns int64)) (err error) {
	if hook != "untraced" {
		k, err := kernel.Load(kernel.Options{Probes: []string{"file"}, RingBytes: 1 << 20, Tracepoints: hook == "tracepoints"})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		read := make(chan error, 1)
		go func() { read <- k.Read(ctx, new(sink)) }()
		defer func() {
			cancel()
			err = errors.Join(err, <-read, k.Close())
		}()
		for _, p := range k.Probes() {
			if p.Name == "file" && (p.State() != "attached" || strings.HasSuffix(p.Programs[0], "_fexit") != (hook == "functions")) {
				return fmt.Errorf("the probe is %s: %s %s", p.State(), strings.Join(p.Programs, " "), p.Reason())
			}
		}
		k.SetBudget(kernel.Budget{EventsPerSecond: 10_000})
		var p kernel.Policy
		for i := range p.Pooled {
			p.Pooled[i] = kernel.Rule{Probability: 1e-6, Expected: 1_000_000}
		}
		if _, err := k.SetPolicy(p); err != nil {
			return err
		}
	}
	path := filepath.Join(os.TempDir(), "opened")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	for _, load := range []struct {
		name string
		args []string
	}{
		{"open", []string{path}},
		{"failing-open", []string{"-f", "100", path}},
		{"empty-open", []string{""}},
	} {
		text, err := exec.Command(openload, append([]string{"-n", fmt.Sprint(costCalls)}, load.args...)...).Output()
		if err != nil {
			return fmt.Errorf("openload: %w", err)
		}
		var did struct{ Seconds float64 }
		if err := json.Unmarshal(text, &did); err != nil {
			return fmt.Errorf("openload printed %q: %w", text, err)
		}
		took(load.name, int64(did.Seconds*1e9)/costCalls)
	}
	began := time.Now()
	for range costCalls {
		unix.Getppid()
	}
	took("other-call", time.Since(began).Nanoseconds()/costCalls)
	return nil
}
