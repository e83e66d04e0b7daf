package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func TestAQuickRunCountsWhatTheLoadsDid(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: the daemon loads programs into the kernel")
	}
	// Left out: what go test runs by itself as well.
	only := []string{"exec", "open", "tcp", "idle"}
	report, err := run(t.Context(), options{Quick: true, Only: only, Log: logWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	for _, name := range only {
		if !slices.ContainsFunc(report.Figures, func(f Figure) bool { return strings.HasPrefix(f.Experiment, name) }) {
			t.Errorf("experiment %s has no figures", name)
		}
	}
	for _, f := range report.Figures {
		if f.Name == "captured" && f.Value != 100 {
			t.Errorf("captured %v%% of the execs", f.Value)
		}
		if strings.HasPrefix(f.Name, "JSON") && f.Value <= 0 {
			t.Errorf("%s: %v %s", f.Experiment, f.Value, f.Unit)
		}
	}
	if len(report.Checks) < 20 {
		t.Errorf("only %d counts were checked", len(report.Checks))
	}
	var text, machine bytes.Buffer
	if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), "captured") {
		t.Errorf("the report reads (%v):\n%s", err, &text)
	}
	var back Report
	if err := report.WriteJSON(&machine); err != nil || json.Unmarshal(machine.Bytes(), &back) != nil || len(back.Figures) != len(report.Figures) {
		t.Errorf("the report in JSON reads (%v):\n%s", err, &machine)
	}
}

func TestTheLedgerIsReadFromWhatTheDaemonPrints(t *testing.T) {
	l, err := readLedger(`time=2000-01-01T00:00:00Z level=INFO msg=tracing version=1.2.3 node=a socket=b start=3ms
                  KIND  PRIORITY  SEEN  KEPT  SAMPLED OUT  FILTERED  LOST
          process.exec    normal    12    10            0         0     2
          process.exec  critical     1     1            0         0     0
kept 11 = decoded 11 + injected 0 + malformed 0 + in ring 0; decoded + injected = released 11 + held 0; skipped runs 3
json: released 11 = exported 5 + queue dropped 4 + failed 2 + scoped out 0 + queued 0
the ledger closes
`)
	if err != nil {
		t.Fatal(err)
	}
	if l.seen["process.exec"] != 13 || sum(l.kept) != 11 || sum(l.lost) != 2 || l.skipped != 3 || !l.closes ||
		l.exporter["exported"] != 5 || l.exporter["queue dropped"] != 4 || l.exporter["failed"] != 2 {
		t.Errorf("read %+v", l)
	}
	if _, err := readLedger("nothing of the kind"); err == nil {
		t.Error("a ledger was read where there is none")
	}
}

func TestAReportFailsWhenACountIsWrong(t *testing.T) {
	r := newReport(options{})
	r.check("x", "right", 3, 3)
	if err := r.Err(); err != nil {
		t.Errorf("equal counts are an error: %v", err)
	}
	r.check("x", "wrong", 3, 4)
	if err := r.Err(); err == nil {
		t.Error("different counts are no error")
	}
}

func TestTheMedianIsThatOfTheMiddle(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

func TestAnUnknownExperimentIsAnError(t *testing.T) {
	if err := command(t.Context(), []string{"-only", "exce"}, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
		t.Error("an unknown experiment ran")
	}
}

func TestStartsAreReadFromWhatTheDaemonLogs(t *testing.T) {
	var s startSeries
	err := s.read(`time=2000-01-01T00:00:00Z level=DEBUG msg="plugin has been started" plugin=mesh/generic pid=7 confined=11.5ms connected=1.02s
time=2000-01-01T00:00:00Z level=INFO msg="plugin was replaced" plugin=mesh/generic version=1.2.3 pid=7 took=1.1s
time=2000-01-01T00:00:00Z level=INFO msg="plugin is running" plugin=mesh/generic
`, 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"start of mesh/generic": 1020, "of that confined, mesh/generic": 11.5, "of that its own, mesh/generic": 1008.5, "replacement of mesh/generic": 1100,
	} {
		if f := s.found[name]; f == nil || len(f.values) != 1 || f.values[0] != want || f.baselines[0] != 2 {
			t.Errorf("%s: read %+v, want %v beside 2", name, f, want)
		}
	}
	if len(s.order) != 4 {
		t.Errorf("read %q", s.order)
	}
	if err := s.read(`msg="plugin has been started" plugin=mesh/generic pid=7`, 2); err == nil {
		t.Error("a start without times was read")
	}
}
