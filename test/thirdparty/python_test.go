package thirdparty

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// python prepares the distribution's Python, in the example's directory.
func python(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := example{dir: "python"}.source()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{"-BEs"}, args...)...)
	c.Dir = dir
	return c
}

func TestThePythonExamplePassesItsOwnTests(t *testing.T) {
	out, err := python(t, "-m", "unittest", "-v").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("\nOK\n")) {
		t.Errorf("%v:\n%s", err, out)
	}
}

// The committed code was made by a protoc that need not be here.
func TestTheGeneratedPythonIsThatOfTheContract(t *testing.T) {
	for name, file := range map[string]protoreflect.FileDescriptor{
		"plugin": protov1.File_sdk_proto_v1_plugin_proto, "discover": protov1.File_sdk_proto_v1_discover_proto,
		"mesh": protov1.File_sdk_proto_v1_mesh_proto, "sampling": protov1.File_sdk_proto_v1_sampling_proto,
	} {
		raw, err := python(t, "-c", "import sys, "+name+"_pb2 as m; sys.stdout.buffer.write(m.DESCRIPTOR.serialized_pb)").Output()
		if err != nil {
			t.Fatal(err)
		}
		got, want := &descriptorpb.FileDescriptorProto{}, protodesc.ToFileDescriptorProto(file)
		if err := proto.Unmarshal(raw, got); err != nil {
			t.Fatal(err)
		}
		for _, m := range want.GetMessageType() {
			withoutJSONNames(m)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%s_pb2.py is not that of %s: run examples/plugins/python/generate.sh", name, file.Path())
		}
	}
}

// withoutJSONNames takes away what protoc tells other generators only.
func withoutJSONNames(m *descriptorpb.DescriptorProto) {
	for _, f := range m.GetField() {
		f.JsonName = nil
	}
	for _, inner := range m.GetNestedType() {
		withoutJSONNames(inner)
	}
}

// list is a file of the plugin.
type list struct {
	Containers []entry `json:"containers"`
}

type entry struct {
	Name   string            `json:"name"`
	Cgroup string            `json:"cgroup"`
	Image  string            `json:"image,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// write puts a file into the place of another at once.
func write(t *testing.T, path string, content any) {
	t.Helper()
	text, ok := content.(string)
	if !ok {
		b, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// directory is one that the plugin, which is another user, can read.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebpf-tracer-inventory-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAPluginInPythonTellsContainersAndComesBackAfterACrash(t *testing.T) {
	const n = 50
	programs := load.Build(t)
	h := newHierarchy(t)
	dir := directory(t)
	file := filepath.Join(dir, "jobs.json")
	labels := map[string]string{"team": "payments"}
	jobs := list{[]entry{{"job-1", h.top + "/one", "shop/billing:1.4", labels}}}
	write(t, file, jobs)

	began := time.Now()
	tr := harness.Start(t, withPlugins(`discoverer "inventory-file" {
  path     = "`+dir+`"
  interval = "100ms"
}`))
	t.Logf("the daemon and all its plugins are at work after %v", time.Since(began).Round(time.Millisecond))
	tr.WaitContainer("job-1")

	is := func(states ...string) func(*protov1.PluginView) bool {
		return func(p *protov1.PluginView) bool { return strings.Contains(strings.Join(states, " "), p.GetState()) }
	}
	plugin := func(as func(*protov1.PluginView) bool) *protov1.PluginView {
		return tr.WaitPlugin("discoverer", "inventory-file", as)
	}
	runs := func(id string, cgroup string) func() {
		mine := tag()
		h.load(programs, cgroup, n, mine)
		// Before anything else happens to the plugin: what it told would be stale.
		tr.Until("the execs of "+id, func(events []harness.Event) bool { return len(tagged(events, programs.Noop, mine)) >= n })
		return func() {
			execs := tagged(tr.Events(), programs.Noop, mine)
			if len(execs) != n {
				t.Errorf("%s: %d execs were told, the load made %d", cgroup, len(execs), n)
			}
			for _, e := range execs {
				if c := e.Container; c == nil || c.Name != id || c.Stale {
					t.Fatalf("an exec of %s: %s", id, e.Line)
				} else if id == "job-1" && (c.Image == nil || c.Image.Name != "shop/billing" || !maps.Equal(c.Label, labels)) {
					t.Fatalf("an exec of %s: %s", id, e.Line)
				}
			}
		}
	}
	var checks []func()

	// The first event of what was written down before it was there is its own.
	one := h.make(h.top + "/one")
	checks = append(checks, runs("job-1", one))

	// A mistake in the file is told, and changes nothing.
	write(t, file, `{"containers": [{"name": "job-2"}]}`)
	if p := plugin(is("degraded")); !strings.Contains(p.GetReason(), file+": containers[0]: cgroup is to be a path") {
		t.Errorf("the plugin is degraded because %q", p.GetReason())
	}
	checks = append(checks, runs("job-1", one))

	jobs.Containers = append(jobs.Containers, entry{Name: "job-2", Cgroup: h.top + "/two"})
	write(t, file, jobs)
	before := plugin(is("running"))
	tr.WaitContainer("job-2")
	// It does all this with no rights but to read what the operator wrote, and to keep
	// state of its own.
	box := before.GetSandbox()
	reads := slices.DeleteFunc(slices.Clone(box.GetGranted()), func(g string) bool { return strings.HasPrefix(g, "write ") })
	if box.GetUid() == 0 || box.GetRootEquivalent() != "" || !slices.Equal(reads, []string{"read " + dir}) {
		t.Errorf("it is confined by %v", box)
	}
	checks = append(checks, runs("job-2", h.make(h.top+"/two")))

	// It is killed, and the list is another when it is back.
	jobs.Containers = append(jobs.Containers[:1], entry{Name: "job-3", Cgroup: h.top + "/three"})
	write(t, file, jobs)
	killed := time.Now()
	signal(t, before.GetPid(), syscall.SIGKILL)
	after := plugin(func(p *protov1.PluginView) bool { return p.GetRestarts() == 1 && p.GetState() == "running" })
	tr.WaitContainer("job-3")
	t.Logf("killed, it is back and has told all after %v; it takes %d KiB of memory", time.Since(killed).Round(time.Millisecond), after.GetMemoryBytes()>>10)
	if after.GetPid() == before.GetPid() {
		t.Errorf("process %d was killed, and is the plugin's again", after.GetPid())
	}
	known := map[string]bool{}
	for _, c := range tr.Containers() {
		known[c.GetContainer().GetId()] = c.GetStale()
	}
	if want := map[string]bool{"job-1": false, "job-3": false}; !maps.Equal(known, want) {
		t.Errorf("the daemon knows %v (whether stale), want %v", known, want)
	}
	checks = append(checks, runs("job-1", one), runs("job-3", h.make(h.top+"/three")))

	tr.Stop()
	for _, check := range checks {
		check()
	}
	if log := tr.Log(); !strings.Contains(log, `msg="read 2 containers from 1 files" plugin=discoverer/inventory-file`) {
		t.Errorf("the plugin's log is not in the daemon's:\n%s", log)
	}
}
