package monitor

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// row of factors, from debug to critical.
type row = [event.Priorities]float64

func all(r row) Factors { return Factors{r, r, r, r} }

func pressed(by float64) *protov1.Pressure { return &protov1.Pressure{Some: by} }

func TestTheRulesMakeFactorsOfALoad(t *testing.T) {
	var (
		full   = row{1, 1, 1, 1, 1}
		half   = row{0.5, 0.5, 0.5, 0.5, 1}
		strict = row{0.1, 0.25, 0.5, 1, 1}
	)
	for name, c := range map[string]struct {
		load    *protov1.HostLoad
		want    Factors
		reasons []string
	}{
		"an empty load": {&protov1.HostLoad{}, all(full), nil},
		"everything at its bound": {
			&protov1.HostLoad{
				CpuUtilization: new(0.8), NetworkUtilization: new(0.8), DiskUtilization: new(0.8), PressureIo: pressed(0.4),
				DaemonMemoryBytes: 1 << 30, MemoryTotalBytes: 100, MemoryAvailableBytes: 5, PressureCpu: pressed(1), PressureMemory: pressed(1),
			},
			all(full), nil,
		},
		"cpu": {
			&protov1.HostLoad{CpuUtilization: new(0.91)},
			all(half), []string{"cpu 91 %, above 80 %: less of everything"},
		},
		"the daemon's memory": {
			&protov1.HostLoad{DaemonMemoryBytes: 1536 << 20},
			all(strict), []string{"daemon memory 1536 MiB, above 1024 MiB: aggressive"},
		},
		"the host's memory": {
			&protov1.HostLoad{MemoryTotalBytes: 100, MemoryAvailableBytes: 4},
			all(strict), []string{"memory 96 %, above 95 %: aggressive"},
		},
		"both memories count once": {
			&protov1.HostLoad{MemoryTotalBytes: 100, MemoryAvailableBytes: 4, DaemonMemoryBytes: 1536 << 20},
			all(strict), []string{"daemon memory 1536 MiB, above 1024 MiB: aggressive", "memory 96 %, above 95 %: aggressive"},
		},
		"network": {
			&protov1.HostLoad{NetworkUtilization: new(0.85)},
			Factors{Process: full, Net: half, File: full, Other: full}, []string{"network 85 %, above 80 %: fewer network events"},
		},
		"disk": {
			&protov1.HostLoad{DiskUtilization: new(0.95)},
			Factors{Process: full, Net: full, File: half, Other: full}, []string{"disk 95 %, above 80 %: fewer file events"},
		},
		"disk and pressure count once": {
			&protov1.HostLoad{DiskUtilization: new(0.95), PressureIo: pressed(0.41)},
			Factors{Process: full, Net: full, File: half, Other: full},
			[]string{"disk 95 %, above 80 %: fewer file events", "io pressure 41 %, above 40 %: fewer file events"},
		},
		"all at once": {
			&protov1.HostLoad{
				CpuUtilization: new(0.9), DaemonMemoryBytes: 1536 << 20, NetworkUtilization: new(0.9), PressureIo: pressed(0.5),
			},
			Factors{
				Process: {0.05, 0.125, 0.25, 0.5, 1}, Net: {0.025, 0.0625, 0.125, 0.25, 1},
				File: {0.025, 0.0625, 0.125, 0.25, 1}, Other: {0.05, 0.125, 0.25, 0.5, 1},
			},
			[]string{
				"cpu 90 %, above 80 %: less of everything", "daemon memory 1536 MiB, above 1024 MiB: aggressive",
				"network 90 %, above 80 %: fewer network events", "io pressure 50 %, above 40 %: fewer file events",
			},
		},
		"what is no number": {
			&protov1.HostLoad{CpuUtilization: new(math.NaN()), PressureIo: pressed(math.NaN()), MemoryTotalBytes: 1, MemoryAvailableBytes: 2},
			all(full), nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := DefaultRules().Relieve(c.load)
			for f := range got.Factors {
				for p := range got.Factors[f] {
					if !near(got.Factors[f][p], c.want[f][p]) {
						t.Errorf("family %d, %v: %v, want %v", f, event.Priority(p), got.Factors[f][p], c.want[f][p])
					}
				}
			}
			if !slices.Equal(got.Reasons, c.reasons) {
				t.Errorf("because of %q, want %q", got.Reasons, c.reasons)
			}
		})
	}
}

