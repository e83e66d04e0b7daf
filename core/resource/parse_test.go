package resource

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestOddLinesAreReadForWhatIsInThem(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parse func([]byte, *Usage)
		text  string
		want  string
	}{
		{"a number", one(Pids), "7\n", "Pids 7"},
		{"a number without a line end", one(Pids), "7", "Pids 7"},
		{"no limit", one(PidsLimit), "max\n", ""},
		{"nothing", one(Pids), "", ""},
		{"a sign", one(Pids), "-1\n", ""},
		{"more than there is room for", one(Pids), "18446744073709551616\n", ""},
		{"the most that there is room for", one(Pids), "18446744073709551615\n", "Pids 18446744073709551615"},
		{"words", one(Pids), "7 8\n", ""},
		{"no quota", oneOf(Quota, 1000), "-1\n", ""},
		{"a quota", oneOf(Quota, 1000), "25000\n", "Quota 25000000"},
		{"no memory limit on v1", memoryLimit1, "9223372036854771712\n", ""},
		{"a memory limit on v1", memoryLimit1, "4096\n", "MemoryLimit 4096"},
		{"ticks", cpuTicks, "user 3\nsystem 1\nother 9\n", "CPUUser 30000000 CPUSystem 10000000"},
		{"ticks cut off", cpuTicks, "user 3\nsyst", "CPUUser 30000000"},
		{"no throttling", throttling1, "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n", "Periods 0 ThrottledPeriods 0 ThrottledTime 0"},
		{"throttling on v1", throttling1, "nr_periods 9\nnr_throttled 8\nthrottled_time 7\nnr_bursts 6\nburst_time 5\n", "Periods 9 ThrottledPeriods 8 ThrottledTime 7"},
		{"time on v2 without the controller", cpuStat2, "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnice_usec 0\n", "CPU 3000 CPUUser 2000 CPUSystem 1000"},
		{"no quota on v2", quota2, "max 100000\n", "Period 100000000"},
		{"a quota on v2", quota2, "50000 100000\n", "Quota 50000000 Period 100000000"},
		{"a quota without a period", quota2, "50000\n", "Quota 50000000"},
		{"the least weight", weight2, "1\n", "Shares 2"},
		{"the usual weight", weight2, "100\n", "Shares 2597"},
		{"the most weight", weight2, "10000\n", "Shares 262144"},
		{"a weight that there is not", weight2, "10001\n", ""},
		{"an idle weight", weight2, "0\n", ""},
		{"kills", oomKills, "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n", "OOMKills 2"},
		{"kills on v1", oomKills, "oom_kill_disable 0\nunder_oom 1\noom_kill 4\n", "OOMKills 4"},
		{"no kills in the file of an old kernel", oomKills, "oom_kill_disable 0\nunder_oom 0\n", ""},
		{"devices", devices(ReadBytes, WrittenBytes), "8:0 Read 1\n8:0 Write 2\n8:0 Sync 4\n8:0 Async 8\n8:0 Total 16\n253:1 Read 32\n253:1 Write 64\nTotal 128\n", "ReadBytes 33 WrittenBytes 66"},
		{"no device has been counted", devices(ReadBytes, WrittenBytes), "Total 0\n", ""},
		{"io", ioStat2, "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n", "ReadBytes 1 WrittenBytes 2 Reads 3 Writes 4"},
		{"io of devices with more figures, and with none", ioStat2, "8:16 \n8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7 cost.wait=a\n", "ReadBytes 1 WrittenBytes 2 Reads 3 Writes 4"},
		{"no io", ioStat2, "", "ReadBytes 0 WrittenBytes 0 Reads 0 Writes 0"},
		{"stalls", pressure(CPUSome10, CPUFull10, CPUSome, CPUFull), "some avg10=1.50 avg60=0.00 avg300=0.00 total=3\nfull avg10=100.00 avg60=0.00 avg300=0.00 total=2\n", "CPUSome10 150 CPUFull10 10000 CPUSome 3000 CPUFull 2000"},
		{"stalls without a full line", pressure(CPUSome10, CPUFull10, CPUSome, CPUFull), "some avg10=0.07 avg60=0.00 avg300=0.00 total=3\n", "CPUSome10 7 CPUSome 3000"},
		{"stalls cut off", pressure(CPUSome10, CPUFull10, CPUSome, CPUFull), "some avg10=1.50 avg60", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var u Usage
			tt.parse([]byte(tt.text), &u)
			_, got, _ := strings.Cut(strings.TrimSpace(show(&u)), "\n")
			if got = strings.ReplaceAll(got, "\n", " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheWorkingSetIsNeverLessThanNothing(t *testing.T) {
	for _, tt := range []struct{ used, inactive, want uint64 }{{10, 3, 7}, {10, 10, 0}, {10, 11, 0}} {
		for name, parse := range map[string]func([]byte, *Usage){"total_": memoryStat1, "": memoryStat2} {
			var u Usage
			u.set(Memory, tt.used)
			parse(fmt.Appendf(nil, "cache 5\n%sinactive_anon 9\n%sinactive_file %d\n%sactive_file 8\n", name, name, tt.inactive, name), &u)
			if got, ok := u.Get(WorkingSet); !ok || got != tt.want {
				t.Errorf("%d of %d inactive (%q): %d, %v", tt.inactive, tt.used, name, got, ok)
			}
			var unknown Usage
			parse(fmt.Appendf(nil, "%sinactive_file 1\n", name), &unknown)
			if _, ok := unknown.Get(WorkingSet); ok {
				t.Error("there is a working set of unknown memory")
			}
		}
	}
}

// Whatever a file says, it is read without harm, and only the figures of the file's own
// come of it.
func FuzzFiles(f *testing.F) {
	for _, text := range []string{
		"", "\n", "7\n", "max\n", "max 100000\n", "18446744073709551615\n", "user 1\nsystem 2\n",
		"usage_usec 1\nnr_periods 2\n", "8:0 Read 1\n8:0 Write 18446744073709551615\nTotal 3\n", "8:0 rbytes=1 wbytes=x rios=\n",
		"some avg10=1.50 avg60=0.00 avg300=0.00 total=3\nfull avg10=..1 total=-\n", "oom_kill 1\n", "total_inactive_file 9\ninactive_file 8\n",
		strings.Repeat(" ", 100), strings.Repeat("=", 100), "\x00\xff\n\n\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, files := range [][]file{files1, files2} {
			for _, file := range files {
				var u Usage
				u.set(Memory, 1<<40)
				file.parse(text, &u)
				for field := range fields {
					v, ok := u.Get(field)
					switch {
					case ok && field != Memory && !file.owns(field):
						t.Errorf("%s says %s", file.name, fieldNames[field])
					case ok && field == WorkingSet && v > 1<<40:
						t.Errorf("%s: a working set of %d", file.name, v)
					}
				}
				if p := u.Proto(); p.GetCpuSeconds() < 0 || math.IsNaN(p.GetCpuSeconds()) {
					t.Error(p)
				}
			}
		}
	})
}

