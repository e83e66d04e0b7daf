package resource

import "bytes"

// The files of control groups are text, from the kernel and so well-formed; but their
// lines and words differ from one version to the next. What is not understood is passed
// over, and a figure that is not found stays absent. Nothing here allocates.

// number reads a whole number of nothing but digits.
func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// decimal reads a number with up to so many digits behind the point, as a whole number
// of its last place.
func decimal(b []byte, places int) (n uint64, ok bool) {
	whole, fraction, _ := bytes.Cut(b, []byte{'.'})
	if n, ok = number(whole); !ok || n > 1<<32 || len(fraction) > places {
		return 0, false
	}
	for i := range places {
		n *= 10
		if i < len(fraction) {
			if fraction[i] < '0' || fraction[i] > '9' {
				return 0, false
			}
			n += uint64(fraction[i] - '0')
		}
	}
	return n, true
}

// line takes the first line off a text.
func line(b []byte) (first, rest []byte) {
	first, rest, _ = bytes.Cut(b, []byte{'\n'})
	return first, rest
}

// word takes the first word off a line.
func word(b []byte) (first, rest []byte) {
	b = bytes.TrimLeft(b, " ")
	first, rest, _ = bytes.Cut(b, []byte{' '})
	return first, rest
}

// pair reads a line of a name and a number.
func pair(b []byte) (name []byte, n uint64, ok bool) {
	name, rest := word(b)
	value, _ := word(rest)
	n, ok = number(value)
	return name, n, ok
}

// one reads a file that is one number into a field. Anything else in it, such as "max"
// or -1, is no number: the field is absent then.
func one(f Field) func([]byte, *Usage) {
	return func(b []byte, u *Usage) {
		first, _ := line(b)
		if n, ok := number(bytes.TrimSpace(first)); ok {
			u.set(f, n)
		} else {
			u.drop(f)
		}
	}
}

// oneOf is one in another unit.
func oneOf(f Field, unit uint64) func([]byte, *Usage) {
	read := one(f)
	return func(b []byte, u *Usage) {
		read(b, u)
		u.v[f] *= unit
	}
}

// noLimit1 is from where on a limit of cgroup v1's memory controller is none: it writes
// the largest number of whole pages.
const noLimit1 = 1 << 62

func memoryLimit1(b []byte, u *Usage) {
	one(MemoryLimit)(b, u)
	if u.v[MemoryLimit] >= noLimit1 {
		u.drop(MemoryLimit)
	}
}

// cpuTicks reads cpuacct.stat, which is in hundredths of a second on every machine.
func cpuTicks(b []byte, u *Usage) {
	const tick = 10_000_000
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		switch name, n, ok := pair(l); {
		case !ok:
		case string(name) == "user":
			u.set(CPUUser, n*tick)
		case string(name) == "system":
			u.set(CPUSystem, n*tick)
		}
	}
}

// throttling1 reads cpu.stat of cgroup v1.
func throttling1(b []byte, u *Usage) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		switch name, n, ok := pair(l); {
		case !ok:
		case string(name) == "nr_periods":
			u.set(Periods, n)
		case string(name) == "nr_throttled":
			u.set(ThrottledPeriods, n)
		case string(name) == "throttled_time":
			u.set(ThrottledTime, n)
		}
	}
}

// cpuStat2 reads cpu.stat of cgroup v2, which is in microseconds.
func cpuStat2(b []byte, u *Usage) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		name, n, ok := pair(l)
		if !ok {
			continue
		}
		switch string(name) {
		case "usage_usec":
			u.set(CPU, n*1000)
		case "user_usec":
			u.set(CPUUser, n*1000)
		case "system_usec":
			u.set(CPUSystem, n*1000)
		case "nr_periods":
			u.set(Periods, n)
		case "nr_throttled":
			u.set(ThrottledPeriods, n)
		case "throttled_usec":
			u.set(ThrottledTime, n*1000)
		}
	}
}

// quota2 reads cpu.max: the quota, or "max", and the period.
func quota2(b []byte, u *Usage) {
	l, _ := line(b)
	quota, rest := word(l)
	period, _ := word(rest)
	u.clear(Quota, Period)
	if n, ok := number(quota); ok {
		u.set(Quota, n*1000)
	}
	if n, ok := number(period); ok {
		u.set(Period, n*1000)
	}
}

