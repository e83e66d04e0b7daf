package exporter

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/inventory"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

var clock = NewClock(func() (int64, int64) { return 1_700_000_000_000_000_000, 0 })

func workload() *inventory.Workload {
	w := &inventory.Workload{
		Container: &protov1.Container{
			Id: strings.Repeat("a1", 32), Name: "web-1", Runtime: "docker",
			Image:  &protov1.Image{Name: "registry.example:5000/shop/web", Tag: "1.2", Digest: "sha256:00"},
			Labels: map[string]string{"app": "shop", "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop"},
		},
		Mesh: &protov1.MeshFact{Mesh: "istio", Role: protov1.MeshFact_ROLE_WORKLOAD, Proxy: "envoy",
			Attributes: map[string]string{"version": "1.2", "name": "spoofed"}},
	}
	w.Fragment = Fragment(w)
	return w
}

func encoded(t testing.TB, e *event.Event, a pipeline.Attribution) map[string]any {
	t.Helper()
	line := NewEncoder("node-1", clock).Append(nil, e, a)
	if !utf8.Valid(line) || line[len(line)-1] != '\n' || strings.Count(string(line), "\n") != 1 {
		t.Fatalf("not one line of UTF-8: %q", line)
	}
	var out map[string]any
	if err := json.Unmarshal(line, &out); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return out
}

func at(m map[string]any, path string) any {
	var v any = m
	for name := range strings.SplitSeq(path, "/") {
		o, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = o[name]
	}
	return v
}

