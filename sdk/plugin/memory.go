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
	shedFirst = 3 * time.Second  // after the start: what only the start needed goes
	shedLook  = 10 * time.Second // between looks whether there is anything to give back
	shedWorth = 4 << 20          // bytes, of which half are the pages that are always needed again
)

const (
	// chunk is how much of the program the kernel maps at a time. It would map 64 KiB
	// around each page that is touched, of which most is never used: an idle plugin has
	// 3 MiB of its program mapped instead of 6.
	chunk = 16 << 10
	// mostChunks bounds the mappings of a program, each 200 bytes of the kernel's.
	mostChunks = 2048
)

// shed gives memory back when some has come together, until ctx is done. A plugin spends
// its life waiting, on machines that have many of them. Of the program most is touched at
// the start alone: its pages, and those around them that the kernel maps with them,
// make up four fifths of an idle plugin's memory. What is needed again is
// mapped again from the page cache.
func (p *process) shed(ctx context.Context) {
	wait := time.NewTimer(shedFirst)
	defer wait.Stop()
	var program []region // nil: not looked for yet
	var left uint64      // resident when memory was given back last
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		wait.Reset(shedLook)
		resident, err := residentBytes()
		if err == nil && resident < left+shedWorth {
			continue
		}
		if program == nil {
			var e error
			if program, e = ownProgram(); e == nil {
				e = inChunks(program)
			}
			err = errors.Join(err, e)
		}
		debug.FreeOSMemory()
		if err = errors.Join(err, unmap(program)); err == nil {
			left, err = residentBytes()
		}
		if err != nil {
			p.log.Debug("give back the program's pages", "error", err)
			return // it won't be otherwise the next time
		}
	}
}

// residentBytes is how much of this process is in memory.
func residentBytes() (uint64, error) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident uint64
	if _, err := fmt.Sscan(string(raw), &size, &resident); err != nil {
		return 0, fmt.Errorf("read /proc/self/statm: %w", err)
	}
	return resident * uint64(os.Getpagesize()), nil
}

// ownProgram finds the pages of the program and its libraries that nobody has written to.
func ownProgram() ([]region, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return cleanRegions(f)
}

// inChunks has the kernel map no more than a chunk of a region at a time: it never
// maps beyond one mapping, and neighbours of which only every other one is said to be
// read at random stay mappings of their own. A program that is too large for that is
// left as it is.
func inChunks(regions []region) (err error) {
	var size uintptr
	for _, r := range regions {
		size += r.end - r.start
	}
	if size > mostChunks*chunk {
		return nil
	}
	for _, r := range regions {
		for at := r.start; at < r.end; at += 2 * chunk {
			err = errors.Join(err, region{at, min(at+chunk, r.end)}.advise(unix.MADV_RANDOM))
		}
	}
	return err
}

// unmap takes regions out of this process; they stay in the page cache.
func unmap(regions []region) (err error) {
	for _, r := range regions {
		err = errors.Join(err, r.advise(unix.MADV_DONTNEED))
	}
	return err
}

// region is a part of the address space.
type region struct{ start, end uintptr }

func (r region) advise(advice uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, advice); errno != 0 {
		return fmt.Errorf("madvise: %w", errno)
	}
	return nil
}

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
		case "Anonymous:", "Swap:", "Locked:": // and not _Dirty: the file itself may just have been written
			ok = ok && bytes.Equal(bytes.TrimSpace(rest), []byte("0 kB"))
		}
	}
	add()
	return clean, lines.Err()
}
