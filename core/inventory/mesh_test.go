package inventory

import (
	"fmt"
	"testing"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func podFact(uid, mesh string) *protov1.MeshChange {
	return &protov1.MeshChange{Change: &protov1.MeshChange_Fact{Fact: &protov1.MeshFact{
		Workload: &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_PodUid{PodUid: uid}}, Mesh: mesh}}}
}

func containerFact(id, mesh string) *protov1.MeshChange {
	return &protov1.MeshChange{Change: &protov1.MeshChange_Fact{Fact: &protov1.MeshFact{
		Workload: &protov1.WorkloadRef{Workload: &protov1.WorkloadRef_Container{Container: &protov1.ContainerRef{Id: id}}}, Mesh: mesh}}}
}

func TestFactsAboutWorkloadsThatNobodyKnowsAreCountedAndNotKept(t *testing.T) {
	i := New(Options{})
	m := i.Mesh("generic")
	for n := range 1000 {
		if err := m.Apply([]*protov1.MeshChange{podFact(fmt.Sprint("u", n), "istio"), containerFact(fmt.Sprint("c", n), "istio")}); err != nil {
			t.Fatal(err)
		}
	}
	if len(i.pods)+len(i.containers) != 0 {
		t.Errorf("%d pods and %d containers are kept", len(i.pods), len(i.containers))
	}
	if n := i.Stats().Unplaced; n != 2000 {
		t.Errorf("%d facts are counted", n)
	}
}

func TestAPodThatOnlyContainersNameEndsWithThem(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", inPod("c", "u"))
	if err := i.Mesh("generic").Apply([]*protov1.MeshChange{podFact("u", "istio")}); err != nil {
		t.Fatal(err)
	}
	if v := i.Containers(); v[0].Mesh.GetMesh() != "istio" {
		t.Errorf("%v", v)
	}
	apply(t, i, "docker", inPod("c", "other"))
	if len(i.pods) != 0 {
		t.Errorf("%d pods are kept", len(i.pods))
	}
}

func TestADetectorsSnapshotTakesBackWhatItDoesNotTell(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", inPod("a", "u"), inPod("b", ""))
	m := i.Mesh("generic")
	start := &protov1.MeshChange{Change: &protov1.MeshChange_Reset_{Reset_: &protov1.Reset{}}}
	end := &protov1.MeshChange{Change: &protov1.MeshChange_Synced{Synced: &protov1.Synced{}}}
	mesh := func() string {
		out := map[string]string{}
		for _, v := range i.Containers() {
			out[v.Container.Id] = v.Mesh.GetMesh()
		}
		return fmt.Sprint(out)
	}
	for _, step := range []struct {
		changes []*protov1.MeshChange
		want    string
	}{
		{[]*protov1.MeshChange{start, podFact("u", "istio"), containerFact("b", "istio"), end}, "map[a:istio b:istio]"},
		{[]*protov1.MeshChange{start, containerFact("b", "consul")}, "map[a:istio b:consul]"},
		{[]*protov1.MeshChange{end}, "map[a: b:consul]"},
		{[]*protov1.MeshChange{start, end}, "map[a: b:]"},
	} {
		if err := m.Apply(step.changes); err != nil {
			t.Fatal(err)
		}
		if got := mesh(); got != step.want {
			t.Errorf("%s, want %s", got, step.want)
		}
	}
	if err := m.Apply([]*protov1.MeshChange{end}); err == nil {
		t.Error("synced without reset is taken")
	}
}

func TestTheFactsOfAForgottenDetectorAreTakenBack(t *testing.T) {
	i := New(Options{})
	apply(t, i, "docker", inPod("a", "u"), inPod("b", ""))
	gone, stays := i.Mesh("generic"), i.Mesh("istio")
	for m, changes := range map[*Mesh][]*protov1.MeshChange{
		gone: {podFact("u", "linkerd"), containerFact("b", "linkerd")}, stays: {containerFact("b", "istio")},
	} {
		if err := m.Apply(changes); err != nil {
			t.Fatal(err)
		}
	}
	gone.Forget()
	for _, v := range i.Containers() {
		if want := map[string]string{"b": "istio"}[v.Container.Id]; v.Mesh.GetMesh() != want {
			t.Errorf("container %s is in mesh %q, want %q", v.Container.Id, v.Mesh.GetMesh(), want)
		}
	}
}
