package pluginhost

import (
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// State of a plugin.
type State string

const (
	Starting State = "starting" // its process is being started and configured
	Running  State = "running"  // its stream is open and it is healthy
	Degraded State = "degraded" // it lives; what it depends on, or its stream, does not
	Backoff  State = "backoff"  // it failed and is started again after a pause
	Failed   State = "failed"   // it failed too often, or refuses its configuration
	Stopped  State = "stopped"  // by the daemon
)

// Status is a snapshot of a plugin.
type Status struct {
	Kind     config.PluginKind
	Name     string
	Version  string // "" until it has been started
	State    State
	Since    time.Time // of the state
	PID      int       // 0: no process
	Restarts uint64    // total
	Replaced uint64    // total, by Replace; no restarts
	Reason   string    // of degraded, backoff and failed
	// LastError is why a process of it ended last, by itself or given up; kept
	// when the plugin runs again. "": none has.
	LastError string
	// QueueDepth is how many items wait to be sent to the plugin, QueueDropped
	// the total of those that could not wait and were told again as a list.
	QueueDepth   uint64
	QueueDropped uint64
	Refused      uint64   // total of items from the plugin that broke the contract
	MemoryBytes  uint64   // resident set of its process
	CPUSeconds   float64  // total over all its processes
	LastStderr   []string // oldest first, over all its processes
	Program      string   // what is run
	Digest       string   // of all its files, SHA-256 in hexadecimal; "": not hashed
	Confinement  Confinement
}

// Status is a snapshot of the plugin. It reads /proc and waits for nobody.
func (p *Plugin) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{
		Kind: p.spec.Entry.Manifest.Kind, Name: p.spec.Entry.Manifest.Name,
		Version: p.version, State: p.state, Since: p.since, Restarts: p.restarts, Replaced: p.replaced, Reason: p.reason, LastError: p.lastError,
		CPUSeconds: p.pastCPU.Seconds(), LastStderr: p.out.last(), Refused: p.refused.Load(),
	}
	s.QueueDepth, s.QueueDropped = p.queue()
	for _, i := range p.retired {
		s.CPUSeconds += i.proc.used().cpuSeconds
	}
	s.Program = p.spec.Entry.Program
	if b := p.spec.Entry.Bundle; b != nil {
		s.Program, s.Digest = b.Path(), b.Digest
	}
	if p.inst != nil {
		s.Confinement = p.inst.confinement()
		u := p.inst.proc.used()
		s.CPUSeconds += u.cpuSeconds
		if p.inst.proc.alive() {
			s.PID, s.MemoryBytes = p.inst.proc.pid(), u.rss
		}
	}
	return s
}

// used is what a process uses, or what it has used once it has ended.
func (p *process) used() procUsage {
	if p.alive() {
		if u, err := readProc(p.pid()); err == nil {
			return u
		}
		// It ends this moment: the kernel has not told yet what it used.
	}
	select {
	case <-p.exited:
		return procUsage{cpuSeconds: p.usage.Seconds()}
	default:
		return procUsage{}
	}
}

// setState records a state. The time is that of the first report of it.
func (p *Plugin) setState(s State, reason string) {
	p.mu.Lock()
	changed := p.state != s || p.reason != reason
	if p.state != s {
		p.since = time.Now()
	}
	p.state, p.reason = s, reason
	p.mu.Unlock()
	if !changed {
		return
	}
	switch s {
	case Failed:
		p.log.Error("plugin has failed and stays off", "reason", reason)
	case Backoff, Degraded:
		p.log.Warn("plugin is "+string(s), "reason", reason)
	default:
		p.log.Info("plugin is " + string(s))
	}
}
