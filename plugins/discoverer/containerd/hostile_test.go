package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/anypb"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func clientOf(t *testing.T, d *env.Containerd) *connection {
	t.Helper()
	c, err := dial(t.Context(), d.Socket, 30*time.Second)
	must(t, err)
	t.Cleanup(func() { must(t, c.close()) })
	return c
}

const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"

// create stores a container that is never run.
func (c *connection) create(t *testing.T, namespace string, in *containersapi.Container) {
	t.Helper()
	if in.Runtime == nil {
		in.Runtime = &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}
	}
	if in.Spec == nil {
		in.Spec = &anypb.Any{TypeUrl: specType, Value: []byte("{}")}
	}
	_, err := c.containers.Create(within(t.Context(), namespace), &containersapi.CreateContainerRequest{Container: in})
	must(t, err)
}

func TestTenThousandContainersAreHeldInBoundedMemory(t *testing.T) {
	const n = 10_000
	d := env.StartContainerd(t)
	c := clientOf(t, d)
	d.Run(t, "--detach", env.BusyboxImage, "model", "sleep", "1000")
	model, err := c.get(t.Context(), key{"default", "model"})
	must(t, err)
	t.Logf("spec of %d bytes", len(model.Spec.Value))
	began := time.Now()
	for i := range n {
		c.create(t, "many", &containersapi.Container{ID: fmt.Sprint("c", i), Image: model.Image, Labels: map[string]string{"big": "x"}, Spec: &anypb.Any{TypeUrl: model.Spec.TypeUrl, Value: model.Spec.Value}})
	}
	t.Log("created in", time.Since(began))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began = time.Now()
	r := start(t, configFor(d))
	r.wait("the snapshot", synced(1))
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("snapshot of %d in %v, %.1f MB held by discoverer and test", n, took, float64(after.HeapAlloc-before.HeapAlloc)/1e6)
}

