package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ringMap says which ring a CPU writes into.
type ringMap struct {
	count int
	of    [1024]uint8
}

// ringOfCPU gives each NUMA node a ring of its own, so that a record is written
// and its ring's lock is taken within the node; or spreads the CPUs over want
// rings, when want is not 0. A CPU whose ring is nearly full writes into another.
func ringOfCPU(cpus, want int) ringMap {
	m := ringMap{count: 1}
	if want > 0 {
		m.count = min(want, maxRings)
		for cpu := range min(cpus, len(m.of)) {
			m.of[cpu] = uint8(cpu % m.count)
		}
		return m
	}
	nodes, err := filepath.Glob("/sys/devices/system/node/node[0-9]*/cpulist")
	if err != nil || len(nodes) < 2 {
		return m
	}
	m.count = min(len(nodes), maxRings)
	for i, file := range nodes {
		list, err := os.ReadFile(file)
		if err != nil {
			continue // its CPUs share ring 0
		}
		of, err := parseCPUList(strings.TrimSpace(string(list)))
		if err != nil {
			continue
		}
		for _, cpu := range of {
			if cpu < len(m.of) {
				m.of[cpu] = uint8(i % m.count)
			}
		}
	}
	return m
}

const maxRings = 64

// parseCPUList reads the kernel's form of a set of CPUs: "0-3,8,10-11".
func parseCPUList(s string) ([]int, error) {
	var out []int
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", s, err)
		}
		b := a
		if ranged {
			if b, err = strconv.Atoi(last); err != nil {
				return nil, fmt.Errorf("CPU list %q: %w", s, err)
			}
		}
		if a < 0 || b < a || b > 1<<16 {
			return nil, fmt.Errorf("CPU list %q: bad range %q", s, part)
		}
		for cpu := a; cpu <= b; cpu++ {
			out = append(out, cpu)
		}
	}
	return out, nil
}
