package env

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestRuncRunsContainersAndNothingIsLeftAfterClose(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []Option
		died    bool
	}{
		{"with a root of its own", nil, false},
		{"with runc's default root", []Option{WithDefaultRuncRoot()}, false},
		{"after its owner died", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch(t)
			r, err := NewRunc(t.Context(), c.options...)
			if err != nil {
				t.Fatal(err)
			}
			closed := false
			defer func() {
				if !closed {
					closeWithTest(t, r.Close)
				}
			}()
			id := fmt.Sprintf("env-test-%d", os.Getpid())
			if out, err := r.Run(t.Context(), id+"-echo", BusyboxImage, nil, "echo", "from a container"); err != nil || out != "from a container" {
				t.Errorf("the container printed %q (%v)", out, err)
			}
			if _, err := r.Run(t.Context(), id+"-noop", NoopImage, nil, "/noop"); err != nil {
				t.Error(err)
			}
			grouped := func(s *specs.Spec) { s.Linux.CgroupsPath = "/default/" + id }
			if err := r.RunDetached(t.Context(), id, BusyboxImage, grouped, "sleep", "1000"); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(r.Root, id, "state.json")); err != nil {
				t.Errorf("runc's state is not where it should be: %v", err)
			}
			if groups, err := cgroupsOf([]string{id}); err != nil || len(groups) == 0 {
				t.Errorf("the container has no cgroup (%v)", err)
			}
			ids := r.state.containerIDs()
			if !slices.Contains(ids, id) || len(ids) != 1 {
				t.Errorf("the record knows containers %v, want %s alone", ids, id)
			}
			if c.died { // what the kernel does with the locks of a process that dies
				if err := errors.Join(r.state.lock.Close(), r.state.users.file.Close()); err != nil {
					t.Fatal(err)
				}
				if err := Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			closed = true
			closeWithTest(t, r.Close)
			checkGone(t, r.state, ids, nil)
		})
	}
}
