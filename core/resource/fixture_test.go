package resource

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is found as what is wanted")

var fieldNames = [fields]string{
	CPU: "CPU", CPUUser: "CPUUser", CPUSystem: "CPUSystem", Periods: "Periods", ThrottledPeriods: "ThrottledPeriods",
	ThrottledTime: "ThrottledTime", Quota: "Quota", Period: "Period", Shares: "Shares",
	Memory: "Memory", WorkingSet: "WorkingSet", MemoryLimit: "MemoryLimit", MemoryPeak: "MemoryPeak", Swap: "Swap", OOMKills: "OOMKills",
	ReadBytes: "ReadBytes", WrittenBytes: "WrittenBytes", Reads: "Reads", Writes: "Writes", Pids: "Pids", PidsLimit: "PidsLimit",
	ReceivedBytes: "ReceivedBytes", ReceivedPackets: "ReceivedPackets", SentBytes: "SentBytes", SentPackets: "SentPackets",
	CPUSome10: "CPUSome10", CPUFull10: "CPUFull10", CPUSome: "CPUSome", CPUFull: "CPUFull",
	MemorySome10: "MemorySome10", MemoryFull10: "MemoryFull10", MemorySome: "MemorySome", MemoryFull: "MemoryFull",
	IOSome10: "IOSome10", IOFull10: "IOFull10", IOSome: "IOSome", IOFull: "IOFull",
}

// show lists what is known, a figure to a line.
func show(u *Usage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "from %s\n", u.from)
	for f := range fields {
		if v, ok := u.Get(f); ok {
			fmt.Fprintf(&b, "%s %d\n", fieldNames[f], v)
		}
	}
	return b.String()
}

// fixture is a host as a txtar has it, unpacked: files of control groups, a mountinfo,
// where the default hierarchy is, and one container.
type fixture struct {
	dir          string
	layout       *Hierarchies
	main, status string
	archive      *txtar.Archive
}

const fixtureID = "1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e"

func unpack(t testing.TB, name string) *fixture {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{dir: t.TempDir(), archive: archive}
	var mountinfo, root string
	for _, part := range archive.Files {
		text := string(part.Data)
		switch part.Name {
		case "mountinfo":
			mountinfo = strings.ReplaceAll(text, "@DIR@", f.dir)
		case "root":
			if text != "" {
				root = filepath.Join(f.dir, strings.TrimSpace(text))
			}
		case "main":
			f.main = strings.TrimSpace(text)
		case "status":
			f.status = text
		case "want":
		default:
			path := filepath.Join(f.dir, part.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, part.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if f.layout, err = find([]byte(mountinfo), root); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEachKindOfHostIsReadToTheLastFigure(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			f := unpack(t, name)
			s := source{groups: f.layout.locate(f.main, fixtureID, f.status)}
			var u Usage
			now := time.Unix(1, 2)
			if err := newReader(f.layout).read(&s, &u, true, true, now); err != nil {
				t.Fatal(err)
			}
			if u.time != now.UnixNano() {
				t.Errorf("read at %d", u.time)
			}
			var want string
			for i, part := range f.archive.Files {
				if part.Name == "want" {
					want = string(part.Data)
					f.archive.Files[i].Data = []byte(show(&u))
				}
			}
			if *update {
				if want == "" {
					f.archive.Files = append(f.archive.Files, txtar.File{Name: "want", Data: []byte(show(&u))})
				}
				if err := os.WriteFile(file, txtar.Format(f.archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := show(&u); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
