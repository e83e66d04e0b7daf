package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// daemon is what a daemon would know of the facts, by the contract's rules.
type daemon struct {
	t      *testing.T
	facts  map[string]*protov1.MeshFact
	resets int
	synced bool
	sent   int
}

func (d *daemon) Send(m *protov1.MeshChanges) error {
	if len(m.Changes) == 0 || len(m.Changes) > maxBatch {
		d.t.Errorf("a message of %d changes", len(m.Changes))
	}
	for _, c := range m.Changes {
		d.sent++
		switch c := c.Change.(type) {
		case *protov1.MeshChange_Reset_:
			d.resets++
			d.facts = map[string]*protov1.MeshFact{}
		case *protov1.MeshChange_Synced:
			if d.resets == 0 {
				d.t.Error("synced without a reset")
			}
			d.synced = true
		case *protov1.MeshChange_Fact:
			if d.resets == 0 {
				d.t.Error("a fact before the first reset")
			}
			d.facts[refName(c.Fact.Workload)] = c.Fact
		case *protov1.MeshChange_Removed:
			if d.facts[refName(c.Removed)] == nil {
				d.t.Errorf("%s removed, but never told", refName(c.Removed))
			}
			delete(d.facts, refName(c.Removed))
		}
	}
	return nil
}

func (d *daemon) Degraded(reason string) { d.t.Errorf("degraded: %s", reason) }

func refName(r *protov1.WorkloadRef) string {
	if uid := r.GetPodUid(); uid != "" {
		return "pod/" + uid
	}
	return r.GetContainer().GetId()
}

// list writes what is known as "workload mesh role".
func (d *daemon) list() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(d.facts)) {
		f := d.facts[k]
		out = append(out, k+" "+f.Mesh+" "+strings.ToLower(strings.TrimPrefix(f.Role.String(), "ROLE_")))
	}
	return out
}

func defaults() Config { return Config{MinConfidence: 0.5, Builtin: true} }

func reset(kinds ...protov1.WorkloadKind) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{Kinds: kinds}}}
}

func synced(kinds ...protov1.WorkloadKind) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{Kinds: kinds}}}
}

func put(c *protov1.Container) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
}

func putPod(p *protov1.Pod) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Pod{Pod: p}}
}

func remove(id string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{
		What: &protov1.Removed_Container{Container: &protov1.ContainerRef{Id: id}}}}}
}

func removePod(uid string) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{
		What: &protov1.Removed_PodUid{PodUid: uid}}}}
}

func box(id, name, image string, change ...func(*protov1.Container)) *protov1.Container {
	c := &protov1.Container{Id: id, Name: name, Image: &protov1.Image{Name: image}, State: protov1.Container_STATE_RUNNING}
	for _, f := range change {
		f(c)
	}
	return c
}

func inPod(uid string) func(*protov1.Container) { return func(c *protov1.Container) { c.PodUid = uid } }

func netOf(id string) func(*protov1.Container) {
	return func(c *protov1.Container) { c.NetworkMode = "container:" + id }
}

func labels(kv ...string) func(*protov1.Container) {
	return func(c *protov1.Container) {
		c.Labels = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			c.Labels[kv[i]] = kv[i+1]
		}
	}
}

func ports(ns ...uint32) func(*protov1.Container) {
	return func(c *protov1.Container) {
		for _, n := range ns {
			c.Ports = append(c.Ports, &protov1.Port{ContainerPort: n})
		}
	}
}

