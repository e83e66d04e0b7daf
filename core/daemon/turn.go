package daemon

import (
	"sync"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/load"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// turn stands between a sampler and the governor, which hears one sampler at a
// time. When one takes over from another it is started before it is its turn: till
// then it hears of no load, which is the other's to hear of, and what it answers
// waits.
type turn struct {
	governor *load.Governor

	mu    sync.Mutex
	mine  bool
	since time.Time       // of the last report
	said  *protov1.Answer // the last policy that waits; nil: none
}

// begin makes it this sampler's turn. It must be no other's.
func (t *turn) begin(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mine = true
	t.governor.SetSampler(name)
	if t.said != nil {
		t.governor.Answer(t.said)
		t.said = nil
	}
}

// end ends the turn. The policy in force goes on until its time is up.
func (t *turn) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mine = false
}

func (t *turn) report() *protov1.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mine {
		return t.governor.Report()
	}
	now := time.Now()
	r := &protov1.Report{TimeUnixNano: now.UnixNano(), IntervalNano: int64(now.Sub(t.since))}
	t.since = now
	return r
}

func (t *turn) answer(a *protov1.Answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mine {
		t.governor.Answer(a)
		return
	}
	if a.GetPolicy() != nil { // one that keeps it says nothing new
		t.said = a
	}
}
