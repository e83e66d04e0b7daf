package daemon

import (
	"math"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestAnEstimateIsCorrectedByWhatWasLost(t *testing.T) {
	var sums [event.PooledRows]load.Sum
	row := kernel.Row{Class: kernel.Class{Kind: event.FileOpen, Priority: event.Info}}
	if e := estimateOf(&row, sums); e != nil {
		t.Errorf("of no event: %v", e)
	}
	sums[event.Row(event.FileOpen, event.Info)] = load.Sum{Events: 80, Weight: 800, Variance: 7200}
	for _, c := range []struct{ kept, lost, correction float64 }{{80, 0, 1}, {80, 20, 1.25}, {0, 20, 1}} {
		row.Kept, row.Lost = uint64(c.kept), uint64(c.lost)
		e := estimateOf(&row, sums)
		half := 1.96 * math.Sqrt(7200)
		if e.GetCorrection() != c.correction || e.GetSeen() != 800*c.correction || e.GetWeight() != 800 || e.GetEvents() != 80 ||
			math.Abs(e.GetLow()-(800-half)*c.correction) > 1e-9 || math.Abs(e.GetHigh()-(800+half)*c.correction) > 1e-9 {
			t.Errorf("kept %v, lost %v: %v", c.kept, c.lost, e)
		}
	}
}

func TestTheSystemLoadIsInPercentAndLeavesOutWhatIsNotTold(t *testing.T) {
	s := systemLoad(&protov1.HostLoad{CpuUtilization: new(0.5), MemoryTotalBytes: 200, MemoryAvailableBytes: 150, DiskUtilization: new(0.0)})
	if s.GetCpuUsage() != 50 || s.GetMemoryUsage() != 25 || s.NetworkUsage != nil || s.DiskUsage == nil || *s.DiskUsage != 0 {
		t.Errorf("%v", s)
	}
	if s := systemLoad(nil); s.CpuUsage != nil || s.MemoryUsage != nil {
		t.Errorf("of no reading: %v", s)
	}
}

func TestTheLevelTellsWhatDecidedOnIt(t *testing.T) {
	if l := loadLevel(monitor.Observation{}); l.GetLevel() != "" {
		t.Errorf("of no reading: %v", l)
	}
	at := time.Unix(5, 0)
	l := loadLevel(monitor.Observation{Time: at, State: monitor.State{Level: monitor.High, Resource: monitor.Disk, Name: "sda", Share: 0.85, Since: at}})
	if l.GetLevel() != "high" || l.GetResource() != "disk" || l.GetName() != "sda" || l.GetShare() != 0.85 || l.GetSinceUnixNano() != 5e9 {
		t.Errorf("%v", l)
	}
	if l := loadLevel(monitor.Observation{Time: at, State: monitor.State{Share: math.NaN()}}); l.Share != nil {
		t.Errorf("of a share that is not told any more: %v", l)
	}
}
