package main

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventtypes "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
)

func envelope(t testing.TB, topic string, m proto.Message) *types.Envelope {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &types.Envelope{Timestamp: &timestamppb.Timestamp{Seconds: 5}, Namespace: "default", Topic: topic, Event: &anypb.Any{Value: b}}
}

func TestWhatEventsTell(t *testing.T) {
	const sec = int64(1e9)
	at := &timestamppb.Timestamp{Seconds: 7}
	a := key{"default", "a"}
	for _, tt := range []struct {
		name  string
		topic string
		event proto.Message
		want  event
	}{
		{"a container that is created", "/containers/create", &eventtypes.ContainerCreate{ID: "a", Image: "img"}, event{action: containerCreated, key: a, image: "img", nano: 5 * sec}},
		{"a task that starts", "/tasks/start", &eventtypes.TaskStart{ContainerID: "a", Pid: 3}, event{action: taskStarted, key: a, pid: 3, nano: 5 * sec}},
		{"its end", "/tasks/exit", &eventtypes.TaskExit{ContainerID: "a", ID: "a", Pid: 3, ExitStatus: 137, ExitedAt: at}, event{action: taskExited, key: a, pid: 3, code: 137, nano: 5 * sec, ended: 7 * sec}},
		{"the end of what was executed in it", "/tasks/exit", &eventtypes.TaskExit{ContainerID: "a", ID: "shell", Pid: 4, ExitedAt: at}, event{key: key{namespace: "default"}, pid: 4, nano: 5 * sec, ended: 7 * sec}},
		{"a task that is deleted", "/tasks/delete", &eventtypes.TaskDelete{ContainerID: "a", Pid: 3, ExitStatus: 1}, event{action: taskDeleted, key: a, pid: 3, code: 1, nano: 5 * sec}},
		{"what was executed, deleted", "/tasks/delete", &eventtypes.TaskDelete{ContainerID: "a", ID: "shell", Pid: 3}, event{key: key{namespace: "default"}, pid: 3, nano: 5 * sec}},
		{"an image", "/images/create", &eventtypes.ImageCreate{Name: "img"}, event{action: imageCreated, key: key{namespace: "default"}, image: "img", nano: 5 * sec}},
		{"a namespace", "/namespaces/delete", &eventtypes.NamespaceDelete{Name: "gone"}, event{action: namespaceDeleted, key: key{namespace: "gone"}, nano: 5 * sec}},
		{"something of a later edition", "/tasks/celebrate", &eventtypes.TaskPaused{ContainerID: "a"}, event{key: key{namespace: "default"}, nano: 5 * sec}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := read(envelope(t, tt.topic, tt.event))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
	if _, err := read(&types.Envelope{Topic: "/tasks/start", Event: &anypb.Any{Value: []byte{0xff}}}); err == nil {
		t.Error("garbage is taken for an event")
	}
	if got, err := read(&types.Envelope{}); err != nil || got.action != noAction {
		t.Error(got, err)
	}
}

func TestTheNamespacesThatAreFollowed(t *testing.T) {
	for _, tt := range []struct {
		scope   scope
		has     string
		filters []string
	}{
		{scope{}, "abc", []string{`topic~=T`}},
		{scope{except: []string{"a", "b"}}, "c", []string{`topic~=T,namespace!="a",namespace!="b"`}},
		{scope{only: []string{"a", "b"}}, "ab", []string{`topic~=T,namespace=="a"`, `topic~=T,namespace=="b"`}},
		{scope{only: []string{"a"}, except: []string{"a"}}, "", []string{"topic==none"}},
	} {
		for _, n := range []string{"a", "b", "c"} {
			if got, want := tt.scope.has(n), strings.Contains(tt.has, n); got != want {
				t.Errorf("%+v has %q: %v", tt.scope, n, got)
			}
		}
		got := tt.scope.filters()
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], `"`+topics+`"`, "T")
		}
		if !slices.Equal(got, tt.filters) {
			t.Errorf("%+v: %q, want %q", tt.scope, got, tt.filters)
		}
	}
}

func TestTextsThatAreNotUTF8AreRepaired(t *testing.T) {
	in := &containersapi.ListContainerMessage{Container: &containersapi.Container{
		ID: "a", Labels: map[string]string{"key!": "value!", "good": "päth"}, Spec: &anypb.Any{TypeUrl: "t", Value: []byte("bytes\xff")},
	}}
	b, err := proto.Marshal(in)
	must(t, err)
	bad := []byte(strings.ReplaceAll(string(b), "!", "\xfe"))
	var out containersapi.ListContainerMessage
	must(t, codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(bad)}, &out))
	c := out.GetContainer()
	if c.Labels["key?"] != "value?" || c.Labels["good"] != "päth" || string(c.Spec.Value) != "bytes\xff" {
		t.Error(c)
	}
	if err := unmarshalText([]byte{0xff, 0xff}, &out); err == nil {
		t.Error("what is no message is taken for one")
	}
}

// Whatever bytes come, reading them ends, and every text of what was read is UTF-8.
func FuzzContainer(f *testing.F) {
	good, err := proto.Marshal(&containersapi.Container{
		ID: "a", Image: "docker.io/library/x:1", Labels: map[string]string{"k": "v", labelKind: "sandbox", labelPorts: "[]"},
		Spec:       &anypb.Any{TypeUrl: specType, Value: []byte(`{"process":{"args":["a"]},"linux":{"cgroupsPath":"a.slice:b:c"}}`)},
		Extensions: map[string]*anypb.Any{sandboxExtension: {Value: []byte(`{"Metadata":{"IP":"1.2.3.4"}}`)}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.ReplaceAll(string(good), "a", "\xff")))
	c := defaults()
	c.Env, c.EnvExclude = true, nil
	d := newDescriber(c)
	f.Fuzz(func(t *testing.T, b []byte) {
		var in containersapi.Container
		if unmarshalText(b, &in) != nil {
			return
		}
		out := d.container("default", &in)
		if _, err := proto.Marshal(out); err != nil {
			t.Error(err)
		}
		if n := proto.Size(out); n > 200<<10 {
			t.Errorf("a description of %d bytes", n)
		}
	})
}

func FuzzEvent(f *testing.F) {
	for _, topic := range []string{"/containers/create", "/containers/update", "/containers/delete", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/oom",
		"/tasks/paused", "/tasks/resumed", "/tasks/delete", "/images/create", "/images/update", "/images/delete", "/namespaces/delete"} {
		f.Add(topic, []byte{0x0a, 0x01, 'a'})
	}
	f.Fuzz(func(t *testing.T, topic string, b []byte) {
		e, err := read(&types.Envelope{Topic: topic, Namespace: "default", Event: &anypb.Any{Value: b}})
		if err == nil && (!utf8.ValidString(e.key.id) || !utf8.ValidString(e.image) || len(e.key.id) > describe.MaxName) {
			t.Errorf("%+v", e)
		}
	})
}
