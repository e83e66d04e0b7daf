package plugin

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

func TestTheProgramRunsOnWithoutItsPagesAndMapsFewerAgain(t *testing.T) {
	program, err := ownProgram()
	if err != nil {
		t.Fatal(err)
	}
	before := rss(t)
	again := func() int {
		t.Helper()
		if err := unmap(program); err != nil {
			t.Fatal(err)
		}
		if after := rss(t); after >= before {
			t.Errorf("files took %d KiB before and %d after", before, after)
		}
		// What is done here is done alike each time.
		if _, err := ownProgram(); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		return rss(t)
	}
	whole := again()
	t.Cleanup(func() { // else there would be nothing to divide the next time
		for _, r := range program {
			if err := r.advise(unix.MADV_NORMAL); err != nil {
				t.Error(err)
			}
		}
	})
	if err := inChunks(program); err != nil {
		t.Fatal(err)
	}
	if now, err := ownProgram(); err != nil || len(now) < 4*len(program) {
		t.Errorf("%d regions are %d mappings: %v", len(program), len(now), err)
	}
	chunked := again()
	if chunked >= whole {
		t.Errorf("files take %d KiB in chunks and %d without", chunked, whole)
	}
	tooLarge := []region{{1 << 46, 1<<46 + 2*mostChunks*chunk}} // and nothing is there
	if err := inChunks(tooLarge); err != nil {
		t.Errorf("a program that is too large: %v", err)
	}
}

// rss is how many KiB of files are mapped, exactly: the counts of /proc/self/status lag.
func rss(t *testing.T) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "Pss_File:" {
			if kib, err = strconv.Atoi(f[1]); err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("the roll-up tells no Pss_File")
	return 0
}

func TestWhatIsResidentIsWhatTheKernelSays(t *testing.T) {
	before, err := residentBytes()
	if err != nil {
		t.Fatal(err)
	}
	held := make([]byte, 64<<20)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1
	}
	after, err := residentBytes()
	if err != nil {
		t.Fatal(err)
	}
	if grown := int64(after) - int64(before); grown < 48<<20 || grown > 96<<20 {
		t.Errorf("64 MiB made %d bytes more", grown)
	}
	runtime.KeepAlive(held)
}
