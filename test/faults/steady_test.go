package faults

import (
	"fmt"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// steady is a load of 2,000 execs a second for as long as a test needs it.
type steady struct {
	t        *testing.T
	prefix   string
	stop     chan struct{}
	did      chan []load.ExecCounts
	failed   error // after did
	prefixes []string
}

const rate = 2000

func startSteady(t *testing.T, p *load.Programs) *steady {
	s := &steady{t: t, prefix: tag(), stop: make(chan struct{}), did: make(chan []load.ExecCounts, 1)}
	go func() {
		var did []load.ExecCounts
		defer func() { s.did <- did }()
		for n := 0; ; n++ {
			select {
			case <-s.stop:
				return
			default:
			}
			prefix := fmt.Sprintf("%s%d:", s.prefix, n)
			c, err := p.RunExec(t.Context(), "-n", fmt.Sprint(rate/2), "-r", fmt.Sprint(rate), "-p", "2", "-a", prefix, p.Noop)
			if err != nil {
				s.failed = err
				return
			}
			did = append(did, c)
			s.prefixes = append(s.prefixes, prefix)
		}
	}()
	return s
}

// end ends the load and gives its own counts, in its parts and in all.
func (s *steady) end() (parts []load.ExecCounts, sum load.ExecCounts) {
	s.t.Helper()
	close(s.stop)
	parts = <-s.did
	if s.failed != nil {
		s.t.Fatal(s.failed)
	}
	for _, c := range parts {
		sum.Execs += c.Execs
		sum.Forks += c.Forks
		sum.Exits += c.Exits
		sum.Seconds += c.Seconds
	}
	return parts, sum
}

// check checks that each exec was told once.
func (s *steady) check(events []harness.Event, parts []load.ExecCounts) {
	s.t.Helper()
	for n, did := range parts {
		checkOnce(s.t, events, s.prefixes[n], did)
	}
}
