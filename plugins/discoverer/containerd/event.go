package main

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
)

// key names a container: an id is unique within its namespace.
type key struct{ namespace, id string }

// action is what an event tells of.
type action uint8

const (
	noAction action = iota
	containerCreated
	containerUpdated
	containerDeleted
	taskCreated
	taskStarted
	taskExited
	taskOOM
	taskPaused
	taskResumed
	taskDeleted
	imageCreated
	imageUpdated
	imageDeleted
	namespaceDeleted
)

// event is what the tracker wants to know of one of containerd's.
type event struct {
	action action
	key    key    // of an image or a namespace: the namespace alone
	image  string // its name, of a container or by itself
	pid    uint32
	code   uint32 // that a task ended with
	nano   int64  // when it was published
	ended  int64  // when a task ended, 0: not told
}

// topics are those that are asked for. What is executed in a container besides its first
// process is not, but for its end, which comes under the same topic as the container's.
const topics = "^/(containers/(create|update|delete)|tasks/(create|start|exit|oom|paused|resumed|delete)|images/(create|update|delete)|namespaces/delete)$"

// scope says which namespaces are followed.
type scope struct{ only, except []string }

func (s scope) has(namespace string) bool {
	for _, n := range s.except {
		if n == namespace {
			return false
		}
	}
	for _, n := range s.only {
		if n == namespace {
			return true
		}
	}
	return len(s.only) == 0
}

// filters is the scope in the words of a subscription, so that what is not wanted does
// not come: an event is sent that matches one of them.
func (s scope) filters() []string {
	wanted := "topic~=" + strconv.Quote(topics)
	if len(s.only) == 0 {
		for _, n := range s.except {
			wanted += ",namespace!=" + strconv.Quote(n)
		}
		return []string{wanted}
	}
	var out []string
	for _, n := range s.only {
		if s.has(n) {
			out = append(out, wanted+",namespace=="+strconv.Quote(n))
		}
	}
	if out == nil { // all are excluded, and no filter at all would let all through
		out = []string{"topic==none"}
	}
	return out
}

// read gives the event of an envelope; noAction: of no interest.
func read(e *types.Envelope) (event, error) {
	out := event{key: key{namespace: describe.Cut(e.GetNamespace(), describe.MaxName)}, nano: nano(e.GetTimestamp())}
	unmarshal := func(m proto.Message) error {
		if err := unmarshalText(e.GetEvent().GetValue(), m); err != nil {
			return fmt.Errorf("read an event %s: %w", describe.Cut(e.GetTopic(), 64), err)
		}
		return nil
	}
	task := func(a action, id string) { out.action, out.key.id = a, describe.Cut(id, describe.MaxName) }
	var err error
	switch e.GetTopic() {
	case "/containers/create":
		var m eventtypes.ContainerCreate
		err = unmarshal(&m)
		task(containerCreated, m.ID)
		out.image = describe.Cut(m.Image, describe.MaxName)
	case "/containers/update":
		var m eventtypes.ContainerUpdate
		err = unmarshal(&m)
		task(containerUpdated, m.ID)
	case "/containers/delete":
		var m eventtypes.ContainerDelete
		err = unmarshal(&m)
		task(containerDeleted, m.ID)
	case "/tasks/create":
		var m eventtypes.TaskCreate
		err = unmarshal(&m)
		task(taskCreated, m.ContainerID)
		out.pid = m.Pid
	case "/tasks/start":
		var m eventtypes.TaskStart
		err = unmarshal(&m)
		task(taskStarted, m.ContainerID)
		out.pid = m.Pid
	case "/tasks/exit":
		var m eventtypes.TaskExit
		err = unmarshal(&m)
		if m.ID == m.ContainerID || m.ID == "" { // else it was executed in the container
			task(taskExited, m.ContainerID)
		}
		out.pid, out.code, out.ended = m.Pid, m.ExitStatus, nano(m.ExitedAt)
	case "/tasks/oom":
		var m eventtypes.TaskOOM
		err = unmarshal(&m)
		task(taskOOM, m.ContainerID)
	case "/tasks/paused":
		var m eventtypes.TaskPaused
		err = unmarshal(&m)
		task(taskPaused, m.ContainerID)
	case "/tasks/resumed":
		var m eventtypes.TaskResumed
		err = unmarshal(&m)
		task(taskResumed, m.ContainerID)
	case "/tasks/delete":
		var m eventtypes.TaskDelete
		err = unmarshal(&m)
		if m.ID == m.ContainerID || m.ID == "" {
			task(taskDeleted, m.ContainerID)
		}
		out.pid, out.code, out.ended = m.Pid, m.ExitStatus, nano(m.ExitedAt)
	case "/images/create":
		var m eventtypes.ImageCreate
		err = unmarshal(&m)
		out.action, out.image = imageCreated, describe.Cut(m.Name, describe.MaxName)
	case "/images/update":
		var m eventtypes.ImageUpdate
		err = unmarshal(&m)
		out.action, out.image = imageUpdated, describe.Cut(m.Name, describe.MaxName)
	case "/images/delete":
		var m eventtypes.ImageDelete
		err = unmarshal(&m)
		out.action, out.image = imageDeleted, describe.Cut(m.Name, describe.MaxName)
	case "/namespaces/delete":
		var m eventtypes.NamespaceDelete
		err = unmarshal(&m)
		out.action, out.key.namespace = namespaceDeleted, describe.Cut(m.Name, describe.MaxName)
	}
	if err != nil {
		return event{}, err
	}
	return out, nil
}

// nano is a time of containerd's; what is before 1970, as Go's zero time, is 0.
func nano(t *timestamppb.Timestamp) int64 {
	if t == nil || t.GetSeconds() <= 0 {
		return 0
	}
	return t.AsTime().UnixNano()
}

// isDocker tells the namespace in which Docker's engine keeps what it runs. Its
// containers live longer than containerd's that stand for them, so their lives are
// Docker's to tell.
func isDocker(namespace string) bool {
	return namespace == "moby" || strings.HasPrefix(namespace, "plugins.moby")
}
