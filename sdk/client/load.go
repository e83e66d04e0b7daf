package client

import (
	"math"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// LoadStats is the load, by the keys that the design of load management has for it.
type LoadStats struct {
	CurrentLoad         uint64     `json:"current_load"`          // events/s, over the last second
	CurrentSamplingRate float64    `json:"current_sampling_rate"` // 0 to 1
	ProcessedEvents     uint64     `json:"processed_events"`      // kept, since the daemon's start
	DroppedEvents       uint64     `json:"dropped_events"`        // sampled out or lost, since then
	DropRate            float64    `json:"drop_rate"`             // share of those in both
	AdaptationCount     uint64     `json:"adaptation_count"`      // policies put into force
	SystemLoad          SystemLoad `json:"system_load"`
}

// SystemLoad is in percent of the host, 0 for what is not known: of its CPUs, of its
// memory, of the busiest interface's speed and of the busiest disk's time.
type SystemLoad struct {
	CPUUsage     float64 `json:"cpu_usage"`
	MemoryUsage  float64 `json:"memory_usage"`
	NetworkUsage float64 `json:"network_usage"`
	DiskUsage    float64 `json:"disk_usage"`
}

// LoadStats is the load in short. The whole of it is in GetLoad.
func (s *Stats) LoadStats() LoadStats { return loadStats(s.GetLoad()) }

func loadStats(l *protov1.LoadStats) LoadStats {
	h := l.GetSystemLoad()
	return LoadStats{
		CurrentLoad: uint64(math.Round(max(l.GetCurrentLoad(), 0))), CurrentSamplingRate: l.GetCurrentSamplingRate(),
		ProcessedEvents: l.GetProcessedEvents(), DroppedEvents: l.GetDroppedEvents(), DropRate: l.GetDropRate(),
		AdaptationCount: l.GetAdaptationCount(),
		SystemLoad: SystemLoad{
			CPUUsage: h.GetCpuUsage(), MemoryUsage: h.GetMemoryUsage(), NetworkUsage: h.GetNetworkUsage(), DiskUsage: h.GetDiskUsage(),
		},
	}
}

// LoadMap is LoadStats as a map with the same keys: current_load, current_sampling_rate,
// processed_events, dropped_events, drop_rate, adaptation_count, and system_load, which
// is a map again, of those figures that this host tells.
func (s *Stats) LoadMap() map[string]any {
	l := s.LoadStats()
	host := map[string]any{}
	if h := s.GetLoad().GetSystemLoad(); h != nil {
		for key, v := range map[string]*float64{
			"cpu_usage": h.CpuUsage, "memory_usage": h.MemoryUsage, "network_usage": h.NetworkUsage, "disk_usage": h.DiskUsage,
		} {
			if v != nil {
				host[key] = *v
			}
		}
	}
	return map[string]any{
		"current_load": l.CurrentLoad, "current_sampling_rate": l.CurrentSamplingRate, "processed_events": l.ProcessedEvents,
		"dropped_events": l.DroppedEvents, "drop_rate": l.DropRate, "adaptation_count": l.AdaptationCount, "system_load": host,
	}
}
