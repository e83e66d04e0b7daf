package plugin

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestOnlyRegionsThatShowFilesAsTheyAreAreClean(t *testing.T) {
	const smaps = `00400000-00a00000 r-xp 00000000 fe:00 12 /plugin
Rss:                5000 kB
Private_Clean:      5000 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  0 kB
00a00000-00b00000 r--p 00600000 fe:00 12 /relocated
Private_Dirty:         4 kB
Anonymous:             4 kB
00b00000-00c00000 r--p 00600000 fe:00 12 /swapped
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  4 kB
00c00000-00d00000 rw-p 00700000 fe:00 12 /plugin
Private_Dirty:         0 kB
00d00000-00e00000 r--s 00000000 fe:00 13 /shared
Private_Dirty:         0 kB
00e00000-00f00000 r--p 00000000 00:00 0
Private_Dirty:         0 kB
00f00000-00f10000 r--p 00000000 00:00 0 [vvar]
01000000-01100000 r--p 00000000 fe:00 14 /a name (deleted)
Private_Dirty:         0 kB
`
	got, err := cleanRegions(strings.NewReader(smaps))
	want := []region{{0x400000, 0xa00000}, {0x1000000, 0x1100000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("clean are %x, %v, want %x", got, err, want)
	}
	if _, err := cleanRegions(strings.NewReader("00-zz r--p 0 0 0 /x\n")); err == nil {
		t.Error("a region without an end is taken")
	}
}

func TestTheProgramRunsOnWithoutItsPages(t *testing.T) {
	before := rss(t)
	if err := unmapProgram(); err != nil {
		t.Fatal(err)
	}
	if after := rss(t); after >= before {
		t.Errorf("files took %s before and %s after", before, after)
	}
}

// rss is the memory that files take, right aligned so that it can be compared.
func rss(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n = strings.TrimSpace(n)
			return strings.Repeat(" ", max(0, 20-len(n))) + n
		}
	}
	t.Fatal("the status tells no RssFile")
	return ""
}
