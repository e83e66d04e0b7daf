package pluginhost

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestWhatAProcessDidIsToldFromItsThreads(t *testing.T) {
	at := time.Now()
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		before, after map[int]thread
		want          verdict
	}{
		"all asleep":                       {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'S', 5 * ms, 0}}, asleep},
		"woke for a moment":                {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'S', 7 * ms, 1 * ms}}, asleep},
		"worked":                           {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'S', 105 * ms, 0}}, busy},
		"waited for a CPU":                 {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'S', 6 * ms, 99 * ms}}, busy},
		"waited a little in each thread":   {map[int]thread{1: {}, 2: {}}, map[int]thread{1: {'S', 0, 30 * ms}, 2: {'S', 0, 30 * ms}}, busy},
		"waits for a CPU still":            {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'R', 5 * ms, 0}}, busy},
		"one of its threads waits":         {map[int]thread{1: {}, 2: {}}, map[int]thread{1: {'S', 0, 0}, 2: {'R', 0, 0}}, busy},
		"waits for the kernel":             {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'D', 5 * ms, 0}}, busy},
		"a new thread works":               {map[int]thread{1: {}}, map[int]thread{1: {'S', 0, 0}, 2: {'S', 80 * ms, 0}}, busy},
		"stopped":                          {map[int]thread{1: {'T', 5 * ms, 0}}, map[int]thread{1: {'T', 5 * ms, 0}}, stopped},
		"stopped, its first thread ended":  {map[int]thread{1: {'Z', 0, 0}, 2: {'T', ms, 0}}, map[int]thread{1: {'Z', 0, 0}, 2: {'T', ms, 0}}, stopped},
		"stopped only just now":            {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'T', 8 * ms, 0}}, asleep},
		"stopped after having worked":      {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'T', 95 * ms, 0}}, busy},
		"held by a debugger for a moment":  {map[int]thread{1: {'S', 5 * ms, 0}}, map[int]thread{1: {'t', 5 * ms, 0}}, asleep},
		"a clock of ticks that went ahead": {map[int]thread{1: {'S', 0, 0}}, map[int]thread{1: {'S', 60 * ms, 0}}, busy},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := look{at, c.before}, look{at.Add(600 * ms), c.after}
			if got, words := after.since(before); got != c.want || words == "" {
				t.Errorf("it is %v (%s), want %v", got, words, c.want)
			}
		})
	}
}

func TestLooksAtRealProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		signal syscall.Signal
		want   verdict
	}{
		"asleep":  {"exec sleep 1000", 0, asleep},
		"stopped": {"while :; do :; done", syscall.SIGSTOP, stopped},
		"busy":    {"while :; do :; done", 0, busy},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", c.script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // killed
			}()
			if c.signal != 0 {
				if err := cmd.Process.Signal(c.signal); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, name, func() bool {
				before, err := lookAt(cmd.Process.Pid)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
				after, err := lookAt(cmd.Process.Pid)
				if err != nil {
					t.Fatal(err)
				}
				got, words := after.since(before)
				t.Logf("%v: %s", got, words)
				return got == c.want
			})
		})
	}
	if _, err := lookAt(1 << 30); err == nil {
		t.Error("there is no such process, and no error")
	}
}