// owns tells whether a file is one that may say a figure.
func (f file) owns(field Field) bool {
	switch f.controller {
	case cpuacct, cpu:
		return field <= Shares
	case memory:
		return field >= Memory && field <= OOMKills
	case blkio:
		return field >= ReadBytes && field <= Writes
	case pids:
		return field == Pids || field == PidsLimit
	}
	return field >= CPUSome10
}

func FuzzWhereAProcessIs(f *testing.F) {
	f.Add("8:pids:/docker/"+fixtureID+"\n4:memory:/docker/"+fixtureID+"/init\n0::/docker/"+fixtureID+"\n", "/docker/"+fixtureID, fixtureID)
	f.Add("4:cpu,cpuacct:/../x\n", "/x", "x")
	f.Add(":::\n::/\n1:memory:\n1:memory:relative\n", "", "")
	f.Fuzz(func(t *testing.T, status, main, id string) {
		said := pathsOf(status)
		for c, p := range said {
			if p == "" {
				continue
			}
			if p[0] != '/' || strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") {
				t.Errorf("%s is at %q", names1[c], p)
			}
			if o := own(p, main, id); o != "" && (o == "/" || !strings.HasPrefix(p, o)) {
				t.Errorf("of %q its own is %q", p, o)
			}
		}
	})
}

func FuzzMounts(f *testing.F) {
	f.Add("31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n")
	f.Add("31 30 0:28 / /a\\040b rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n - cgroup\n")
	f.Fuzz(func(t *testing.T, mountinfo string) {
		for c, m := range mounts(mountinfo) {
			if (m.dir == "") != (m.root == "") {
				t.Errorf("%s is at %q of %q", names1[c], m.dir, m.root)
			}
		}
		if m := mounts(mountinfo)[psi]; m.dir != "" {
			t.Error("stalls are on v1")
		}
	})
}
