package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

var noon = time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) int64 { return noon.Add(-d).UnixNano() }

func TestAnAgeHasAsManyDigitsAsMatter(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m", 2 * time.Hour: "2h",
		47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d", -time.Hour: "0s",
	} {
		if got := age(ago(d), noon); got != want {
			t.Errorf("after %v: %s, want %s", d, got, want)
		}
	}
	if got := age(0, noon); got != "" {
		t.Errorf("of no time: %s", got)
	}
}

func TestAContainersTimesAreTold(t *testing.T) {
	v := &protov1.ContainerView{Container: &protov1.Container{
		Id: "a", CreatedUnixNano: ago(3 * time.Hour), StartedUnixNano: ago(time.Minute), FinishedUnixNano: ago(50 * time.Hour),
	}}
	var out bytes.Buffer
	s := &sheet{out: &out}
	showContainer(s, v, nil, noon)
	want := `id        a
created   2024-05-06T09:00:00Z (3h ago)
started   2024-05-06T11:59:00Z (60s ago)
finished  2024-05-04T10:00:00Z (2d ago)
`
	if out.String() != want || s.err != nil {
		t.Errorf("%s%v, want\n%s", out.String(), s.err, want)
	}
	out.Reset()
	if err := showContainers(&out, []*protov1.ContainerView{v, {Container: &protov1.Container{Id: "b", CreatedUnixNano: ago(3 * time.Hour)}}}, noon); err != nil {
		t.Fatal(err)
	}
	var ages []string
	for line := range strings.Lines(out.String()) {
		ages = append(ages, strings.Fields(line)[6])
	}
	if !slices.Equal(ages, []string{"AGE", "60s", "3h"}) {
		t.Errorf("%q in\n%s", ages, out.String())
	}
}

func TestTheYoungestContainersComeFirstByAge(t *testing.T) {
	list := []*protov1.ContainerView{
		{Container: &protov1.Container{Name: "old", CreatedUnixNano: ago(time.Hour)}},
		{Container: &protov1.Container{Name: "restarted", CreatedUnixNano: ago(9 * time.Hour), StartedUnixNano: ago(time.Minute)}},
		{Container: &protov1.Container{Name: "b"}}, {Container: &protov1.Container{Name: "a"}},
	}
	s := selection{sort: choice{is: "age"}}
	var names []string
	for _, v := range s.of(list) {
		names = append(names, v.GetContainer().GetName())
	}
	if want := []string{"restarted", "old", "a", "b"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

func TestASheetKeepsTheFirstError(t *testing.T) {
	s := &sheet{out: closedPipe{}}
	showContainer(s, (&figures{}).Containers()[0], nil, noon)
	if s.err == nil || s.err.Error() != "broken pipe" {
		t.Errorf("%v", s.err)
	}
}

func TestTextOfSeveralLinesIsCleanedLineByLine(t *testing.T) {
	if got := cleanLines("a\x1b[2J\n\tb\r\u202e\n"); got != `a\x1b[2J`+"\n\t"+`b\r\u202e`+"\n" {
		t.Errorf("%q", got)
	}
}
