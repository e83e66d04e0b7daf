package plugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shedFirst = 3 * time.Second // after the start: what only the start needed goes
	shedAgain = 30 * time.Second
	shedPause = 3 // times as long as the one before, until it is shedAgain: a first list takes a while
)

// shed gives memory back now and then, until ctx is done. A plugin spends its life
// waiting, on machines that have many of them. Of the program most is touched at
// the start alone: its pages, and those around them that the kernel maps with them,
// make up four fifths of an idle plugin's memory. What is needed again is
// mapped again from the page cache.
func (p *process) shed(ctx context.Context) {
	pause := shedFirst
	wait := time.NewTimer(pause)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		debug.FreeOSMemory()
		if err := unmapProgram(); err != nil {
			p.log.Debug("give back the program's pages", "error", err)
			return // it won't be otherwise the next time
		}
		pause = min(shedPause*pause, shedAgain)
		wait.Reset(pause)
	}
}

// unmapProgram takes the pages of the program and its libraries that nobody has
// written to out of this process; they stay in the page cache.
func unmapProgram() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	regions, err := cleanRegions(f)
	for _, r := range regions {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED); errno != 0 {
			err = errors.Join(err, fmt.Errorf("madvise: %w", errno))
		}
	}
	return err
}

// region is a part of the address space.
type region struct{ start, end uintptr }

// cleanRegions reads from the text of /proc/PID/smaps which regions only show files,
// as they are: private, not writable, and without a page that was written to before
// they became so, as those are that the dynamic linker relocates.
func cleanRegions(smaps io.Reader) (clean []region, err error) {
	var now region
	ok := false
	add := func() {
		if ok {
			clean = append(clean, now)
		}
	}
	lines := bufio.NewScanner(smaps)
	lines.Buffer(make([]byte, 0, 1<<10), bufio.MaxScanTokenSize)
	for lines.Scan() {
		// There are many lines, of which most are nothing to us: no garbage is made of them.
		line := lines.Bytes()
		name, rest, _ := bytes.Cut(line, []byte(" "))
		if from, to, is := bytes.Cut(name, []byte("-")); is {
			add()
			start, err1 := strconv.ParseUint(string(from), 16, 64)
			end, err2 := strconv.ParseUint(string(to), 16, 64)
			if err := errors.Join(err1, err2); err != nil {
				return nil, fmt.Errorf("read a region: %w", err)
			}
			now = region{uintptr(start), uintptr(end)}
			clean := bytes.HasPrefix(rest, []byte("r--p ")) || bytes.HasPrefix(rest, []byte("r-xp "))
			ok = clean && bytes.Contains(rest, []byte(" /"))
			continue
		}
		switch string(name) {
		case "Private_Dirty:", "Shared_Dirty:", "Anonymous:", "Swap:", "Locked:":
			ok = ok && bytes.Equal(bytes.TrimSpace(rest), []byte("0 kB"))
		}
	}
	add()
	return clean, lines.Err()
}
