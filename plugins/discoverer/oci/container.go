package main

import (
	"hash/maphash"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// container is one directory of a root, from its making to its end.
type container struct {
	root  *root
	id    string
	order uint64    // in which directories were heard of
	since time.Time // when

	wd       int32 // of its directory; -1: not watched
	cgroupWd int32 // of its cgroup's events

	seen    bool // its state was read
	said    bool // it was told of
	made    *protov1.Container
	problem string // why its state can't be read; "": it can
	stamp   stateStamp

	pid     uint32
	start   uint64
	created int64
	running bool // the runtime got as far as a process
	fifo    bool // it waits to be started
	status  string
	freezer string

	path    string // on the default hierarchy; "": not known
	guessed bool   // by the cgroup's name
	cgroup  uint64 // 0: not known
	gone    bool   // its cgroup is gone

	phase    protov1.Container_State // as told last
	started  int64
	finished int64
	unfifoed int64  // when the fifo was taken away; 0: that was not seen
	sum      uint64 // of what was told last
}

// alive tells the states in which there is a process.
func alive(s protov1.Container_State) bool {
	switch s {
	case protov1.Container_STATE_CREATED, protov1.Container_STATE_RUNNING, protov1.Container_STATE_PAUSED:
		return true
	}
	return false
}

// description is what to tell now.
func (c *container) description(claims bool) *protov1.Container {
	d := proto.CloneOf(c.made)
	d.State, d.StartedUnixNano, d.FinishedUnixNano = c.phase, c.started, c.finished
	if alive(c.phase) {
		d.Pid = c.pid
	}
	d.CgroupId = c.cgroup
	if claims {
		d.CgroupPath = c.path
	}
	return d
}

// hash tells one description from another.
func hash(seed maphash.Seed, c *protov1.Container) uint64 {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return 0 // it is told again, which refuses it with the same error
	}
	return maphash.Bytes(seed, raw)
}
