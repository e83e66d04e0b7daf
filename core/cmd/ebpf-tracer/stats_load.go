package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func showLoad(out io.Writer, s *protov1.Stats, now time.Time) error {
	l := s.GetLoad()
	if l == nil {
		return nil // an older daemon
	}
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if level := l.GetLevel(); level.GetLevel() != "" {
		line("level %s: %s", levelFor(level, now), pressing(level))
	}
	for _, w := range l.GetWindows() {
		if w.GetSeconds() > 0 {
			lines = append(lines, window(w))
		}
	}
	lines = append(lines, budget(l.GetBudget(), now)...)
	line("kept since the start %d, dropped %d (%s)", l.GetProcessedEvents(), l.GetDroppedEvents(), percent(l.GetDropRate()))
	line("adaptations %d, %d in the last minute; promoted rows %d", l.GetAdaptationCount(), lastMinute(l), l.GetPromotedRows())
	for _, reason := range l.GetRelief() {
		line("less is kept: %s", clean(reason))
	}
	if h := l.GetHost(); h != nil {
		lines = append(lines, hostLoad(h)...)
	}
	for _, a := range l.GetAlerts() {
		if a.GetActive() {
			text := "ALERT"
			if at := since(a.GetSinceUnixNano(), now); at != "" {
				text += " since " + at
			}
			line("%s: %s", text, clean(a.GetText()))
		}
	}
	if u := s.GetUserEvents(); u.GetPrograms() > 0 || len(s.GetUser()) > 0 {
		bound := "no budget"
		if u.GetEventsPerSecond() > 0 {
			bound = fmt.Sprintf("a budget of %.0f/s", u.GetEventsPerSecond())
		}
		line("programs that ask %d, with %s; they recorded %d and dropped %d", u.GetPrograms(), bound, u.GetRecorded(), u.GetDropped())
	}
	return block(out, "load", lines)
}

func levelFor(l *protov1.LoadLevel, now time.Time) string {
	if at := since(l.GetSinceUnixNano(), now); at != "" {
		return l.GetLevel() + " for " + at
	}
	return l.GetLevel()
}

// pressing is the resource that decided on a level.
func pressing(l *protov1.LoadLevel) string {
	parts := []string{clean(l.GetResource())}
	if l.GetName() != "" {
		parts = append(parts, clean(l.GetName()))
	}
	if l.Share != nil {
		parts = append(parts, percent(l.GetShare()))
	}
	return strings.Join(parts, " ")
}

func percent(share float64) string { return fmt.Sprintf("%.4g %%", 100*share) }

func window(w *protov1.LoadWindow) string {
	text := fmt.Sprintf("last %.0f s: seen %.0f/s, kept %.0f/s", w.GetSeconds(), w.GetSeenPerSecond(), w.GetKeptPerSecond())
	if w.GetFilteredPerSecond() > 0 {
		text += fmt.Sprintf(", filtered %.0f/s", w.GetFilteredPerSecond())
	}
	return text + fmt.Sprintf("; sampling rate %s, drop rate %s", percent(w.GetSamplingRate()), percent(w.GetDropRate()))
}

// budget is the bound, and how well it holds.
func budget(b *protov1.BudgetStats, now time.Time) []string {
	if b.GetEventsPerSecond() == 0 && b.GetSeconds() == 0 {
		return []string{"no budget"}
	}
	lines := []string{fmt.Sprintf("budget %.0f/s, %s in use", b.GetEventsPerSecond(), percent(b.GetUse()))}
	if b.GetSeconds() > 0 {
		text := fmt.Sprintf("kept within 1.1 times the budget in %d of %d s (%s)", b.GetSecondsWithin(), b.GetSeconds(),
			percent(float64(b.GetSecondsWithin())/float64(b.GetSeconds())))
		if b.GetWorstRatio() > 0 {
			text += fmt.Sprintf(", at worst %.3f times", b.GetWorstRatio())
			if at := since(b.GetWorstUnixNano(), now); at != "" {
				text += ", " + at + " ago"
			}
		}
		lines = append(lines, text)
	}
	for _, x := range b.GetShares() {
		lines = append(lines, fmt.Sprintf("share %s: %s of it for %d control groups, %d kept",
			clean(x.GetName()), percent(x.GetPortion()), x.GetCgroups(), x.GetKept()))
	}
	return lines
}

func lastMinute(l *protov1.LoadStats) uint64 {
	w := l.GetWindows()
	if len(w) == 0 {
		return 0
	}
	return w[len(w)-1].GetAdaptations()
}

// hostLoad is the last reading of the host.
func hostLoad(h *protov1.HostLoad) []string {
	share := func(what string, v *float64) string {
		if v == nil {
			return what + " -"
		}
		return what + " " + percent(*v)
	}
	rate := func(what string, bytes, use *float64) string {
		text := what + " -"
		if bytes != nil {
			text = what + " " + size(uint64(max(*bytes, 0))) + "/s"
		}
		if use != nil {
			text += " (" + percent(*use) + ")"
		}
		return text
	}
	pressed := func(p *protov1.Pressure) *float64 {
		if p == nil {
			return nil
		}
		return new(p.GetSome())
	}
	var memory *float64
	if total := h.GetMemoryTotalBytes(); total > 0 {
		memory = new(1 - float64(h.GetMemoryAvailableBytes())/float64(total))
	}
	own := "the daemon " + size(h.GetDaemonMemoryBytes())
	if h.DaemonCpuCores != nil {
		own += fmt.Sprintf(" and %.3f cores", h.GetDaemonCpuCores())
	}
	return []string{
		"host: " + strings.Join([]string{
			share("cpu", h.CpuUtilization) + fmt.Sprintf(" of %d", h.GetCpus()), share("memory", memory),
			rate("network", h.NetworkBytesPerSecond, h.NetworkUtilization), rate("disk", h.DiskBytesPerSecond, h.DiskUtilization), own,
		}, ", "),
		"pressure: " + strings.Join([]string{
			share("cpu", pressed(h.GetPressureCpu())), share("memory", pressed(h.GetPressureMemory())), share("io", pressed(h.GetPressureIo())),
		}, ", "),
	}
}

// estimated is a row's estimate, as n ± half of its interval, and by how much that is
// off the exact count.
func estimated(r *protov1.LedgerRow) (estimate, off string) {
	e := r.GetEstimate()
	if e == nil {
		return "", ""
	}
	estimate = fmt.Sprintf("%.0f ± %.0f", e.GetSeen(), math.Max(e.GetHigh()-e.GetSeen(), 0))
	if e.GetCorrection() > 1 {
		estimate += fmt.Sprintf(" (×%.3f for lost)", e.GetCorrection())
	}
	if exact := r.GetSeen() - min(r.GetFiltered(), r.GetSeen()); exact > 0 {
		off = fmt.Sprintf("%+.2f %%", 100*(e.GetSeen()/float64(exact)-1))
	}
	return estimate, off
}
