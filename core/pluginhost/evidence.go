package pluginhost

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// verdict is why a process does not answer, as far as /proc tells.
type verdict int

const (
	asleep  verdict = iota // it had the CPU when it wanted it, and mostly did not
	stopped                // by a signal: no thread of it can run
	busy                   // it ran, or waited for a CPU or for the kernel
)

// thread is what /proc tells of one thread.
type thread struct {
	state   byte          // R, S, D, T, t, Z, X, I
	ran     time.Duration // on a CPU, since it began
	delayed time.Duration // ready to run and without a CPU; 0 where the kernel does not count it
}

// look is a look at a process's threads at one moment.
type look struct {
	at      time.Time
	threads map[int]thread
}

// lookAt reads the threads of a process. One that ends meanwhile is left out.
func lookAt(pid int) (look, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
	tids, err := os.ReadDir(dir)
	if err != nil {
		return look{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	l := look{at: time.Now(), threads: make(map[int]thread, len(tids))}
	for _, e := range tids {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if t, err := readThread(filepath.Join(dir, e.Name())); err == nil {
			l.threads[tid] = t
		}
	}
	if len(l.threads) == 0 {
		return look{}, fmt.Errorf("look at process %d: it has no threads any more", pid)
	}
	return l, nil
}

func readThread(dir string) (t thread, err error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return t, err
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return t, fmt.Errorf("read %s/stat: too few fields", dir)
	}
	t.state = f[0][0]
	// Times in nanoseconds, where the kernel keeps them; else in ticks of 10 ms.
	if sched, err := os.ReadFile(filepath.Join(dir, "schedstat")); err == nil {
		if n := numbers(strings.Fields(string(sched))); len(n) >= 2 && n[0] > 0 {
			t.ran, t.delayed = time.Duration(n[0]), time.Duration(n[1])
			return t, nil
		}
	}
	n := numbers(f[11:13]) // utime, stime
	if len(n) < 2 {
		return t, fmt.Errorf("read %s/stat: its times are no numbers", dir)
	}
	t.ran = time.Duration(n[0]+n[1]) * (time.Second / clockTick)
	return t, nil
}

// numbers are those fields that are numbers.
func numbers(fields []string) []uint64 {
	out := make([]uint64, 0, len(fields))
	for _, f := range fields {
		if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// since judges what a process did between two looks, and says it in words. A
// process that was to answer within that time needs a few milliseconds of CPU for
// it: one that spent a tenth of the time on a CPU or in the queue for one is given
// more of it.
func (l look) since(before look) (verdict, string) {
	var ran, delayed time.Duration
	halted, ready := true, false
	for tid, t := range l.threads {
		b := before.threads[tid] // zeros for a new one
		ran += max(0, t.ran-b.ran)
		delayed += max(0, t.delayed-b.delayed)
		switch t.state {
		case 'T', 'Z', 'X':
		case 'R', 'D': // its wait is counted only once it is over
			ready, halted = true, false
		default:
			halted = false
		}
	}
	past := l.at.Sub(before.at)
	switch {
	case halted && ran == 0:
		return stopped, "a signal has stopped it"
	case ready || ran+delayed >= past/10:
		return busy, fmt.Sprintf("in the last %s it ran for %s and waited %s for a CPU",
			past.Round(time.Millisecond), ran.Round(time.Millisecond), delayed.Round(time.Millisecond))
	}
	return asleep, "it sleeps"
}