// What the store takes, the discoverer has to take too: it lists and describes the others
// all the same.
func TestContainersThatAreUnlikely(t *testing.T) {
	d := env.StartContainerd(t)
	c := clientOf(t, d)
	garbage := func(typeURL string, b string) *anypb.Any {
		return &anypb.Any{TypeUrl: typeURL, Value: []byte(b)}
	}
	r := start(t, configFor(d))
	r.wait("the snapshot", synced(1))
	big := strings.Repeat("v", 4096-len("big"))
	for id, in := range map[string]*containersapi.Container{
		"no-spec":       {Spec: garbage(specType, "")},
		"no-json":       {Spec: garbage(specType, "\x00\xff{{{")},
		"half-json":     {Spec: garbage(specType, `{"process":{"args":["/bin/x","`)},
		"wrong-types":   {Spec: garbage(specType, `{"process":[1,2],"linux":"x","hostname":{},"annotations":[],"mounts":{"a":1}}`)},
		"null":          {Spec: garbage(specType, `null`)},
		"deep":          {Spec: garbage(specType, strings.Repeat(`{"linux":`, 200_000))},
		"long":          {Spec: garbage(specType, `{"hostname":"`+strings.Repeat("h", 1<<20)+`"}`)},
		"long-path":     {Spec: garbage(specType, `{"linux":{"cgroupsPath":"/`+strings.Repeat("p", 1<<20)+`"}}`)},
		"many-args":     {Spec: garbage(specType, `{"process":{"args":[`+strings.Repeat(`"an argument",`, 100_000)+`""]}}`)},
		"escapes":       {Spec: garbage(specType, `{"hostname":"\u001b[31m\u0000","process":{"args":["\ud800","a\nb"]}}`)},
		"another-spec":  {Spec: garbage("example.org/Spec", `{"process":{"args":["x"]}}`)},
		"extensions":    {Extensions: map[string]*anypb.Any{"io.cri-containerd.container.metadata": garbage("x", "{"), "io.cri-containerd.sandbox.metadata": garbage("x", `{"Metadata":{"CNIResult":7}}`), "other": garbage("y", big)}},
		"large-label":   {Labels: map[string]string{"big": big, "small": "x"}},
		"control-label": {Labels: map[string]string{"a\x1b[31mb": "\x1b[2J\n\x00", "nerdctl/name": "\x1b]0;x\x07 name\nname"}},
		"image":         {Image: "\x1b[31m:" + strings.Repeat("i", 100_000)},
	} {
		in.ID = id
		c.create(t, "default", in)
	}
	// As clients and servers that don't check their texts send them.
	ctr(t, d, "container", "create", "--label", "bad\xff=\xfe\xffvalue", env.BusyboxImage, "no-utf8")

	check := func(t *testing.T, r *recorder) {
		for _, id := range []string{"no-spec", "no-json", "half-json", "wrong-types", "null", "deep", "long", "long-path", "many-args", "escapes",
			"another-spec", "extensions", "large-label", "control-label", "image", "no-utf8"} {
			got := r.container(id)
			if got == nil {
				t.Errorf("%s is not known", id)
				continue
			}
			for k, v := range got.Labels {
				if !utf8.ValidString(k) || !utf8.ValidString(v) {
					t.Errorf("%s has a label %q=%q", id, k, v)
				}
			}
		}
		if l := r.container("large-label").Labels; len(l["big"]) != len(big) || l["small"] != "x" {
			t.Errorf("of the large label %d bytes are left", len(l["big"]))
		}
		if l := r.container("no-utf8").Labels; l["bad?"] != "??value" {
			t.Errorf("labels that are not UTF-8: %q", l)
		}
	}
	r.wait("all of them", func(r *recorder) bool { return len(r.containers) == 16 })
	r.wait("the answers of the store", func(r *recorder) bool {
		return r.find("large-label").GetLabels()["small"] == "x" && len(r.find("no-utf8").GetLabels()) > 0
	})
	t.Run("told by events", func(t *testing.T) { check(t, r) })
	again := start(t, configFor(d))
	again.wait("the snapshot", synced(1))
	t.Run("told by a list", func(t *testing.T) { check(t, again) })
}

func TestANamespaceThatComesAndGoes(t *testing.T) {
	d := env.StartContainerd(t)
	c := clientOf(t, d)
	r := start(t, configFor(d))
	r.wait("the snapshot", synced(1))
	only := configFor(d)
	only.Namespaces = []string{"later", "never"}
	followed := start(t, only)
	followed.wait("the snapshot", synced(1))
	except := configFor(d)
	except.NamespacesExclude = []string{"later"}
	others := start(t, except)
	others.wait("the snapshot", synced(1))
	for range 2 {
		c.create(t, "later", &containersapi.Container{ID: "a", Image: "img:1"})
		c.create(t, "default", &containersapi.Container{ID: "b", Image: "img:1"})
		for what, r := range map[string]*recorder{"all": r, "one": followed, "others": others} {
			if what != "others" {
				r.wait("the container of the namespace, of "+what, func(r *recorder) bool { return r.containers[key{"later", "a"}] != nil })
			}
			if what != "one" {
				r.wait("the other's, of "+what, func(r *recorder) bool { return r.containers[key{"default", "b"}] != nil })
			}
		}
		for namespace, id := range map[string]string{"later": "a", "default": "b"} {
			_, err := c.containers.Delete(within(t.Context(), namespace), &containersapi.DeleteContainerRequest{ID: id})
			must(t, err)
		}
		_, err := c.namespaces.Delete(t.Context(), &namespacesapi.DeleteNamespaceRequest{Name: "later"})
		must(t, err)
		for _, r := range []*recorder{r, followed, others} {
			r.wait("nothing", func(r *recorder) bool { return len(r.containers) == 0 })
		}
	}
	for _, l := range followed.lines(" b ") {
		t.Errorf("of a namespace that is not followed it was told: %s", l)
	}
	for _, l := range others.lines(" a ") {
		t.Errorf("of a namespace that is excluded it was told: %s", l)
	}
}