func TestNoRuleTouchesWhatIsCritical(t *testing.T) {
	rules := DefaultRules()
	rules.OnCPU = Factors{}
	rules.OnMemory[Process] = row{-1, 7, math.Inf(1), 0.5, 0}
	got := rules.Relieve(&protov1.HostLoad{CpuUtilization: new(1.0)})
	for f := range got.Factors {
		if got.Factors[f] != (row{0, 0, 0, 0, 1}) {
			t.Errorf("family %d: %v", f, got.Factors[f])
		}
	}
	got = rules.Relieve(&protov1.HostLoad{DaemonMemoryBytes: 2 << 30})
	if got.Factors[Process] != (row{0, 1, 1, 0.5, 1}) {
		t.Errorf("factors out of their bounds: %v", got.Factors[Process])
	}
}

func TestARuleWithoutABoundIsOff(t *testing.T) {
	full := DefaultRules()
	full.CPU, full.DaemonMemoryBytes, full.HostMemory, full.Network, full.Disk, full.PressureIO = 0, 0, 0, 0, 0, 0
	got := full.Relieve(&protov1.HostLoad{
		CpuUtilization: new(1.0), NetworkUtilization: new(1.0), DiskUtilization: new(1.0), PressureIo: pressed(1),
		DaemonMemoryBytes: 1 << 40, MemoryTotalBytes: 100,
	})
	if got.Factors != all(row{1, 1, 1, 1, 1}) || got.Reasons != nil {
		t.Errorf("%v because of %q", got.Factors, got.Reasons)
	}
}

func TestEveryKindHasAFactorAndOnlyWhatAPolicyDecidesOnIsTouched(t *testing.T) {
	r := Relief{Factors: Factors{
		Process: {0.1, 0.1, 0.1, 0.1, 1}, Net: {0.2, 0.2, 0.2, 0.2, 1}, File: {0.3, 0.3, 0.3, 0.3, 1}, Other: {0.4, 0.4, 0.4, 0.4, 1},
	}}
	for k, want := range map[event.Kind]float64{
		event.ProcessFork: 0.1, event.ProcessExec: 0.1, event.ProcessExit: 0.1, event.NetworkConnect: 0.2,
		event.NetworkConnectFailed: 0.2, event.NetworkListen: 0.2, event.FileOpen: 0.3,
		event.CgroupCreate: 1, event.CgroupRemove: 1, event.ContainerDied: 1, event.ImagePulled: 1, event.Kinds: 1,
	} {
		if got := r.Of(k, event.Info); got != want {
			t.Errorf("%v: %v, want %v", k, got, want)
		}
		if got := r.Of(k, event.Critical); got != 1 {
			t.Errorf("critical %v: %v", k, got)
		}
	}
	for k := range event.KernelKinds {
		if got := r.Of(k, event.Debug); !(got > 0 && got <= 1) {
			t.Errorf("%v: %v", k, got)
		}
	}
	if got := r.Of(event.FileOpen, event.Priorities); got != 1 {
		t.Errorf("a priority that there is not: %v", got)
	}
}

func TestReliefEndsAsSlowlyAsALevel(t *testing.T) {
	b := brake{rules: DefaultRules()}
	for _, c := range []struct {
		at     float64 // seconds
		cpu    *float64
		factor float64
		reason string
	}{
		{0, new(0.79), 1, ""},
		{1, new(0.81), 0.5, "cpu 81 %, above 80 %: less of everything"},
		{2, new(0.79), 0.5, "cpu 79 %, not yet below 72 % for 5s: less of everything"},
		{60, new(0.73), 0.5, "cpu 73 %, not yet below 72 % for 5s: less of everything"},
		{61, new(0.5), 0.5, "cpu 50 %, not yet below 72 % for 5s: less of everything"},
		{65, nil, 0.5, "cpu not told any more, was above 80 %: less of everything"},
		{66, new(0.5), 1, ""},
		{67, new(0.79), 1, ""},
	} {
		got := b.observe(start.Add(time.Duration(c.at*float64(time.Second))), &protov1.HostLoad{CpuUtilization: c.cpu})
		if f := got.Of(event.FileOpen, event.Info); f != c.factor {
			t.Errorf("after %v s: %v, want %v", c.at, f, c.factor)
		}
		if (c.reason == "") != (got.Reasons == nil) || c.reason != "" && got.Reasons[0] != c.reason {
			t.Errorf("after %v s because of %q, want %q", c.at, got.Reasons, c.reason)
		}
	}
}
