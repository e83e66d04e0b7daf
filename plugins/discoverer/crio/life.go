package main

import (
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// stage is how far the life of a container is. It only ever goes on: a container of
// the CRI is started once, and a restart makes another. So of two answers, whatever
// their order, the one that is further is the newer.
type stage int

const (
	early stage = iota // its cgroup may be there, but the runtime does not list it yet
	created
	started
	exited
)

func stageOf(s protov1.Container_State) stage {
	switch s {
	case protov1.Container_STATE_CREATED:
		return created
	case protov1.Container_STATE_RUNNING:
		return started
	case protov1.Container_STATE_EXITED:
		return exited
	}
	return early // not told
}

// overlay puts what an answer tells over what is known. What it does not tell stays:
// some answers tell little. Both are used up.
func overlay(said, next *protov1.Container) *protov1.Container {
	if said == nil {
		return next
	}
	if stageOf(next.State) < stageOf(said.State) {
		next.State, next.Pid, next.ExitCode, next.OomKilled = said.State, said.Pid, said.ExitCode, said.OomKilled
		next.StartedUnixNano, next.FinishedUnixNano = said.StartedUnixNano, said.FinishedUnixNano
	}
	out := said
	cut := next.Truncated
	next.Truncated = nil
	put(out.ProtoReflect(), next.ProtoReflect())
	for _, field := range cut {
		if !slices.Contains(out.Truncated, field) {
			out.Truncated = append(out.Truncated, field)
		}
	}
	if stageOf(out.State) == exited {
		out.Pid = 0
	}
	return out
}

// put sets what is told in from; the members of a message one by one.
func put(into, from protoreflect.Message) {
	from.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() != nil && f.Cardinality() != protoreflect.Repeated && into.Has(f) {
			put(into.Mutable(f).Message(), v.Message())
		} else {
			into.Set(f, v)
		}
		return true
	})
}

// advance tells what happened to a container since it was last told of: each step of
// its life once, by whatever answer it became known. now is how it was told of last, at
// the time of a step that the runtime gives no time of.
func (t *tracker) advance(c *tracked, now *protov1.Container, at int64) error {
	to := stageOf(now.State)
	for s := c.stage + 1; s <= to; s++ {
		var err error
		switch s {
		case created:
			err = t.lifecycle(now, "created", or(now.CreatedUnixNano, at), "")
		case started:
			if now.StartedUnixNano == 0 && to == exited {
				continue // it never was
			}
			err = t.lifecycle(now, "started", or(now.StartedUnixNano, at), "")
		case exited:
			when := or(now.FinishedUnixNano, at)
			if now.GetOomKilled() {
				err = t.lifecycle(now, "oom", when, "")
			}
			if err == nil {
				code := ""
				if now.ExitCode != nil {
					code = strconv.Itoa(int(*now.ExitCode))
				}
				err = t.lifecycle(now, "died", when, code)
			}
		}
		if err != nil {
			return err
		}
	}
	c.stage = max(c.stage, to)
	return nil
}

func (t *tracker) lifecycle(c *protov1.Container, action string, at int64, exitCode string) error {
	attributes := map[string]string{"name": c.Name}
	if ref := reference(c.Image); ref != "" {
		attributes["image"] = ref
	}
	if exitCode != "" {
		attributes["exit_code"] = exitCode
	}
	return t.inv.Lifecycle(&protov1.Lifecycle{Container: &protov1.ContainerRef{Id: c.Id}, Action: action, TimeUnixNano: at, Attributes: attributes})
}

// reference of an image, as a user writes it.
func reference(i *protov1.Image) string {
	switch {
	case i.GetName() == "":
		return i.GetId()
	case i.GetTag() != "":
		return i.GetName() + ":" + i.GetTag()
	case i.GetDigest() != "":
		return i.GetName() + "@" + i.GetDigest()
	}
	return i.GetName()
}

func or(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}
