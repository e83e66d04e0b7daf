package conformance

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Status is how a check went.
type Status string

const (
	Pass Status = "PASS"
	Warn Status = "WARN" // the daemon gets along with it, but should not have to
	Fail Status = "FAIL"
)

// Result is one check.
type Result struct {
	// Check is what was checked, as the sentence that should be true.
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Found is what was seen, Do what to do about it; none for a plain pass.
	Found []string      `json:"found,omitempty"`
	Do    string        `json:"do,omitempty"`
	Took  time.Duration `json:"took_nano"`
}

// Report is all that was found about a plugin.
type Report struct {
	Plugin   string   `json:"plugin"` // KIND/NAME
	Version  string   `json:"version,omitempty"`
	Manifest string   `json:"manifest"`
	Program  string   `json:"program"`
	Results  []Result `json:"results"`
}

// Count is the number of checks that went so.
func (r *Report) Count(s Status) int {
	n := 0
	for _, c := range r.Results {
		if c.Status == s {
			n++
		}
	}
	return n
}

// WriteText writes the report for a person: a line for each check, what was found
// below it, and a summary.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", r.Plugin, r.Program)
	for _, c := range r.Results {
		fmt.Fprintf(&b, "%s  %s (%s)\n", c.Status, c.Check, c.Took.Round(time.Millisecond))
		const shown = 8
		for i, f := range c.Found {
			if i == shown {
				fmt.Fprintf(&b, "        and %d more\n", len(c.Found)-shown)
				break
			}
			fmt.Fprintf(&b, "        %s\n", strings.ReplaceAll(strings.ToValidUTF8(f, "\uFFFD"), "\n", "\n        "))
		}
		if c.Do != "" {
			fmt.Fprintf(&b, "        To do: %s\n", c.Do)
		}
	}
	fmt.Fprintf(&b, "%d checks: %d passed, %d warnings, %d failed\n", len(r.Results), r.Count(Pass), r.Count(Warn), r.Count(Fail))
	_, err := io.WriteString(w, b.String())
	return err
}
