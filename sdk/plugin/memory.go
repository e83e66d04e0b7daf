package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shedFirst = 3 * time.Second // after the start: what only the start needed goes
	shedAgain = 30 * time.Second
)

// shed gives memory back now and then, until ctx is done. A plugin spends its life
// waiting, on machines that have many of them. Of the program most is touched at
// the start alone: its pages, and those around them that the kernel maps with them,
// make up four fifths of an idle plugin's memory. What is needed again is
// mapped again from the page cache.
func (p *process) shed(ctx context.Context) {
	wait := time.NewTimer(shedFirst)
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
		wait.Reset(shedAgain)
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
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			continue
		}
		if from, to, is := strings.Cut(f[0], "-"); is && len(f) >= 5 {
			add()
			start, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			if err := errors.Join(err1, err2); err != nil {
				return nil, fmt.Errorf("read a region: %w", err)
			}
			now = region{uintptr(start), uintptr(end)}
			ok = len(f) >= 6 && strings.HasPrefix(f[5], "/") && (f[1] == "r--p" || f[1] == "r-xp")
			continue
		}
		switch f[0] {
		case "Private_Dirty:", "Shared_Dirty:", "Anonymous:", "Swap:", "Locked:":
			ok = ok && f[1] == "0"
		}
	}
	add()
	return clean, lines.Err()
}
