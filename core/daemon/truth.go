package daemon

import (
	"fmt"
	"math"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/api"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// loadStats is how much there is and how much of it is kept, by the rows of the ledger.
func (s source) loadStats(rows []*protov1.LedgerRow, swaps uint64) *protov1.LoadStats {
	truth, policy, seen := s.governor.Truth(), s.governor.Policy(), s.governor.Observation()
	out := &protov1.LoadStats{
		CurrentLoad: truth.Second.Seen, CurrentSamplingRate: truth.Second.SamplingRate, AdaptationCount: swaps,
		SystemLoad: systemLoad(seen.Host), Host: seen.Host, Level: loadLevel(seen),
		Windows: []*protov1.LoadWindow{loadWindow(truth.Second), loadWindow(truth.Minute)},
		Budget: &protov1.BudgetStats{
			EventsPerSecond: policy.Budget, Seconds: truth.Bound.Seconds, SecondsWithin: truth.Bound.Within,
			WorstRatio: truth.Bound.Worst, WorstUnixNano: unixNano(truth.Bound.WorstAt),
		},
		Relief: policy.Relief, PromotedRows: uint32(policy.Promoted),
	}
	if policy.Budget > 0 {
		out.Budget.Use = truth.Second.Kernel / policy.Budget
	}
	for _, v := range s.shares.List() {
		out.Budget.Shares = append(out.Budget.Shares, &protov1.ShareStats{
			Name: v.Name, Portion: v.Portion, Cgroups: uint32(v.Cgroups), Kept: v.Kept,
		})
	}
	for _, r := range rows {
		out.ProcessedEvents += r.GetKept()
		out.DroppedEvents += r.GetSampledOut() + r.GetLost()
	}
	if all := out.ProcessedEvents + out.DroppedEvents; all > 0 {
		out.DropRate = float64(out.DroppedEvents) / float64(all)
	}
	for _, a := range truth.Alerts {
		out.Alerts = append(out.Alerts, &protov1.LoadAlert{
			Name: a.Name, Active: a.Active, SinceUnixNano: unixNano(a.Since), Times: a.Times, Text: a.Text,
		})
	}
	return out
}

func loadWindow(w load.Window) *protov1.LoadWindow {
	return &protov1.LoadWindow{
		Seconds: w.Duration.Seconds(), SeenPerSecond: w.Seen, KeptPerSecond: w.Kept, FilteredPerSecond: w.Filtered,
		SamplingRate: w.SamplingRate, DropRate: w.DropRate, Adaptations: w.Adaptations,
	}
}

// systemLoad is in percent, as the design of load management has it.
func systemLoad(h *protov1.HostLoad) *protov1.SystemLoad {
	if h == nil {
		return &protov1.SystemLoad{} // nothing was read yet
	}
	shares := monitor.SharesOf(h)
	percent := func(r monitor.Resource) *float64 {
		if math.IsNaN(shares[r]) {
			return nil
		}
		return new(100 * shares[r])
	}
	return &protov1.SystemLoad{
		CpuUsage: percent(monitor.CPU), MemoryUsage: percent(monitor.Memory),
		NetworkUsage: percent(monitor.Network), DiskUsage: percent(monitor.Disk),
	}
}

func loadLevel(o monitor.Observation) *protov1.LoadLevel {
	if o.Time.IsZero() {
		return &protov1.LoadLevel{}
	}
	out := &protov1.LoadLevel{
		Level: o.State.Level.String(), Resource: o.State.Resource.String(), Name: o.State.Name, SinceUnixNano: unixNano(o.State.Since),
	}
	if !math.IsNaN(o.State.Share) {
		out.Share = &o.State.Share
	}
	return out
}

// unixNano of a time, 0 of none.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// estimateOf gives what the weights of a row's released events say that it has seen.
func estimateOf(r *kernel.Row, sums [event.PooledRows]load.Sum) *protov1.Estimate {
	correction := 1.0
	if r.Lost > 0 && r.Kept > 0 {
		correction = float64(r.Kept+r.Lost) / float64(r.Kept)
	}
	return estimate(sums[event.Row(r.Kind, r.Priority)], correction)
}

func estimate(s load.Sum, correction float64) *protov1.Estimate {
	if s.Events == 0 {
		return nil
	}
	low, high := s.Interval()
	return &protov1.Estimate{
		Events: s.Events, Seen: s.Weight * correction, Low: low * correction, High: high * correction, Correction: correction,
		Weight: s.Weight, Variance: s.Variance,
	}
}

// userRows are those of the ledger that programs fill.
func userRows(u *load.UserEvents) (out []*protov1.LedgerRow) {
	for _, r := range u.Rows() {
		out = append(out, &protov1.LedgerRow{
			Kind: load.UserPrefix + r.Name, Priority: r.Priority.String(), Seen: r.Events + r.SampledOut, Kept: r.Events,
			SampledOut: r.SampledOut, Probability: r.Probability, Estimate: estimate(r.Sum, 1),
		})
	}
	return out
}

// ShouldSample decides on an event of a program.
func (s source) ShouldSample(r *protov1.ShouldSampleRequest) (*protov1.ShouldSampleResponse, error) {
	keep, weight, err := s.governor.User().Decide(r.GetName(), r.GetPriority())
	return &protov1.ShouldSampleResponse{Keep: keep, Weight: weight}, err
}

// ExchangeUserEvents takes what a program has decided by itself. The load comes with
// the answer, for who asks often asks for that, too.
func (s source) ExchangeUserEvents(r *protov1.UserReport) (*protov1.UserTable, error) {
	table, err := s.governor.User().Exchange(r)
	if err != nil {
		return nil, err
	}
	rows, _, swaps, err := s.kernel.Ledger()
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	ledger := userRows(s.governor.User())
	for _, row := range rows {
		ledger = append(ledger, &protov1.LedgerRow{Kept: row.Kept, SampledOut: row.SampledOut, Lost: row.Lost})
	}
	table.Load = s.loadStats(ledger, swaps)
	return table, nil
}

// printTruth writes how well the bound held, and the ledger of programs.
func (d *daemon) printTruth(s *protov1.Stats) {
	if b := s.GetLoad().GetBudget(); b.GetSeconds() > 0 {
		fmt.Fprintf(d.options.Stderr, "of %d s with a budget %d kept no more than 1.1 times of it, the worst %.3f times\n",
			b.GetSeconds(), b.GetSecondsWithin(), b.GetWorstRatio())
	}
	for _, r := range s.GetUser() {
		fmt.Fprintf(d.options.Stderr, "%s %s: seen %d = kept %d + sampled out %d\n",
			r.GetKind(), r.GetPriority(), r.GetSeen(), r.GetKept(), r.GetSampledOut())
	}
}

var _ api.Decider = source{}