func TestASidecarIsKnownByItsLooks(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    *protov1.Container
		pod  map[string]string
		want string // mesh/proxy/role, "" for none
	}{
		{"istio by image", box("1", "x", "registry.example/istio/proxyv2"), nil, "istio/envoy/sidecar"},
		{"istio by the name in the pod", box("1", "k8s_istio-proxy_web_default_0", "mirror.example/some/proxy", func(c *protov1.Container) { c.KubernetesName = "istio-proxy" }), nil, "istio/envoy/sidecar"},
		{"istio by its ports", box("1", "p", "built/here", ports(15001, 15006, 15020, 15021, 15090)), nil, "istio/envoy/sidecar"},
		{"istio's gateway", box("1", "istio-proxy", "istio/proxyv2", labels("istio", "ingressgateway")), nil, "istio/envoy/gateway"},
		{"linkerd by image", box("1", "x", "cr.l5d.io/linkerd/proxy"), nil, "linkerd/linkerd-proxy/sidecar"},
		{"linkerd's init container is none", box("1", "linkerd-init", "cr.l5d.io/linkerd/proxy-init"), nil, ""},
		{"consul by image", box("1", "x", "hashicorp/consul-dataplane"), nil, "consul/envoy/sidecar"},
		{"consul by name and envoy", box("1", "envoy-sidecar", "envoyproxy/envoy"), nil, "consul/envoy/sidecar"},
		{"kuma", box("1", "kuma-sidecar", "registry.example/kumahq/kuma-dp"), nil, "kuma/envoy/sidecar"},
		{"osm by its pod's mark", box("1", "envoy", "envoyproxy/envoy"), map[string]string{"osm-proxy-uuid": "u"}, "osm/envoy/sidecar"},
		{"nginx service mesh", box("1", "nginx-mesh-sidecar", "private.example/nsm/nginx-mesh-sidecar"), nil, "nginx-mesh/nginx/sidecar"},
		{"app mesh", box("1", "envoy", "public.ecr.example/appmesh/aws-appmesh-envoy"), nil, "appmesh/envoy/sidecar"},
		{"traefik mesh serves the node", box("1", "x", "traefik", labels("app", "maesh", "component", "maesh-mesh")), nil, "traefik-mesh/traefik/gateway"},
		{"dapr", box("1", "daprd", "daprio/daprd"), nil, "dapr/daprd/sidecar"},
		{"an envoy of its own is no mesh", box("1", "envoy", "envoyproxy/envoy", ports(10000, 9901)), nil, ""},
		{"an envoy in a meshed pod is not the sidecar", box("1", "edge", "envoyproxy/envoy"), map[string]string{"service.istio.io/canonical-name": "web"}, ""},
		{"a workload with a mesh's labels is not the sidecar", box("1", "web", "nginx", labels("service.istio.io/canonical-name", "web")), nil, ""},
		{"one port of many says little", box("1", "web", "nginx", ports(15001)), nil, ""},
		{"nginx is nginx", box("1", "web", "library/nginx", ports(80)), nil, ""},
		{"nothing is nothing", &protov1.Container{Id: "1"}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &daemon{t: t}
			f := newFollower(defaults(), d)
			tt.c.PodUid = "p"
			if err := f.follow(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{reset(), putPod(&protov1.Pod{Uid: "p", Labels: tt.pod}), put(tt.c), synced()}}); err != nil {
				t.Fatal(err)
			}
			got := ""
			if f := d.facts["1"]; f != nil {
				got = f.Mesh + "/" + f.Proxy + "/" + strings.ToLower(strings.TrimPrefix(f.Role.String(), "ROLE_"))
				if f.Confidence < 0.5 || f.Confidence > 1 {
					t.Errorf("confidence %v", f.Confidence)
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if hasPod := d.facts["pod/p"] != nil; hasPod != strings.HasSuffix(tt.want, "/sidecar") {
				t.Errorf("the pod has a fact: %v", hasPod)
			}
		})
	}
}

