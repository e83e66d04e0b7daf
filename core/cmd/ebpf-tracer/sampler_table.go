package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/rehearsal"
)

// showSimulations writes a row for each scenario, and below what is to be known of
// the sampler.
func showSimulations(out io.Writer, all []simulation) error {
	t := newTable(out, "SCENARIO", "SEEN", "KEPT", "RING-LOST", "MAX-1S", "MAX-100MS", "ABOVE", "UTILISATION", "CRITICAL", "COVERED",
		"BIAS", "ERROR", "INTERVALS", "HIT", "POLICIES", "REFUSED", "PLAN")
	var notes []string
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].scenario.Name == all[0].scenario.Name {
			n++
		}
		t.row(simulationRow(all[:n])...)
		notes = append(notes, awayNotes(all[:n])...)
		all = all[n:]
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, note := range notes {
		if _, err := fmt.Fprintln(out, clean(note)); err != nil {
			return err
		}
	}
	return nil
}

// simulationRow is the row of one scenario's seeds.
func simulationRow(seeds []simulation) []string {
	r := rehearsal.Pool(mapped(seeds, func(s simulation) *rehearsal.Result { return s.result }))
	bias := fmt.Sprintf("%+.4f", r.Bias)
	if e := rehearsal.StandardError(mapped(seeds, func(s simulation) float64 { return s.result.Bias })); !math.IsInf(e, 0) {
		bias += fmt.Sprintf("±%.4f", e)
	}
	hit := ""
	if r.Intervals > 0 {
		hit = fmt.Sprintf("%.3f", float64(r.IntervalsHit)/float64(r.Intervals))
	}
	return []string{
		seeds[0].scenario.Name, count(r.Seen), count(r.Kept), count(r.RingLost),
		fmt.Sprintf("%.2f", r.MaxSecond), fmt.Sprintf("%.2f", r.MaxTenth), r.Above.String(),
		fmt.Sprintf("%.3f", r.Utilisation), fmt.Sprintf("%.3f", r.Critical), fmt.Sprintf("%.3f", r.Covered),
		bias, fmt.Sprintf("%.3f", r.Error), count(r.Intervals), hit,
		count(r.Policies), count(r.Refused), seconds(r.Planning.Seconds()),
	}
}

// awayNotes say from when on the sampler was away.
func awayNotes(seeds []simulation) []string {
	var notes []string
	for _, s := range seeds {
		if s.away != "" {
			notes = append(notes, fmt.Sprintf("%s, seed %d: from %v on the load went on without the sampler: %s",
				s.scenario.Name, s.seed, s.result.AwayFrom.Round(time.Millisecond), strings.TrimSpace(s.away)))
		}
	}
	return notes
}

// simulationJSON is one run, for programs.
type simulationJSON struct {
	Sampler  string  `json:"sampler"`
	Scenario string  `json:"scenario"`
	Seed     uint64  `json:"seed"`
	Seen     uint64  `json:"seen"`
	Kept     uint64  `json:"kept"`
	RingLost uint64  `json:"ring_lost"`
	Second   float64 `json:"max_second"`
	Tenth    float64 `json:"max_tenth"`
	Above    float64 `json:"above_seconds"`
	Used     float64 `json:"utilisation"`
	Critical float64 `json:"critical"`
	Covered  float64 `json:"covered"`
	Bias     float64 `json:"bias"`
	Error    float64 `json:"error"`

	Intervals    uint64  `json:"intervals"`
	IntervalsHit uint64  `json:"intervals_hit"`
	Policies     uint64  `json:"policies"`
	Refused      uint64  `json:"refused"`
	Promoted     int     `json:"promoted"`
	Planning     float64 `json:"planning_seconds"`
	Unanswered   uint64  `json:"unanswered"`
	AwayFrom     float64 `json:"away_from_seconds,omitempty"`
	Away         string  `json:"away,omitempty"`
}

func (s simulation) json() simulationJSON {
	r := s.result
	return simulationJSON{
		Sampler: s.sampler, Scenario: s.scenario.Name, Seed: s.seed,
		Seen: r.Seen, Kept: r.Kept, RingLost: r.RingLost, Second: r.MaxSecond, Tenth: r.MaxTenth, Above: r.Above.Seconds(),
		Used: r.Utilisation, Critical: r.Critical, Covered: r.Covered, Bias: r.Bias, Error: r.Error,
		Intervals: r.Intervals, IntervalsHit: r.IntervalsHit, Policies: r.Policies, Refused: r.Refused, Promoted: r.Promoted,
		Planning: r.Planning.Seconds(), Unanswered: r.Unanswered, AwayFrom: r.AwayFrom.Seconds(), Away: s.away,
	}
}
