package main

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/moby/moby/api/types/events"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// actionCleanup is Podman's: it has taken an ended container's network and mounts away,
// which it does some time after it has told of the end.
const actionCleanup events.Action = "cleanup"

// canonical gives Docker's name of an action; Podman has its own for some.
// What is of no interest is "".
func canonical(a events.Action) events.Action {
	switch a {
	case events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionPause, events.ActionUnPause,
		events.ActionRename, events.ActionUpdate, events.ActionDestroy, events.ActionKill:
		return a
	case "died":
		return events.ActionDie
	case events.ActionRemove:
		return events.ActionDestroy
	case actionCleanup:
		return a
	}
	return ""
}

// fromEvent describes a container by the attributes of an event: the labels,
// and beside them a few words of the engine.
func (t *tracker) fromEvent(m *events.Message) *protov1.Container {
	labels := make(map[string]string, len(m.Actor.Attributes))
	for k, v := range m.Actor.Attributes {
		switch k {
		case "name", "image", "exitCode", "containerExitCode", "execDuration", "oldName", "signal", "podId":
		default:
			labels[k] = v
		}
	}
	a := m.Actor.Attributes
	clip := &describe.Clip{}
	c := t.describe.base(clip, m.Actor.ID, a["name"], a["image"], labels)
	return t.describe.finish(clip, c)
}

// apply changes a description as the event says, and returns the lifecycle's
// word for it.
func apply(c *protov1.Container, memory *tracked, action events.Action, m *events.Message) string {
	switch action {
	case events.ActionCreate:
		c.State, c.CreatedUnixNano = protov1.Container_STATE_CREATED, m.TimeNano
		return "created"
	case events.ActionStart:
		c.State, c.StartedUnixNano = protov1.Container_STATE_RUNNING, m.TimeNano
		c.ExitCode, c.OomKilled, memory.signal, memory.oom = nil, nil, "", false
		return "started"
	case events.ActionDie:
		c.State, c.FinishedUnixNano, c.Pid = protov1.Container_STATE_EXITED, m.TimeNano, 0
		if code, ok := exitCode(m); ok {
			c.ExitCode = &code
		}
		return "died"
	case events.ActionOOM:
		c.OomKilled, memory.oom = proto.Bool(true), true
		return "oom"
	case events.ActionPause:
		c.State = protov1.Container_STATE_PAUSED
		return "paused"
	case events.ActionUnPause:
		c.State = protov1.Container_STATE_RUNNING
		return "unpaused"
	case events.ActionKill:
		memory.signal = m.Actor.Attributes["signal"]
	case events.ActionRename:
		c.Name = describe.Cut(strings.TrimPrefix(m.Actor.Attributes["name"], "/"), describe.MaxName)
	}
	return ""
}

func exitCode(m *events.Message) (int32, bool) {
	s, ok := m.Actor.Attributes["exitCode"]
	if !ok {
		s = m.Actor.Attributes["containerExitCode"]
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil
}

func (t *tracker) lifecycle(c *tracked, now *protov1.Container, word string, m *events.Message) error {
	l := &protov1.Lifecycle{Container: &protov1.ContainerRef{Id: now.Id}, Action: word, TimeUnixNano: m.TimeNano,
		Attributes: map[string]string{"name": now.Name, "image": describe.Cut(m.Actor.Attributes["image"], describe.MaxName)}}
	if word == "died" {
		if code, ok := exitCode(m); ok {
			l.Attributes["exit_code"] = strconv.Itoa(int(code))
			// A signal was sent; the code tells that it was what ended it.
			if n, err := strconv.Atoi(c.signal); err == nil && int(code) == 128+n {
				l.Attributes["signal"] = c.signal
			}
		}
	}
	return t.inv.Lifecycle(l)
}
