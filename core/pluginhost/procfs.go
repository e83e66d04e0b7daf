package pluginhost

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, 100 on every
// architecture that Go runs on.
const clockTick = 100

// procUsage is what /proc tells of a process.
type procUsage struct {
	start      uint64  // in clock ticks since boot
	cpuSeconds float64 // its own, user and system
	rss        uint64  // bytes
}

func readProc(pid int) (procUsage, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procUsage{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	// The name, in parentheses, may itself hold spaces and parentheses.
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 22 {
		return procUsage{}, fmt.Errorf("read process %d: its stat is too short", pid)
	}
	var n [4]uint64
	for i, f := range []int{11, 12, 19, 21} { // utime, stime, starttime, rss
		if n[i], err = strconv.ParseUint(fields[f], 10, 64); err != nil {
			return procUsage{}, fmt.Errorf("read process %d: %w", pid, err)
		}
	}
	return procUsage{
		start:      n[2],
		cpuSeconds: float64(n[0]+n[1]) / clockTick,
		rss:        n[3] * uint64(os.Getpagesize()),
	}, nil
}