func TestFactsFollowTheInventory(t *testing.T) {
	exited := func(c *protov1.Container) { c.State = protov1.Container_STATE_EXITED }
	proxy := box("side", "istio-proxy", "istio/proxyv2")
	type step struct {
		changes []*protov1.InventoryChange
		want    []string
	}
	steps := func(s ...step) []step { return s }
	c := func(cs ...*protov1.InventoryChange) []*protov1.InventoryChange { return cs }
	container, podKind := protov1.WorkloadKind_WORKLOAD_KIND_CONTAINER, protov1.WorkloadKind_WORKLOAD_KIND_POD
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"a pod is in the mesh while its sidecar runs", steps(
			step{c(reset(), put(box("app", "web", "nginx", inPod("p"))), synced()), nil},
			step{c(put(box("side", "istio-proxy", "istio/proxyv2", inPod("p")))), []string{"pod/p istio workload", "side istio sidecar"}},
			step{c(put(box("side", "istio-proxy", "istio/proxyv2", inPod("p"), exited))), nil},
			step{c(put(box("side", "istio-proxy", "istio/proxyv2", inPod("p")))), []string{"pod/p istio workload", "side istio sidecar"}},
			step{c(remove("side")), nil},
		)},
		{"containers that share the sidecar's network are in the mesh", steps(
			step{c(reset(), put(proxy), put(box("app", "web", "nginx", netOf("side"))), put(box("other", "db", "postgres")), synced()),
				[]string{"app istio workload", "side istio sidecar"}},
			step{c(put(box("app2", "job", "busybox", netOf("side")))), []string{"app istio workload", "app2 istio workload", "side istio sidecar"}},
			step{c(remove("app")), []string{"app2 istio workload", "side istio sidecar"}},
			step{c(remove("side")), nil},
		)},
		{"a sidecar that joins its workload's network counts as well", steps(
			step{c(reset(), put(box("side", "istio-proxy", "istio/proxyv2", netOf("app"))), put(box("app", "web", "nginx")), synced()),
				[]string{"app istio workload", "side istio sidecar"}},
		)},
		{"a sandbox stands for a pod that is not told", steps(
			step{c(reset(), put(box("side", "linkerd-proxy", "linkerd/proxy", func(c *protov1.Container) { c.SandboxId = "s" })),
				put(box("app", "web", "nginx", func(c *protov1.Container) { c.SandboxId = "s" })), synced()),
				[]string{"app linkerd workload", "side linkerd sidecar"}},
			step{c(put(box("side", "linkerd-proxy", "linkerd/proxy", inPod("p"))), put(box("app", "web", "nginx", inPod("p")))),
				[]string{"pod/p linkerd workload", "side linkerd sidecar"}},
		)},
		{"a pod's mark that comes later decides", steps(
			step{c(reset(), put(box("side", "envoy", "envoyproxy/envoy", inPod("p"))), synced()), nil},
			step{c(putPod(&protov1.Pod{Uid: "p", Annotations: map[string]string{"osm-proxy-uuid": "1"}})), []string{"pod/p osm workload", "side osm sidecar"}},
			step{c(removePod("p")), nil},
		)},
		{"what a new list does not tell is gone at its end", steps(
			step{c(reset(), put(proxy), put(box("app", "web", "nginx", netOf("side"))), synced()), []string{"app istio workload", "side istio sidecar"}},
			step{c(reset()), []string{"app istio workload", "side istio sidecar"}},
			step{c(put(box("app", "web", "nginx", netOf("side")))), []string{"app istio workload", "side istio sidecar"}},
			step{c(synced(podKind)), []string{"app istio workload", "side istio sidecar"}},
			step{c(synced(container)), nil},
		)},
		{"a container that becomes another one changes its fact", steps(
			step{c(reset(), put(box("x", "istio-proxy", "istio/proxyv2")), synced()), []string{"x istio sidecar"}},
			step{c(put(box("x", "linkerd-proxy", "linkerd/proxy"))), []string{"x linkerd sidecar"}},
		)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &daemon{t: t}
			f := newFollower(defaults(), d)
			for i, s := range tt.steps {
				if err := f.follow(&protov1.InventoryChanges{Changes: s.changes}); err != nil {
					t.Fatal(err)
				}
				if got := d.list(); fmt.Sprint(got) != fmt.Sprint(s.want) {
					t.Fatalf("step %d: %q, want %q", i, got, s.want)
				}
				if !d.synced {
					t.Fatalf("step %d: not synced", i)
				}
			}
			if d.resets != 1 {
				t.Errorf("%d resets", d.resets)
			}
			if len(f.inventory.containers) == 0 && len(f.inventory.groups)+len(f.said) > 0 {
				t.Error("something is kept of an empty inventory")
			}
		})
	}
}

func TestTheSameDescriptionAgainSaysNothing(t *testing.T) {
	d := &daemon{t: t}
	f := newFollower(defaults(), d)
	batch := &protov1.InventoryChanges{Changes: []*protov1.InventoryChange{put(box("side", "istio-proxy", "istio/proxyv2", inPod("p")))}}
	if err := f.follow(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{reset(), batch.Changes[0], synced()}}); err != nil {
		t.Fatal(err)
	}
	before := d.sent
	if err := f.follow(batch); err != nil {
		t.Fatal(err)
	}
	if d.sent != before {
		t.Errorf("%d changes sent", d.sent-before)
	}
}

