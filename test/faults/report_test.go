package faults

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
)

// result is a row of the table at the end.
type result struct {
	Fault     string  `json:"fault"`
	State     string  `json:"state"`
	Restarts  uint64  `json:"restarts"`
	DetectMS  float64 `json:"detect_ms"`  // from the fault to the daemon's word; -1: there is nothing to detect
	RecoverMS float64 `json:"recover_ms"` // from there to a process, or a stream, that serves; -1: it always did
	Says      string  `json:"says"`
}

// report logs the table, for people and for programs.
func report(t *testing.T, results []result) {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tFOUND AFTER\tSERVES AGAIN AFTER\tRESTARTS\tSTATE\tTHE DAEMON'S WORD")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%.100s\n", r.Fault, ms(r.DetectMS), ms(r.RecoverMS), r.Restarts, r.State, r.Says)
	}
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	line, err := json.Marshal(map[string]any{"faults": results})
	if err != nil {
		t.Error(err)
	}
	t.Logf("\n%s\nfault-table %s", b.String(), line)
}

func ms(v float64) string {
	if v < 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f ms", v)
}