// weight2 reads cpu.weight, 1 to 10,000, as the shares of cgroup v1, 2 to 262,144, that
// it stands for on a straight line.
func weight2(b []byte, u *Usage) {
	one(Shares)(b, u)
	if w := u.v[Shares]; w >= 1 && w <= 10_000 {
		u.v[Shares] = 2 + (w-1)*262_142/9_999
	} else {
		u.drop(Shares)
	}
}

// memoryStat1 reads memory.stat of cgroup v1: those figures that have the groups below
// in them. The working set is what was charged, just before, without inactive pages of
// files.
func memoryStat1(b []byte, u *Usage) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if len(l) < 10 || l[0] != 't' {
			continue // most lines
		}
		switch name, n, ok := pair(l); {
		case !ok:
		case string(name) == "total_inactive_file":
			workingSet(n, u)
		case string(name) == "total_swap":
			u.set(Swap, n)
		}
	}
}

// memoryStat2 reads memory.stat of cgroup v2.
func memoryStat2(b []byte, u *Usage) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if len(l) < 13 || l[0] != 'i' {
			continue
		}
		if name, n, ok := pair(l); ok && string(name) == "inactive_file" {
			workingSet(n, u)
			return
		}
	}
}

func workingSet(inactive uint64, u *Usage) {
	if used, ok := u.Get(Memory); ok {
		u.set(WorkingSet, used-min(used, inactive))
	}
}

// oomKills reads memory.events of cgroup v2, and memory.oom_control of v1, which calls
// them the same.
func oomKills(b []byte, u *Usage) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if name, n, ok := pair(l); ok && string(name) == "oom_kill" {
			u.set(OOMKills, n)
			return
		}
	}
}

// devices reads a file of cgroup v1 with a number for each device and kind of operation.
// The devices are added up. Where there is no device nothing is known: from 6.10 on,
// kernels count only on devices for which some group has a limit.
func devices(read, write Field) func([]byte, *Usage) {
	return func(b []byte, u *Usage) {
		var reads, writes uint64
		any := false
		for len(b) > 0 {
			var l []byte
			l, b = line(b)
			device, rest := word(l)
			if bytes.IndexByte(device, ':') < 0 {
				continue // the total
			}
			any = true
			switch kind, n, ok := pair(rest); {
			case !ok:
			case string(kind) == "Read":
				reads += n
			case string(kind) == "Write":
				writes += n
			}
		}
		if !any {
			u.clear(read, write)
			return
		}
		u.set(read, reads)
		u.set(write, writes)
	}
}

// ioStat2 reads io.stat: a line for each device. They are added up.
func ioStat2(b []byte, u *Usage) {
	var sum [4]uint64
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		_, l = word(l)
		for len(l) > 0 {
			var w []byte
			w, l = word(l)
			name, value, _ := bytes.Cut(w, []byte{'='})
			n, ok := number(value)
			if !ok {
				continue
			}
			switch string(name) {
			case "rbytes":
				sum[0] += n
			case "wbytes":
				sum[1] += n
			case "rios":
				sum[2] += n
			case "wios":
				sum[3] += n
			}
		}
	}
	for i, f := range [...]Field{ReadBytes, WrittenBytes, Reads, Writes} {
		u.set(f, sum[i])
	}
}

// pressure reads a *.pressure file. Kernels before 5.13 have no full line for the CPU.
func pressure(some10, full10, some, full Field) func([]byte, *Usage) {
	return func(b []byte, u *Usage) {
		u.clear(some10, full10, some, full)
		for len(b) > 0 {
			var l []byte
			l, b = line(b)
			kind, l := word(l)
			average, total := some10, some
			if string(kind) == "full" {
				average, total = full10, full
			} else if string(kind) != "some" {
				continue
			}
			for len(l) > 0 {
				var w []byte
				w, l = word(l)
				name, value, _ := bytes.Cut(w, []byte{'='})
				switch string(name) {
				case "avg10":
					if n, ok := decimal(value, 2); ok {
						u.set(average, n)
					}
				case "total":
					if n, ok := number(value); ok {
						u.set(total, n*1000)
					}
				}
			}
		}
		if _, ok := u.Get(some); !ok {
			u.clear(some10, full10, full)
		}
	}
}