func TestALineHasTheNamesOfTheConventions(t *testing.T) {
	exec := &event.Event{
		Kind: event.ProcessExec, Priority: event.Info, TimeNS: 1_000_000_042, Threshold: event.Threshold(0.25),
		PID: 100, TID: 100, NSPID: 7, NSTID: 7, UID: 33, ParentPID: 99, PIDNS: 1, MountNS: 2, NetNS: 3,
		Comm: []byte("nginx"),
		Exec: event.Exec{Path: []byte("/usr/sbin/nginx"), Args: []byte("nginx\x00-g\x00daemon off;\x00")},
	}
	exit := &event.Event{Kind: event.ProcessExit, Priority: event.Critical, PID: 1, TID: 2, NSPID: 1, Comm: []byte("x"),
		Flags: event.CoreDumped, Exit: event.Exit{DurationNS: 1_500_000_000, Code: 0, Signal: 11}}
	closed := &event.Event{Kind: event.NetworkClose, PID: 5, TID: 5, NSPID: 5, Network: event.Network{
		Cookie: 77, DurationNS: 42, Sent: 10, Received: 20,
		LocalAddr: []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}, PeerAddr: []byte{0x20, 1, 13: 0, 15: 1},
		LocalPort: 80, PeerPort: 4000}}
	failed := &event.Event{Kind: event.NetworkConnectFailed, PID: 5, TID: 5, NSPID: 5, Network: event.Network{
		LocalAddr: []byte{0, 0, 0, 0}, PeerAddr: []byte{10, 0, 0, 1}, PeerPort: 443, Errno: 111}}
	listen := &event.Event{Kind: event.NetworkListen, PID: 5, TID: 5, NSPID: 5, Network: event.Network{
		LocalAddr: []byte{0, 0, 0, 0}, PeerAddr: []byte{0, 0, 0, 0}, LocalPort: 8080, Backlog: 128}}
	open := &event.Event{Kind: event.FileOpen, PID: 5, TID: 5, NSPID: 5, Open: event.Open{
		Flags: 0o100, Result: -2, DirFD: -100, Path: []byte("/etc/none")}}
	old := &event.Event{Kind: event.NetworkClose, Flags: event.OwnerUnknown, Network: event.Network{
		LocalAddr: []byte{1, 2, 3, 4}, PeerAddr: []byte{1, 2, 3, 4}}}

	w := pipeline.Attribution{Workload: workload()}
	for _, c := range []struct {
		name string
		e    *event.Event
		a    pipeline.Attribution
		want map[string]any
	}{
		{"an exec of a container", exec, w, map[string]any{
			"time": "2023-11-14T22:13:21.000000042Z", "kind": "process.exec", "priority": "info", "weight": 4.0,
			"host/name": "node-1", "process/pid": 100.0, "process/vpid": 7.0, "process/parent_pid": 99.0,
			"process/executable/path": "/usr/sbin/nginx", "process/user/id": 33.0, "process/comm": "nginx",
			"process/command_args": []any{"nginx", "-g", "daemon off;"}, "process/namespace/net": 3.0,
			"container/id": strings.Repeat("a1", 32), "container/name": "web-1", "container/image/name": "registry.example:5000/shop/web",
			"container/image/tags": []any{"1.2"}, "container/label/app": "shop", "container/runtime/name": "docker",
			"k8s/pod/name": "web-0", "k8s/namespace/name": "shop", "mesh/name": "istio", "mesh/proxy/name": "envoy",
			"mesh/version": "1.2", "pending": nil,
		}},
		{"an exit by a signal", exit, pipeline.Attribution{}, map[string]any{
			"process/exit/signal": 11.0, "process/exit/signal_name": "SIGSEGV", "process/exit/core_dumped": true,
			"process/duration": 1.5, "process/thread/id": 2.0, "container": nil, "weight": 1.0}},
		{"a close", closed, pipeline.Attribution{}, map[string]any{
			"network/local/address": "127.0.0.1", "network/peer/address": "2001::1", "network/type": "ipv6",
			"network/io/transmit": 10.0, "network/io/receive": 20.0, "network/duration": 42e-9, "network/connection/id": 77.0}},
		{"a failed connect", failed, pipeline.Attribution{}, map[string]any{
			"error/type": "ECONNREFUSED", "error/errno": 111.0, "network/peer/port": 443.0}},
		{"a listener", listen, pipeline.Attribution{}, map[string]any{"network/local/port": 8080.0, "network/backlog": 128.0, "network/peer": nil}},
		{"a failed open", open, pipeline.Attribution{}, map[string]any{
			"file/path": "/etc/none", "error/type": "ENOENT", "file/fd": nil, "file/flags": 64.0}},
		{"a socket older than the tracer", old, pipeline.Attribution{}, map[string]any{"process/unknown": true, "process/pid": nil}},
		{"a container that nobody described", exec, pipeline.Attribution{Pending: true, Hint: "abc"}, map[string]any{
			"pending": true, "container/id": "abc", "container/name": nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := encoded(t, c.e, c.a)
			for path, want := range c.want {
				if fmt.Sprint(at(got, path)) != fmt.Sprint(want) {
					t.Errorf("%s is %v, want %v", path, at(got, path), want)
				}
			}
		})
	}
}

func TestATaskThatIsRememberedIsWrittenAsAnewOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(n int) uint32 { return uint32(r.IntN(n)) }
	x := NewEncoder("node-1", clock)
	for range 20000 {
		e := &event.Event{
			Kind: event.ProcessFork, PID: 1 + pick(3), TID: 1 + pick(2)*256, NSPID: 1 + pick(2), ParentPID: pick(2),
			UID: pick(2), EUID: pick(2), PIDNS: pick(2), MountNS: pick(2), NetNS: pick(2),
			Comm: []byte([]string{"", "a", "ab", "\"\x00\xff", "sixteen-bytes-xx", strings.Repeat("\x01", 16)}[r.IntN(6)]),
		}
		got := string(x.Append(nil, e, pipeline.Attribution{}))
		if want := string(NewEncoder("node-1", clock).Append(nil, e, pipeline.Attribution{})); got != want {
			t.Fatalf("remembered %s, anew %s", got, want)
		}
	}
}

func FuzzAnyBytesBecomeAValidJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\n\r\t\x00\x1f\x7f", "\xff\xfe", "日本語", "\xe6\x97", "\u2028\u2029", "</script>", "\xed\xa0\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		got := AppendString(nil, s)
		if !utf8.Valid(got) {
			t.Fatalf("%q is no UTF-8", got)
		}
		var back string
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%v: %q", err, got)
		}
		if want := strings.ToValidUTF8(string(s), "\uFFFD"); utf8.Valid(s) && back != want {
			t.Fatalf("%q came back as %q", s, back)
		}
		if string(AppendString(nil, string(s))) != string(got) {
			t.Fatal("a string and its bytes differ")
		}
	})
}

// Of each kind, with a container's fragment. On a shared virtual CPU (AMD EPYC) an
// exec took 270 ns, an open 210 ns, a close 340 ns; no allocation.
func BenchmarkEncode(b *testing.B) {
	x := NewEncoder("node-1", clock)
	a := pipeline.Attribution{Workload: workload()}
	for _, e := range []*event.Event{
		{Kind: event.ProcessExec, PID: 100, TID: 100, NSPID: 7, ParentPID: 99, PIDNS: 4026531836, MountNS: 4026531836, NetNS: 4026531836, Comm: []byte("nginx"), TimeNS: 123456789,
			Exec: event.Exec{Path: []byte("/usr/sbin/nginx"), Args: []byte("nginx\x00-g\x00daemon off;\x00")}},
		{Kind: event.FileOpen, PID: 100, TID: 100, NSPID: 7, ParentPID: 99, PIDNS: 4026531836, MountNS: 4026531836, NetNS: 4026531836, Comm: []byte("nginx"), TimeNS: 123456789,
			Open: event.Open{Result: 3, DirFD: -100, Path: []byte("/usr/share/nginx/html/index.html")}},
		{Kind: event.NetworkClose, PID: 100, TID: 100, NSPID: 7, ParentPID: 99, PIDNS: 4026531836, MountNS: 4026531836, NetNS: 4026531836, Comm: []byte("nginx"), TimeNS: 123456789,
			Network: event.Network{Cookie: 1, DurationNS: 1, Sent: 100, Received: 100, LocalAddr: []byte{127, 0, 0, 1}, PeerAddr: []byte{127, 0, 0, 1}, LocalPort: 80, PeerPort: 40000}},
	} {
		b.Run(e.Kind.String(), func(b *testing.B) {
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				e.TimeNS++
				buf = x.Append(buf[:0], e, a)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func TestTheLifeOfAContainerIsALineWithoutAProcess(t *testing.T) {
	w := workload()
	line := func(k event.Kind, l *event.Life, a pipeline.Attribution) string {
		return string(NewEncoder("node-1", clock).Append(nil, &event.Event{Kind: k, Priority: event.Error, Life: l}, a))
	}
	head := func(kind string) string {
		return `{"time":"1970-01-01T00:00:01.000000002Z","kind":"` + kind + `","priority":"error","weight":1,"host":{"name":"node-1"},"lifecycle":`
	}
	const at = 1_000_000_002
	for _, tt := range []struct {
		got, want string
	}{
		{line(event.ContainerDied, &event.Life{TimeUnixNano: at, Source: "docker", Exited: true, ExitCode: 137, Signal: 9}, pipeline.Attribution{Workload: w}),
			head("container.died") + `{"source":"docker","exit_code":137,"signal":9,"signal_name":"SIGKILL"}` + string(w.Fragment) + "}\n"},
		{line(event.ContainerRemoved, &event.Life{TimeUnixNano: at, Source: "crio", Inferred: true}, pipeline.Attribution{Workload: w}),
			head("container.removed") + `{"source":"crio","inferred":true}` + string(w.Fragment) + "}\n"},
		{line(event.ImagePulled, &event.Life{TimeUnixNano: at, Source: "s\n", Image: "a\"\xff\n"}, pipeline.Attribution{}),
			head("image.pulled") + `{"source":"s\n","image":"a\"` + "\uFFFD" + `\n"}` + "}\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s\nwant\n%s", tt.got, tt.want)
		}
		if !json.Valid([]byte(tt.got)) {
			t.Errorf("%s is no JSON", tt.got)
		}
	}
}
