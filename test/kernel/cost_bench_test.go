package kernel

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// BenchmarkHooks counts the instructions that tracing opens adds to a call of which next to
// no event is kept, told by its tracepoint and by its function: in an emulated machine, whose
// clock they are. On 6.12 they were, of 1,630 of an open that the kernel refuses at once, 601
// and 455; of 360 of another system call, 98 and 1, since with a tracepoint every call goes
// the slow way. On 6.1 they were 595 and 471 of 1,480, 90 and 0 of 359. An open of a file and
// its close take 6,100, give or take 300 from one boot to the next.
func BenchmarkHooks(b *testing.B) {
	files := b.TempDir()
	openload, err := os.ReadFile(load.Build(b).Open)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "openload"), openload, 0o755); err != nil {
		b.Fatal(err)
	}
	program := guest(b, "amd64")
	for _, series := range []string{"6.12", "6.1"} {
		b.Run(series, func(b *testing.B) {
			for b.Loop() {
				out, status := boot(b, []string{"-c", "-f", files, series, program, "cost", "/test/openload"})
				if status != 0 {
					b.Fatalf("status %d: %s", status, out)
				}
				lines := 0
				for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); lines++ {
					var call, hook string
					var instructions float64
					if _, err := fmt.Sscan(s.Text(), &call, &hook, &instructions); err != nil {
						b.Fatalf("%q: %v", s.Text(), err)
					}
					b.ReportMetric(instructions, call+"/"+hook)
				}
				if lines != 12 {
					b.Fatalf("%d figures, want 12: %s", lines, out)
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
