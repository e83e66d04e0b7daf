package filter

import (
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

func TestALabelIsFoundWhateverItsCaseAndChangesWhatIsShownAlone(t *testing.T) {
	var l Labels
	exec := func(path, args string) *event.Event {
		return &event.Event{Kind: event.ProcessExec, Priority: event.Info, Comm: []byte("sh"), Exec: event.Exec{Path: []byte(path), Args: []byte(args)}}
	}
	e := exec("/bin/sh", "sh\x00-c\x00raise Exception\x00")
	if l.Of(e); e.Priority != event.Info {
		t.Error("without labels an event keeps its priority")
	}
	l.Set([]Label{{Texts: []string{"nothing", "EXCEPTION"}, Priority: event.Critical}, {Texts: []string{"raise"}, Priority: event.Debug}})
	if l.Of(e); e.Priority != event.Critical {
		t.Errorf("the first label that is found counts, not %v", e.Priority)
	}
	other := exec("/bin/true", "true\x00")
	if l.Of(other); other.Priority != event.Info {
		t.Errorf("no label is in it, and it is %v", other.Priority)
	}
	// The path of an earlier event is none of this one's.
	open := &event.Event{Kind: event.FileOpen, Exec: e.Exec, Open: event.Open{Path: []byte("/etc/exceptions")}}
	if l.Of(open); open.Priority != event.Critical {
		t.Errorf("an open of it is %v", open.Priority)
	}
	fork := &event.Event{Kind: event.ProcessFork, Exec: e.Exec, Open: open.Open, Comm: []byte("sh")}
	if l.Of(fork); fork.Priority != event.Debug {
		t.Errorf("a fork is %v", fork.Priority)
	}
	if n := testing.AllocsPerRun(100, func() { l.Of(e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
