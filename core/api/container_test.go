package api

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestAContainerIsFoundOrItIsSaidWhyNot(t *testing.T) {
	scoped := container("b2")
	scoped.Container.Scope = "containerd:default"
	r := run(t, &answers{containers: []*protov1.ContainerView{container("a"), container("b1"), scoped}})
	one, err := r.client.GetContainer(t.Context(), "a")
	if err != nil || one.GetContainer().GetId() != "a" {
		t.Error(one, err)
	}
	_, err = r.client.GetContainer(t.Context(), "b")
	var several *client.AmbiguousError
	if !errors.As(err, &several) || len(several.Containers) != 2 ||
		err.Error() != `"b" means several containers: b1, containerd:default/b2` {
		t.Error(err)
	}
	if _, err = r.client.GetContainer(t.Context(), "c"); !errors.Is(err, client.ErrNoContainer) ||
		err.Error() != `no container is known by the id or name "c"` {
		t.Error(err)
	}
	if _, err = r.client.GetContainer(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "which container?") {
		t.Error(err)
	}
}

func TestOneWordFindsSoManyContainersOnly(t *testing.T) {
	var all []*protov1.ContainerView
	for range 3 * mostFound {
		all = append(all, container("same"))
	}
	r := run(t, &answers{containers: all})
	_, err := r.client.GetContainer(t.Context(), "s")
	var several *client.AmbiguousError
	if !errors.As(err, &several) || len(several.Containers) != mostFound {
		t.Error(err)
	}
	if _, _, err := r.client.GetContainerProcess(t.Context(), "s", 1); err == nil || !strings.HasSuffix(err.Error(), "name-same (same), ...") {
		t.Error(err)
	}
}

func TestAProcessIsTold(t *testing.T) {
	r := run(t, &answers{containers: []*protov1.ContainerView{container("a"), container("b1"), container("b2")}})
	process, c, err := r.client.GetProcess(t.Context(), 100)
	if err != nil || c.GetContainer().GetId() != "a" || !slices.Equal(process.GetNsPids(), []uint32{100, 1}) || process.GetComm() != "sh\uFFFD" {
		t.Error(process, c, err)
	}
	if process, c, err = r.client.GetProcess(t.Context(), 1); err != nil || c != nil || process.GetPid() != 1 {
		t.Error("of the host:", process, c, err)
	}
	if process, c, err = r.client.GetContainerProcess(t.Context(), "a", 7); err != nil || process.GetPid() != 1007 || c.GetContainer().GetId() != "a" {
		t.Error("by its pid in the container:", process, c, err)
	}
	for _, wrong := range []struct {
		container string
		pid       uint32
		is        error
		has       string
	}{
		{"a", 2, client.ErrNoProcess, "container a has no process 2"},
		{"a", 3, nil, "it was not read yet"},
		{"a", 0, nil, "0 is no process"},
		{"zz", 7, client.ErrNoContainer, `no container is known by the id or name "zz"`},
		{"b", 7, nil, `"b" could be any of name-b1 (b1), name-b2 (b2)`},
	} {
		_, _, err := r.client.GetContainerProcess(t.Context(), wrong.container, wrong.pid)
		if err == nil || !strings.Contains(err.Error(), wrong.has) || wrong.is != nil && !errors.Is(err, wrong.is) {
			t.Errorf("process %d of %s: %v", wrong.pid, wrong.container, err)
		}
	}
}

// shared makes a namespace with so many containers.
func shared(typ string, inode uint64, containers int) *protov1.Namespace {
	n := &protov1.Namespace{
		Ref:    &protov1.NamespaceRef{Type: typ, Inode: inode},
		UidMap: []*protov1.IDMap{{Inside: 0, Outside: 100000, Count: 65536}},
	}
	for i := range containers {
		n.Containers = append(n.Containers, &protov1.NamespaceMember{
			Container: &protov1.ContainerRef{Id: strings.Repeat("c", 64)}, Name: "container", Pid: uint32(i + 1), NsPid: 1,
		})
	}
	return n
}

func TestNamespacesAreListedByTypeAndGivenByInode(t *testing.T) {
	a := &answers{namespaces: []*protov1.Namespace{shared("pid", 20, 1), shared("net", 21, 2), shared("user", 22, 1)}}
	r := run(t, a)
	all, err := r.client.ListNamespaces(t.Context(), "")
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	for i, n := range all {
		if !proto.Equal(n.Namespace, a.namespaces[i]) {
			t.Errorf("%v, want %v", n.Namespace, a.namespaces[i])
		}
	}
	if nets, err := r.client.ListNamespaces(t.Context(), "net"); err != nil || len(nets) != 1 || nets[0].ID != "net:21" || nets[0].Type != "net" {
		t.Error(nets, err)
	}
	for _, id := range []string{"net:21", "net:[21]", "21"} {
		n, err := r.client.GetNamespace(t.Context(), id)
		if err != nil || n.ID != "net:21" || n.Type != "net" || len(n.Containers) != 2 {
			t.Error(id, n, err)
		}
	}
	for id, has := range map[string]string{
		"net:20": "namespace net:20: no container", "99": "namespace 99: no container",
		"nett:21": `no type of namespace is named "nett": there are pid, net, mnt, user, uts, ipc, cgroup, time`,
		"net":     `"net" names no namespace: give TYPE:INODE`, "net:x": "names no namespace", "": "names no namespace",
	} {
		_, err := r.client.GetNamespace(t.Context(), id)
		if err == nil || !strings.Contains(err.Error(), has) || strings.Contains(has, "no container") != errors.Is(err, client.ErrNoNamespace) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := r.client.ListNamespaces(t.Context(), "nett"); err == nil || !strings.Contains(err.Error(), `is named "nett"`) {
		t.Error(err)
	}
}

func TestANamespaceWithManyContainersComesInPartsAndWhole(t *testing.T) {
	const many = 50_000
	all := []*protov1.Namespace{shared("pid", 20, 3), shared("cgroup", 21, many), shared("time", 22, many)}
	all[2].Containers[0].Name = strings.Repeat("x", 100_000)
	pages, parts := 0, 0
	err := namespacePages(all, func(p *protov1.ListNamespacesResponse) error {
		if size := proto.Size(p); size > maxPage {
			t.Errorf("a page of %d bytes", size)
		}
		pages++
		parts += len(p.Namespaces)
		return nil
	})
	if err != nil || pages < 8 || parts < 20 {
		t.Errorf("%d pages with %d parts, %v", pages, parts, err)
	}
	r := run(t, &answers{namespaces: all})
	got, err := r.client.ListNamespaces(t.Context(), "")
	if err != nil || len(got) != 3 || len(got[0].Containers) != 3 || len(got[1].Containers) != many || len(got[2].Containers) != many {
		t.Fatal(len(got), err)
	}
	if len(got[1].UidMap) != 1 || got[1].Containers[many-1].GetPid() != many || len(got[2].Containers[0].GetName()) != 256 {
		t.Error("parts are not put together as they were")
	}
	one, err := r.client.GetNamespace(t.Context(), "cgroup:21")
	if err != nil || len(one.Containers) != many {
		t.Fatal(one, err)
	}
}
