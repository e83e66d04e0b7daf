package api

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// decider keeps every event but those of one name, and remembers what it was told.
type decider struct {
	*answers
	asked   []*protov1.ShouldSampleRequest
	reports []*protov1.UserReport
}

func (d *decider) ShouldSample(r *protov1.ShouldSampleRequest) (*protov1.ShouldSampleResponse, error) {
	d.asked = append(d.asked, r)
	if r.GetName() == "bad" {
		return nil, errors.New("no such name")
	}
	return &protov1.ShouldSampleResponse{Keep: true, Weight: 4}, nil
}

func (d *decider) ExchangeUserEvents(r *protov1.UserReport) (*protov1.UserTable, error) {
	d.reports = append(d.reports, r)
	if r.GetProgram() == 0 {
		return nil, errors.New("no such program")
	}
	return &protov1.UserTable{
		Rules: []*protov1.UserRule{{Priority: "info", Probability: 1}},
		Load:  &protov1.LoadStats{ProcessedEvents: 9},
	}, nil
}

func TestProgramsAskAboutTheirEvents(t *testing.T) {
	d := &decider{answers: &answers{}}
	r := run(t, d)
	got, err := r.client.ShouldSample(t.Context(), "http_request", map[string]string{"level": "ERROR", "secret": "hunter2"})
	if err != nil || !got.Keep || got.Weight != 4 {
		t.Error(got, err)
	}
	if q := d.asked[0]; q.GetName() != "http_request" || q.GetPriority() != "error" || strings.Contains(q.String(), "hunter2") {
		t.Errorf("the daemon was asked about %v", q)
	}
	if _, err := r.client.ShouldSample(t.Context(), "bad", nil); err == nil || status.Code(err) != codes.InvalidArgument || err.Error() != "no such name" {
		t.Error(err)
	}
	m, err := r.client.LoadManager(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if m.ShouldSample("cache", nil) {
			m.RecordEvent()
		}
	}
	m.RecordDrop()
	if m.GetStats().ProcessedEvents != 9 {
		t.Errorf("%+v", m.GetStats())
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	var kept, recorded, dropped uint64
	for _, report := range d.reports {
		for _, c := range report.GetCounts() {
			kept += c.GetKept()
		}
		recorded += report.GetRecorded()
		dropped += report.GetDropped()
	}
	if last := d.reports[len(d.reports)-1]; kept != 3 || recorded != 3 || dropped != 1 || !last.GetLast() {
		t.Errorf("the daemon heard %v", d.reports)
	}
}

func TestASourceThatDecidesNothingSaysSo(t *testing.T) {
	r := run(t, &answers{})
	_, one := r.client.ShouldSample(t.Context(), "a", nil)
	_, many := r.client.LoadManager(t.Context())
	for _, err := range []error{one, many} {
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "another version") {
			t.Error(err)
		}
	}
}

func BenchmarkShouldSample(b *testing.B) {
	r := run(b, &decider{answers: &answers{}})
	for b.Loop() {
		if _, err := r.client.ShouldSample(b.Context(), "a", nil); err != nil {
			b.Fatal(err)
		}
	}
}
