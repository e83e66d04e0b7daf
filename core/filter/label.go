package filter

import (
	"bytes"
	"sync/atomic"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
)

// Label gives the events in which one of its texts is found another priority: in what is
// shown of them, for the kernel has decided by then.
type Label struct {
	Texts    []string
	Priority event.Priority
}

// Labels are those in force. Of is for one goroutine, Set for any.
type Labels struct {
	labels atomic.Pointer[[]lowered]
	buffer []byte
}

type lowered struct {
	texts    [][]byte
	priority event.Priority
}

// Set replaces all of them.
func (l *Labels) Set(labels []Label) {
	next := make([]lowered, len(labels))
	for i, x := range labels {
		next[i].priority = x.Priority
		for _, text := range x.Texts {
			next[i].texts = append(next[i].texts, bytes.ToLower([]byte(text)))
		}
	}
	l.labels.Store(&next)
}

// Of gives an event the priority of the first label that is in it: in the name of its
// process, a path or an argument, whatever the case of its ASCII letters.
func (l *Labels) Of(e *event.Event) {
	labels := l.labels.Load()
	if labels == nil || len(*labels) == 0 {
		return
	}
	b := append(append(l.buffer[:0], e.Comm...), 0)
	switch e.Kind {
	case event.ProcessExec:
		b = append(append(append(b, e.Exec.Path...), 0), e.Exec.Args...)
	case event.FileOpen:
		b = append(b, e.Open.Path...)
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	l.buffer = b
	for _, x := range *labels {
		for _, text := range x.texts {
			if bytes.Contains(b, text) {
				e.Priority = x.priority
				return
			}
		}
	}
}
