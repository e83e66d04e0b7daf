package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func trackerFor(t *testing.T) (*tracker, *recorder) {
	t.Helper()
	r := newRecorder(t)
	tr := newTracker(r)
	tr.describe = &describer{filter: describe.NewFilter(describe.DefaultFilter()), cgroups: cgroups{engine: engine{runtime: "docker", cgroupDriver: "cgroupfs"}}}
	return tr, r
}

// connectedTo gives a tracker whose snapshot of a list is complete.
func connectedTo(t *testing.T, list ...container.Summary) (*tracker, *recorder) {
	t.Helper()
	tr, r := trackerFor(t)
	must(t, tr.connected())
	tr.beginList()
	must(t, tr.listed(list, true))
	for {
		req, ok := tr.next()
		if !ok {
			break
		}
		must(t, tr.inspected(req, nil, inspectGone))
	}
	r.log = nil
	return tr, r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var clock int64

func event(id string, action events.Action, attributes ...string) *events.Message {
	clock++
	m := &events.Message{Type: events.ContainerEventType, Action: action, TimeNano: clock,
		Actor: events.Actor{ID: id, Attributes: map[string]string{"name": "n-" + id, "image": "img:1"}}}
	for i := 0; i < len(attributes); i += 2 {
		m.Actor.Attributes[attributes[i]] = attributes[i+1]
	}
	return m
}

func answer(id string, s protov1.Container_State) *protov1.Container {
	return &protov1.Container{Id: id, Name: "n-" + id, Image: &protov1.Image{Name: "img", Tag: "1"}, Runtime: "docker", State: s, Hostname: "inspected"}
}

func summary(id, st string) container.Summary {
	return container.Summary{ID: id, Names: []string{"/n-" + id}, Image: "img:1", State: container.ContainerState(st)}
}

func TestACreateEventNamesAContainerAtOnce(t *testing.T) {
	tr, r := connectedTo(t)
	must(t, tr.event(event("a", events.ActionCreate, "label", "value")))
	c := r.container("a")
	if c.GetName() != "n-a" || c.Image.Name != "img" || c.Image.Tag != "1" || c.Labels["label"] != "value" || len(c.Labels) != 1 || c.State != protov1.Container_STATE_CREATED {
		t.Error(c)
	}
	if got := strings.Join(r.log, "; "); got != "container a n-a created; lifecycle a created" {
		t.Error(got)
	}
}

func TestTheListAndTheEventsLeaveNoGap(t *testing.T) {
	for _, tt := range []struct {
		name string
		// known before, by an earlier connection; list; events while the list was made
		known []string
		list  []container.Summary
		while []*events.Message
		want  string
	}{
		{"what the list tells", nil, []container.Summary{summary("a", "running")}, nil, "a:running"},
		{"created while the list was made, and not in it", nil, nil, []*events.Message{event("b", events.ActionCreate)}, "b:created"},
		{"created while the list was made, and in it", nil, []container.Summary{summary("b", "created")}, []*events.Message{event("b", events.ActionCreate), event("b", events.ActionStart)}, "b:running"},
		{"destroyed while the list was made, but in it", nil, []container.Summary{summary("a", "running")}, []*events.Message{event("a", events.ActionDie), event("a", events.ActionDestroy)}, ""},
		{"known before and gone", []string{"old"}, nil, nil, ""},
		{"known before, and ended while there was no connection", []string{"old"}, []container.Summary{summary("old", "exited")}, nil, "old:exited"},
		{"known before, and ended while the list was made", []string{"old"}, []container.Summary{summary("old", "running")}, []*events.Message{event("old", events.ActionDie)}, "old:exited"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, r := trackerFor(t)
			if len(tt.known) > 0 {
				must(t, tr.connected())
				for _, id := range tt.known {
					must(t, tr.event(event(id, events.ActionStart)))
				}
				tr.disconnected()
			}
			must(t, tr.connected())
			tr.beginList()
			for _, m := range tt.while {
				must(t, tr.event(m))
			}
			must(t, tr.listed(tt.list, true))
			for range 100 {
				if req, ok := tr.next(); ok {
					must(t, tr.inspected(req, nil, inspectGone))
				}
			}
			if r.syncs != 1 || r.inSnapshot {
				t.Fatalf("%d synced, in a snapshot %v", r.syncs, r.inSnapshot)
			}
			if got := known(r); got != tt.want {
				t.Errorf("got %q, want %q; told %q", got, tt.want, r.log)
			}
		})
	}
}

func known(r *recorder) string {
	var out []string
	for id, c := range r.containers {
		out = append(out, id+":"+strings.ToLower(strings.TrimPrefix(c.State.String(), "STATE_")))
	}
	return strings.Join(out, " ")
}

func TestAnEmptyHostIsSyncedAtOnce(t *testing.T) {
	tr, r := trackerFor(t)
	must(t, tr.connected())
	tr.beginList()
	must(t, tr.listed(nil, true))
	if got := strings.Join(r.log, " "); got != "reset synced" {
		t.Error(got)
	}
}