func TestAVersionAndAServiceAreTold(t *testing.T) {
	d := &daemon{t: t}
	side := box("side", "istio-proxy", "istio/proxyv2", inPod("p"))
	side.Image.Tag = "1.31.0"
	err := newFollower(defaults(), d).follow(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{reset(), put(side),
		putPod(&protov1.Pod{Uid: "p", Labels: map[string]string{"service.istio.io/canonical-name": "shop"}}), synced()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"side", "pod/p"} {
		if f := d.facts[who]; f.GetProxyVersion() != "1.31.0" || f.GetService() != "shop" {
			t.Errorf("%s: %v", who, f)
		}
	}
	if got := version("latest"); got != "" {
		t.Errorf("version %q", got)
	}
}

func TestRulesAreExtended(t *testing.T) {
	mine := Sidecar{Mesh: "acme", Proxy: "acmeproxy", Images: []string{"acme/proxy"}}
	for _, tt := range []struct {
		name string
		rule Sidecar
		c    *protov1.Container
		want bool
	}{
		{"by image", mine, box("1", "x", "registry.example:5000/acme/proxy"), true},
		{"not by another's image", mine, box("1", "x", "other/proxy"), false},
		{"not by the end of a word", mine, box("1", "x", "notacme/proxy"), false},
		{"by name", Sidecar{Mesh: "acme", Proxy: "p", Names: []string{"mesh-*"}}, box("1", "mesh-7", "x"), true},
		{"by labels", Sidecar{Mesh: "acme", Proxy: "p", Labels: map[string]string{"role": "proxy", "v": "1.*"}}, box("1", "x", "x", labels("role", "proxy", "v", "1.2")), true},
		{"not by some of the labels", Sidecar{Mesh: "acme", Proxy: "p", Labels: map[string]string{"role": "proxy", "v": "1.*"}}, box("1", "x", "x", labels("role", "proxy")), false},
		{"by all the ports", Sidecar{Mesh: "acme", Proxy: "p", Ports: []uint32{1, 2}}, box("1", "x", "x", ports(2, 1)), true},
		{"not by some of the ports", Sidecar{Mesh: "acme", Proxy: "p", Ports: []uint32{1, 2}}, box("1", "x", "x", ports(2)), false},
		{"before the built-in", Sidecar{Mesh: "acme", Proxy: "p", Images: []string{"istio/proxyv2"}}, box("1", "x", "istio/proxyv2"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			c.Sidecars = []Sidecar{tt.rule}
			if ds := validate(c); len(ds) > 0 {
				t.Fatal(ds)
			}
			d := &daemon{t: t}
			if err := newFollower(c, d).follow(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{reset(), put(tt.c), synced()}}); err != nil {
				t.Fatal(err)
			}
			if got := d.facts["1"].GetMesh() == "acme"; got != tt.want {
				t.Errorf("recognised: %v; told %v", got, d.list())
			}
		})
	}
	t.Run("without the built-in", func(t *testing.T) {
		d := &daemon{t: t}
		err := newFollower(Config{MinConfidence: 0.5}, d).follow(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{reset(), put(box("1", "istio-proxy", "istio/proxyv2")), synced()}})
		if err != nil || len(d.facts) != 0 {
			t.Error(err, d.list())
		}
	})
}

func TestMistakesAreShownWhereTheyAre(t *testing.T) {
	good := Sidecar{Mesh: "a", Proxy: "b", Images: []string{"c"}}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"a right one", func(*Config) {}, nil},
		{"nothing to go by", func(c *Config) { c.Sidecars[0].Images = nil }, []string{"sidecar[0]: nothing to recognise it by"}},
		{"a broken pattern", func(c *Config) { c.Sidecars[0].Images = []string{"ok", "["} }, []string{"sidecar[0].images[1]: not a pattern"}},
		{"a broken label", func(c *Config) { c.Sidecars[0].Labels = map[string]string{"k": "["} }, []string{`sidecar[0].labels["k"]: not a pattern`}},
		{"a port too high", func(c *Config) { c.Sidecars[0].Ports = []uint32{1, 70000} }, []string{"sidecar[0].ports[1]: not a port"}},
		{"a name with spaces", func(c *Config) { c.Sidecars[0].Mesh = "My Mesh" }, []string{"sidecar[0].mesh: not a name"}},
		{"a rule that never fits", func(c *Config) { c.MinConfidence = 0.9 }, []string{"sidecar[0]: never recognised"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults()
			c.Sidecars = []Sidecar{good}
			tt.change(&c)
			var got []string
			for _, d := range validate(c) {
				got = append(got, d.Path.String()+": "+d.Summary)
			}
			if !slices.Contains(got, strings.Join(tt.want, "")) && len(tt.want) > 0 || len(tt.want) == 0 && len(got) > 0 {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for i, s := range builtin() {
		c := Config{MinConfidence: 0.5, Sidecars: []Sidecar{s}}
		if ds := validate(c); len(ds) > 0 {
			t.Errorf("built-in rule %d: %v", i, ds)
		}
	}
}

func TestDetectEndsWithItsStream(t *testing.T) {
	d := &daemon{t: t}
	workloads := make(chan *protov1.InventoryChanges, 1)
	workloads <- &protov1.InventoryChanges{Changes: []*protov1.InventoryChange{reset(), synced()}}
	close(workloads)
	if err := (genericDetector{defaults()}).Detect(t.Context(), workloads, d); err != nil || !d.synced {
		t.Error(err, d.synced)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (genericDetector{defaults()}).Detect(ctx, nil, d); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTenThousandPodsFitInFewMessages(t *testing.T) {
	d := &daemon{t: t}
	f := newFollower(defaults(), d)
	changes := []*protov1.InventoryChange{reset()}
	for i := range 10_000 {
		uid := fmt.Sprint("p", i)
		changes = append(changes, put(box("app"+uid, "web", "nginx", inPod(uid))), put(box("side"+uid, "istio-proxy", "istio/proxyv2", inPod(uid))))
	}
	if err := f.follow(&protov1.InventoryChanges{Changes: append(changes, synced())}); err != nil {
		t.Fatal(err)
	}
	if len(d.facts) != 20_000 {
		t.Errorf("%d facts", len(d.facts))
	}
}
