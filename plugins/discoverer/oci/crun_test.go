package main

import (
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestTheLifeOfAContainerOfCrun(t *testing.T) {
	b := startBare(t, "crun")
	b.alone()
	c := defaults(b.root)
	c.Env = true
	r, host := start(t, c, node(t))
	r.wait("the snapshot", synced(1))
	top := path.Base(b.within)
	k := followKernel(t, host, top)
	dir := b.bundle("life", func(s *specs.Spec) {
		s.Process.Env = []string{"PATH=/bin"}
		s.Process.User = specs.User{UID: 1000, GID: 100}
	}, "sleep", "1000")
	b.call("create", "--bundle", dir, "life")
	r.wait("the container, and where its cgroup is", func(r *recorder) bool {
		return inState("life", created)(r) && r.containers["life"].Pid != 0 && r.containers["life"].CgroupPath == "/"+top+"/life"
	})
	got := r.container("life")
	if got.Name != "life" || got.Scope != "oci:"+b.root || got.Runtime != "oci" || !slices.Equal(got.Args, []string{"sleep", "1000"}) || !slices.Equal(got.Env, []string{"PATH=/bin"}) ||
		got.Security.User != "1000:100" || got.CreatedUnixNano == 0 || got.CgroupId != k.id(got.CgroupPath) {
		t.Errorf("it is %v", got)
	}
	b.call("start", "life")
	r.wait("its start", inState("life", running))
	b.call("pause", "life")
	r.wait("its pause", inState("life", paused))
	b.call("resume", "life")
	r.wait("that it runs again", inState("life", running))
	b.call("kill", "life", "KILL")
	r.wait("its end", inState("life", exited))
	b.call("delete", "life")
	r.wait("its removal", removed("life"))
	if got, want := r.words("life"), []string{"created", "started", "paused", "unpaused", "died", "removed"}; !slices.Equal(got, want) {
		t.Errorf("what happened is %q, want %q", got, want)
	}
	t.Run("and of one that lives for milliseconds", func(t *testing.T) {
		whole := 0
		for i := range 5 {
			name := fmt.Sprintf("short-%d", i)
			b.call("run", "--bundle", b.bundle(name, nil, "true"), name)
			r.wait("its removal", removed(name))
			whole += shortLife(t, r, name)
			id := k.id("/" + top + "/" + name)
			r.answered(id)
			if got, _ := r.answer(id); got != name || id == 0 {
				t.Errorf("its cgroup %d is said to be of %q", id, got)
			}
		}
		if whole == 0 {
			t.Error("of none is told that it started and died")
		}
	})
	t.Run("and of one that was there before", func(t *testing.T) {
		b.run("before", nil, "sleep", "1000")
		c := c
		c.Proc = "/proc"
		again, _ := start(t, c, node(t))
		again.wait("the snapshot", synced(1))
		if got := again.container("before"); got.GetState() != running || got.GetCgroupPath() != "/"+top+"/before" {
			t.Errorf("it is %v", got)
		}
	})
}
