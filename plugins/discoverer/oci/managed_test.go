package main

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// Containers whose managers have discoverers of their own are told under the same name as
// by those, and what happens to them is not told twice.
func TestContainersOfManagersAreTheSameAsTheirs(t *testing.T) {
	t.Run("Docker", func(t *testing.T) {
		d := env.StartDocker(t)
		exec := filepath.Join(filepath.Dir(d.Socket), "docker/exec/runtime-runc")
		r, _ := start(t, defaults(exec), node(t))
		id := d.Run(t, "--detach", "--name", "web", "--memory", "64m", "--cap-drop", "MKNOD", "--cap-add", "NET_ADMIN", env.BusyboxImage, "sleep", "1000")
		r.wait("the container", inState(id, running))
		got := r.container(id)
		if got.Scope != "" || got.Name != "" || got.Runtime != "docker" || got.Limits.GetMemoryBytes() != 64<<20 || got.CgroupPath != "/docker/"+id || got.Security.Seccomp != "filtered" ||
			!slices.Equal(got.Security.CapabilitiesAdded, []string{"NET_ADMIN"}) || !slices.Equal(got.Security.CapabilitiesDropped, []string{"MKNOD"}) {
			t.Errorf("it is %v", got)
		}
		if _, err := d.CLI(t.Context(), "pause", "web"); err != nil {
			t.Fatal(err)
		}
		r.wait("its pause", inState(id, paused))
		if _, err := d.CLI(t.Context(), "rm", "--force", "web"); err != nil {
			t.Fatal(err)
		}
		r.wait("its removal", removed(id))
		if w := r.words(id); len(w) != 0 {
			t.Errorf("what happened is Docker's to tell: %q", w)
		}
	})
	t.Run("containerd", func(t *testing.T) {
		c := env.StartContainerd(t)
		r, _ := start(t, defaults(filepath.Join(filepath.Dir(c.Socket), "containerd/runc")), node(t))
		c.Run(t, "--detach", env.BusyboxImage, "web", "sleep", "1000")
		r.wait("the container", inState("web", running))
		got := r.container("web")
		if got.Scope != "containerd:"+env.CtrNamespace || got.Name != "web" || got.Runtime != "containerd" || got.CgroupPath != "/"+env.CtrNamespace+"/web" || got.CgroupId == 0 {
			t.Errorf("it is %v", got)
		}
		if w := r.words("web"); len(w) != 0 {
			t.Errorf("what happened is containerd's to tell: %q", w)
		}
	})
}
