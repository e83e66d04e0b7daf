package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// Report is what a run measured.
type Report struct {
	Kernel  string   `json:"kernel"`
	CPUs    int      `json:"cpus"`
	Go      string   `json:"go"`
	Quick   bool     `json:"quick"` // the times mean nothing
	Rounds  int      `json:"rounds"`
	Busy    float64  `json:"load_average"` // of the minute before the start
	Figures []Figure `json:"figures"`
	Checks  []Check  `json:"checks"`
	Notes   []string `json:"notes"`
}

// Figure is one thing measured: the median of the rounds.
type Figure struct {
	Experiment string  `json:"experiment"`
	Name       string  `json:"name"`
	Unit       string  `json:"unit"`
	Value      float64 `json:"value"`
	// Baseline is the same thing untraced, or what BaselineOf says, in the same
	// unit; nil for what is no time.
	Baseline   *float64  `json:"baseline,omitempty"`
	BaselineOf string    `json:"baseline_of,omitempty"`
	Ratio      *float64  `json:"ratio,omitempty"` // Value / Baseline
	Rounds     []float64 `json:"rounds"`
}

// Check is a count held against another from outside.
type Check struct {
	Experiment string `json:"experiment"`
	Name       string `json:"name"`
	Got        int64  `json:"got"`
	Want       int64  `json:"want"`
}

// OK tells whether the counts are equal.
func (c Check) OK() bool { return c.Got == c.Want }

func newReport(o options) *Report {
	r := &Report{CPUs: runtime.NumCPU(), Go: runtime.Version(), Quick: o.Quick, Rounds: o.Rounds}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		if v, err := strconv.ParseFloat(first, 64); err == nil {
			r.Busy = v
		}
	}
	return r
}

// series collects one figure over the rounds.
type series struct {
	experiment, name, unit, baselineOf string
	values, baselines                  []float64
}

func (s *series) add(value float64) { s.values = append(s.values, value) }

func (s *series) beside(value, baseline float64) {
	s.values, s.baselines = append(s.values, value), append(s.baselines, baseline)
}

// figure adds a series to the report.
func (r *Report) figure(s *series) {
	if len(s.values) == 0 {
		return
	}
	f := Figure{
		Experiment: s.experiment, Name: s.name, Unit: s.unit, Value: median(s.values),
		BaselineOf: s.baselineOf, Rounds: s.values,
	}
	if len(s.baselines) > 0 {
		base := median(s.baselines)
		f.Baseline = &base
		if base != 0 {
			ratio := f.Value / base
			f.Ratio = &ratio
		}
	}
	r.Figures = append(r.Figures, f)
}

func (r *Report) check(experiment, name string, got, want int64) {
	r.Checks = append(r.Checks, Check{experiment, name, got, want})
}

// note says how something was measured, once.
func (r *Report) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// Err names the counts that are wrong.
func (r *Report) Err() error {
	var errs []error
	for _, c := range r.Checks {
		if !c.OK() {
			errs = append(errs, fmt.Errorf("%s: %s: got %d, want %d", c.Experiment, c.Name, c.Got, c.Want))
		}
	}
	return errors.Join(errs...)
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report as tables.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "kernel %s, %d CPUs, %s, load average before %.2f; medians of %d rounds\n", r.Kernel, r.CPUs, r.Go, r.Busy, r.Rounds)
	if r.Quick {
		fmt.Fprintln(w, "a quick run: its times mean nothing")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nEXPERIMENT\tFIGURE\tVALUE\tBASELINE\tRATIO\tUNIT\tROUNDS\tBASELINE IS")
	for _, f := range r.Figures {
		baseline, ratio := "", ""
		if f.Baseline != nil {
			baseline = number(*f.Baseline)
		}
		if f.Ratio != nil {
			ratio = strconv.FormatFloat(*f.Ratio, 'f', 2, 64)
		}
		rounds := make([]string, len(f.Rounds))
		for i, v := range f.Rounds {
			rounds[i] = number(v)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Experiment, f.Name, number(f.Value), baseline, ratio, f.Unit, strings.Join(rounds, " "), f.BaselineOf)
	}
	fmt.Fprintln(t, "\nEXPERIMENT\tCOUNT\tGOT\tWANT\t")
	for _, c := range r.Checks {
		verdict := "ok"
		if !c.OK() {
			verdict = "WRONG"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", c.Experiment, c.Name, c.Got, c.Want, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range r.Notes {
		if _, err := fmt.Fprintln(w, "\n"+n); err != nil {
			return err
		}
	}
	return nil
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.001 && v > -0.001:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case v < 1 && v > -1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case v < 100 && v > -100:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return 0
	}
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}
