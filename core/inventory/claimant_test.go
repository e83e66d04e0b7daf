package inventory

import (
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func considered(id uint64) *protov1.InventoryChange {
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Considered{Considered: &protov1.Considered{CgroupId: id}}}
}

func TestANewCgroupIsPendingUntilEveryClaimantHasAnswered(t *testing.T) {
	i := New(Options{})
	i.CgroupCreated(1, "/before", time.Now())
	i.Claims("oci")
	i.Claims("containerd")
	i.Claims("oci") // its stream was opened again
	i.CgroupCreated(2, "/default/web", time.Now())
	i.CgroupCreated(3, "/system.slice/ssh.service", time.Now())
	ids := []uint64{1, 2, 3}
	checkNames(t, i, "before an answer", ids, "host", "pending", "pending")
	apply(t, i, "oci", considered(2), considered(3), considered(99))
	checkNames(t, i, "after one's answer", ids, "host", "pending", "pending")
	apply(t, i, "docker", considered(2)) // has claimed nothing
	checkNames(t, i, "after another's words", ids, "host", "pending", "pending")
	apply(t, i, "containerd", telling(&protov1.Container{Id: "web", Scope: "containerd:default", Name: "web", CgroupId: 2}), considered(3))
	checkNames(t, i, "after both answers", ids, "host", "web", "host")
}

func TestAClaimantThatIsAwayIsWaitedForNoLongerThanItTakesToStartAgain(t *testing.T) {
	now := time.Unix(1000, 0)
	i := New(Options{Now: func() time.Time { return now }})
	i.Claims("oci")
	i.Away("oci")
	i.CgroupCreated(1, "/a", time.Now())
	checkNames(t, i, "it has just gone", []uint64{1}, "pending")
	now = now.Add(claimGrace)
	i.CgroupCreated(2, "/b", time.Now())
	checkNames(t, i, "it stays away", []uint64{1, 2}, "pending", "host")
	i.Claims("oci")
	i.CgroupCreated(3, "/c", time.Now())
	checkNames(t, i, "it is back", []uint64{2, 3}, "host", "pending")
	i.Forget("oci")
	i.CgroupCreated(4, "/d", time.Now())
	checkNames(t, i, "it is not wanted any more", []uint64{1, 2, 3, 4}, "host", "host", "host", "host")
}

func TestThereIsRoomForSoManyClaimantsOnly(t *testing.T) {
	i := New(Options{})
	for range mostClaimants {
		i.Claims(string(rune('a' + len(i.claimants))))
	}
	i.Claims("one more")
	if got := i.Stats().Refused; got != 1 {
		t.Errorf("%d were refused, want 1", got)
	}
	i.Forget("a")
	i.Claims("one more")
	if got := i.Stats().Refused; got != 1 {
		t.Errorf("%d were refused once there was room, want 1", got)
	}
}

func TestACgroupOfAnEarlierContainerOfTheSameIDKeepsIt(t *testing.T) {
	web := func(created int64, image string) *protov1.InventoryChange {
		return telling(&protov1.Container{
			Id: "web", Scope: "containerd:default", Name: image, CreatedUnixNano: created, CgroupPath: "/default/web",
		})
	}
	i := New(Options{})
	apply(t, i, "containerd", web(1, "first"))
	i.CgroupCreated(1, "/default/web", time.Now())
	apply(t, i, "containerd", web(1, "its first"), web(2, "first, with a better time"))
	checkNames(t, i, "described again", []uint64{1}, "first, with a better time")
	i.CgroupRemoved(1, time.Now())
	apply(t, i, "containerd", removedIn("containerd:default", "web"), web(3, "second"))
	i.CgroupCreated(2, "/default/web", time.Now())
	checkNames(t, i, "", []uint64{1, 2}, "first, with a better time", "second")
	if n := i.Stats().Containers; n != 1 {
		t.Errorf("%d containers are there, want 1", n)
	}
	apply(t, i, "containerd", removedIn("containerd:default", "web"), web(3, "back"))
	checkNames(t, i, "the same is described after its removal", []uint64{1, 2}, "first, with a better time", "back")
}
