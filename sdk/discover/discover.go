// Package discover is what the author of a discoverer implements: the kind of
// plugin that finds the workloads of one container runtime or orchestrator.
package discover

import (
	"context"
	"errors"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ErrAbsent is returned by Detect when the runtime is not on this host.
// It tells "not here" from "broken".
var ErrAbsent = errors.New("runtime is not on this host")

// Discoverer finds the workloads of one runtime. Its life:
//
//  1. It is built by New, which does not wait for the runtime: a runtime that is
//     away is no error there.
//  2. Detect may be called at any time from then on, also while Discover runs. It is
//     cheap, has no side effect and returns within two seconds. It decides whether
//     discoverer "auto" starts the plugin, which asks it in a process of its own, again
//     when something changes at the sockets and paths of the manifest.
//  3. Discover is called once the daemon wants the inventory and runs until ctx is
//     done. It begins a snapshot with inv.Reset, tells everything there is, and ends
//     it with inv.Synced.
//  4. Then it tells every change, from the runtime's create on: the daemon names the
//     first process of a container by what was said before that process ran.
//  5. When the runtime goes away Discover does not return: it says so with
//     inv.Degraded, tries again by itself (package backoff) and sends a new snapshot,
//     from Reset to Synced, when the runtime is back. What was told before stays in
//     force until then.
//  6. When ctx is done Discover returns, at once; half a second later its process is
//     ended.
//  7. After an error, or a stream that broke, Discover is called again, with pauses
//     that grow, and starts over at 3. It is never called twice at a time.
//
// Errors that Discover returns end up in the daemon's log and in `get plugins`: say
// what to do about them.
type Discoverer interface {
	// Detect tells where the runtime was found, or returns ErrAbsent with what was
	// looked for. Any other error says that it can't be told now.
	Detect(ctx context.Context) (detail string, err error)
	Discover(ctx context.Context, host Host, inv Inventory) error
}

// Host is what the daemon tells a discoverer while it runs.
type Host interface {
	// Node says who and where the host is.
	Node() *protov1.Node
	// Facts subscribes to the host's facts and delivers them in order. The
	// channel is closed when the stream ends. Call it at most once, and then
	// read it: facts that are not read in time are dropped, counted, and told
	// again as a new list. Of a cgroup that came and went within a tenth of a second
	// and whose container was known before, there is no fact.
	Facts(*protov1.Subscribe) <-chan *protov1.HostFacts
}

// Inventory takes what a discoverer found. A message given to it is no longer the
// caller's. Its methods may be called from several goroutines; calls of one
// goroutine keep their order, so let one goroutine speak for one workload: a
// description that comes after a removal creates the workload again. They gather
// changes into batches and block only when the daemon is slower than the
// runtime; they return ctx's error when Discover's context is done. A change after a
// pause is sent at once, others within 5 ms, and what nobody waits for, a removal or a
// word of Lifecycle, within 100 ms or with the next change. Of descriptions of one
// container that follow one another in a batch only the last is sent.
type Inventory interface {
	// Reset begins a snapshot.
	Reset() error
	// Synced ends the snapshot, and tells the daemon that the plugin is healthy.
	Synced() error
	// Container describes a container, whole.
	Container(*protov1.Container) error
	// Pod describes a pod, whole.
	Pod(*protov1.Pod) error
	// Service describes a service, whole.
	Service(*protov1.Service) error
	// RemoveContainer forgets a container. The daemon keeps its description
	// for the events that are still on their way.
	RemoveContainer(*protov1.ContainerRef) error
	// RemovePod forgets a pod.
	RemovePod(uid string) error
	// RemoveService forgets a service.
	RemoveService(uid string) error
	// Lifecycle reports something that happened to a container, which was described
	// before and is removed after. Each becomes an event of the daemon's, with the
	// container as it was last described; one that repeats what is known does not.
	Lifecycle(*protov1.Lifecycle) error
	// Considered answers a cgroup fact, of a subscription with claims, that is of
	// none of the plugin's containers. The cgroup's first events wait for it.
	Considered(cgroupID uint64) error
	// Degraded says that the runtime does not answer: a sentence for the
	// operator. Synced takes it back.
	Degraded(reason string)
}