func TestAResyncTellsOnlyWhatDiffers(t *testing.T) {
	tr, r := connectedTo(t, summary("same", "running"), summary("ended", "running"), summary("gone", "running"))
	tr.beginList()
	must(t, tr.listed([]container.Summary{summary("same", "running"), summary("ended", "exited"), summary("missed", "running")}, false))
	want := map[string]bool{"container ended n-ended exited": true, "container missed n-missed running": true, "remove gone": true}
	for _, l := range r.log {
		if !want[l] {
			t.Errorf("told %q", l)
		}
		delete(want, l)
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", want)
	}
}

func TestThereIsRoomForSoManyContainersOnly(t *testing.T) {
	tr, r := connectedTo(t)
	for i := range maxContainers + 9 {
		must(t, tr.event(event(fmt.Sprint("c", i), events.ActionCreate)))
	}
	tr.beginList()
	must(t, tr.listedOne(new(summary("listed", "running")), false))
	if len(r.containers) != maxContainers || tr.refused != 10 {
		t.Errorf("%d told, %d refused", len(r.containers), tr.refused)
	}
	must(t, tr.event(event("c0", events.ActionDestroy)))
	must(t, tr.event(event("new", events.ActionCreate)))
	if r.container("new") == nil {
		t.Error("no room after a removal")
	}
}

// Whatever the order in which lists, answers and events come: at the end, with
// everything answered, what is told is what is true.
func TestAnyOrderEndsInTheTruth(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		tr, r := trackerFor(t)
		truth := map[string]protov1.Container_State{}
		type inFlight struct {
			req request
			ans *protov1.Container
		}
		var flights []inFlight
		var pending []*events.Message
		look := func(id string) *protov1.Container {
			if s, ok := truth[id]; ok {
				return answer(id, s)
			}
			return nil
		}
		land := func(i int) {
			f := flights[i]
			flights = append(flights[:i], flights[i+1:]...)
			how := inspectOK
			if f.ans == nil {
				how = inspectGone
			}
			must(t, tr.inspected(f.req, f.ans, how))
		}
		var list []container.Summary
		listing, snapshot := false, false
		takeList := func() {
			list = nil
			for id, s := range truth {
				list = append(list, summary(id, strings.ToLower(strings.TrimPrefix(s.String(), "STATE_"))))
			}
		}
		must(t, tr.connected())
		tr.beginList()
		listing, snapshot = true, true
		takeList()
		for range 200 {
			switch id := fmt.Sprint("c", rnd.IntN(4)); rnd.IntN(8) {
			case 0, 1: // the world moves on
				s, ok := truth[id]
				switch {
				case !ok:
					truth[id] = protov1.Container_STATE_CREATED
					pending = append(pending, event(id, events.ActionCreate))
				case s == protov1.Container_STATE_RUNNING:
					truth[id] = protov1.Container_STATE_EXITED
					pending = append(pending, event(id, events.ActionDie, "exitCode", "0"))
				case rnd.IntN(2) == 0:
					truth[id] = protov1.Container_STATE_RUNNING
					pending = append(pending, event(id, events.ActionStart))
				default:
					delete(truth, id)
					pending = append(pending, event(id, events.ActionDestroy))
				}
			case 2, 3: // an event arrives
				if len(pending) > 0 {
					must(t, tr.event(pending[0]))
					pending = pending[1:]
				}
			case 4: // an inspect is sent, and answered from what is true now
				if req, ok := tr.next(); ok {
					flights = append(flights, inFlight{req, look(req.id)})
				}
			case 5:
				if len(flights) > 0 {
					land(rnd.IntN(len(flights)))
				}
			case 6:
				if listing && rnd.IntN(2) == 0 {
					takeList() // made at any time between question and answer
				}
			case 7:
				if listing {
					must(t, tr.listed(list, snapshot))
					listing = false
				} else if tr.settled() {
					tr.beginList()
					listing, snapshot = true, false
					takeList()
				}
			}
		}
		for _, m := range pending {
			must(t, tr.event(m))
		}
		if listing {
			must(t, tr.listed(list, snapshot))
		}
		for n := 0; ; n++ {
			for len(flights) > 0 {
				land(0)
			}
			req, ok := tr.next()
			if !ok {
				break
			}
			if n > 1000 {
				t.Fatalf("seed %d: it never settles", seed)
			}
			flights = append(flights, inFlight{req, look(req.id)})
		}
		if r.syncs != 1 || !tr.settled() {
			t.Fatalf("seed %d: %d synced, settled %v", seed, r.syncs, tr.settled())
		}
		for id, s := range truth {
			if c := r.container(id); c.GetState() != s || c.GetHostname() != "inspected" {
				t.Fatalf("seed %d: %s is %v, told %v", seed, id, s, c)
			}
		}
		if len(r.containers) != len(truth) {
			t.Fatalf("seed %d: %d containers told, %d there", seed, len(r.containers), len(truth))
		}
	}
}