func TestContainersThatAreDeletedWhileTheyAreDescribed(t *testing.T) {
	d := env.StartContainerd(t)
	c := clientOf(t, d)
	r := start(t, configFor(d))
	r.wait("the snapshot", synced(1))
	const n = 300
	for i := range n {
		id := fmt.Sprintf("brief%03d", i)
		c.create(t, "default", &containersapi.Container{ID: id, Image: "img:1"})
		_, err := c.containers.Delete(within(t.Context(), "default"), &containersapi.DeleteContainerRequest{ID: id})
		must(t, err)
	}
	c.create(t, "default", &containersapi.Container{ID: "last", Labels: map[string]string{"last": "yes"}})
	r.wait("the last one, described", func(r *recorder) bool { return r.find("last").GetLabels()["last"] == "yes" })
	r.wait("no other", func(r *recorder) bool { return len(r.containers) == 1 })
	for i := range n {
		id := fmt.Sprintf("brief%03d", i)
		if l := r.lines(" " + id); len(l) < 3 || l[0] != "container "+id+" created" || l[len(l)-1] != "remove "+id {
			t.Errorf("told %q", l)
		}
	}
}

func TestAContainerdThatComesAndGoes(t *testing.T) {
	socket := t.TempDir() + "/c.sock"
	c := defaults()
	c.Address, c.Timeout = "unix://"+socket, time.Second
	r, h := startWithHost(t, c)
	r.wait("word of its absence", func(r *recorder) bool { return strings.HasPrefix(r.reason, "no containerd at "+socket) })
	h.facts <- batch(1, "/default/x")
	r.wait("an answer for a cgroup", func(r *recorder) bool { return answers(r) == "1:-" })

	d := env.StartContainerd(t, env.WithSocket(socket))
	r.wait("a snapshot once it is there", synced(1))
	d.Run(t, "--detach", env.BusyboxImage, "stays", "sleep", "1000")
	d.Run(t, "--detach", env.BusyboxImage, "ends", "sleep", "1000")
	r.wait("a container", inState("stays", protov1.Container_STATE_RUNNING))
	h.facts <- batch(2, "/default/stays", 3, "/default/ends")
	r.wait("answers for their cgroups", func(r *recorder) bool { return answers(r) == "1:- 2:stays 3:ends" })
	pid := r.container("stays").Pid

	must(t, d.Kill(t.Context()))
	r.wait("word of its death", func(r *recorder) bool { return r.reason != "" })
	if r.container("stays") == nil {
		t.Error("the container was forgotten with its daemon")
	}
	h.facts <- batch(4, "/default/later")
	r.wait("an answer while it is away", func(r *recorder) bool { return answers(r) == "1:- 2:stays 3:ends 4:-" })
	must(t, d.Start(t.Context()))
	r.wait("a second snapshot", synced(2))
	if got := r.container("stays"); got.GetState() != protov1.Container_STATE_RUNNING || got.Pid != pid || got.CgroupId != 2 {
		t.Errorf("after the restart: %v", got)
	}
	ctr(t, d, "task", "kill", "--signal", "KILL", "ends")
	r.wait("an end that its shim tells", func(r *recorder) bool { return r.find("ends").GetExitCode() == 137 })

	must(t, d.Pause())
	r.wait("word of its silence", func(r *recorder) bool { return strings.Contains(r.reason, "does not answer within 1s") })
	h.facts <- batch(5, "/default/silent")
	r.wait("an answer while it is silent", func(r *recorder) bool { return strings.HasSuffix(answers(r), " 5:-") })
	must(t, d.Resume())
	r.wait("a third snapshot", synced(3))
	ctr(t, d, "task", "delete", "ends")
	ctr(t, d, "container", "delete", "ends")
	r.wait("its removal", func(r *recorder) bool { return r.find("ends") == nil })
	t.Log(strings.Join(r.lines("degraded"), "\n"))
}
