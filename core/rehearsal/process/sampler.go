package process

import (
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Sampler is a process of a sampler at work. It is for one goroutine.
type Sampler struct {
	probe    *pluginhost.Probe
	interval time.Duration
	stream   *stream
	ended    func() string // how its process has; "": it has not
	away     string
}

// Interval between reports, as the daemon would have it.
func (s *Sampler) Interval() time.Duration { return s.interval }

// PID of the process, in the host's view.
func (s *Sampler) PID() int { return s.probe.PID() }

// Ask sends a report and gives the answer; report nil is the start, which is asked
// first and once. The answer is nil from the moment on when the sampler is away. An
// error says only that the context of Start is done.
func (s *Sampler) Ask(report *protov1.Report) (*protov1.Answer, error) {
	if s.away != "" {
		return nil, s.stream.parent.Err()
	}
	a, err := s.stream.ask(report)
	if err == nil {
		return a, nil
	}
	if err := s.stream.parent.Err(); err != nil {
		return nil, err
	}
	s.stream.cancel(err)
	s.away = err.Error()
	// The end of its process says more than that of its stream.
	if how := s.ended(); how != "" {
		s.away = how
	}
	return nil, nil
}

// Away says why the sampler answers no more; "": it does.
func (s *Sampler) Away() string { return s.away }

// Close ends the process, by asking it first.
func (s *Sampler) Close() {
	s.stream.cancel(nil)
	s.probe.Close()
}
