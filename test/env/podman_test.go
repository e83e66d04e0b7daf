package env

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPodmanRunsContainersAndIsGoneAfterClose(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []Option
		before  func(t *testing.T, p *Podman) // happens to the service before Close
	}{
		{"while all is well", nil, func(t *testing.T, p *Podman) {}},
		{"with a network", []Option{WithBridge()}, func(t *testing.T, p *Podman) {}},
		{"after the service was killed", nil, func(t *testing.T, p *Podman) {
			if err := p.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"after its owner died", nil, func(t *testing.T, p *Podman) {
			// what the kernel does with the locks of a process that dies
			if err := errors.Join(p.state.lock.Close(), p.state.users.file.Close()); err != nil {
				t.Fatal(err)
			}
			if err := Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			watch(t)
			p, err := NewPodman(t.Context(), c.options...)
			if err != nil {
				t.Fatal(err)
			}
			closed := false
			defer func() {
				if !closed {
					closeWithTest(t, p.Close)
				}
			}()
			if got := p.Run(t, "--rm", BusyboxImage, "echo", "from a container"); got != "from a container" {
				t.Errorf("the container printed %q", got)
			}
			p.Run(t, "--rm", NoopImage)
			id := p.Run(t, "--detach", "--name", "named", BusyboxImage, "sleep", "1000")
			if len(id) != 64 {
				t.Fatalf("podman run printed %q, want an id", id)
			}
			groups, err := cgroupsOf([]string{id})
			if err != nil || len(groups) == 0 || !strings.Contains(strings.Join(groups, " "), "/libpod_parent/libpod-"+id) {
				t.Errorf("the container's cgroups are %v (%v)", groups, err)
			}
			if len(c.options) > 0 {
				if ip, err := p.CLI(t.Context(), "inspect", "--format", "{{.NetworkSettings.IPAddress}}", id); err != nil || ip == "" {
					t.Errorf("the container's address is %q (%v)", ip, err)
				}
			}
			ids := p.state.containerIDs()
			if !slices.Contains(ids, id) {
				t.Errorf("the record knows containers %v, want %s", ids, id)
			}
			c.before(t, p)
			closed = true
			closeWithTest(t, p.Close)
			checkGone(t, p.state, ids, nil)
		})
	}
}

func TestPodmansServiceSpeaksDockersAPI(t *testing.T) {
	p := StartPodman(t)
	id := p.Run(t, "--detach", "--name", "named", "--label", "mine=yes", BusyboxImage, "sleep", "1000")
	docker, err := command("docker")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (string, error) {
		cmd := p.Command(t.Context(), "")
		cmd.Path, cmd.Args = docker, []string{docker, "--host", "unix://" + p.Socket, "ps", "--no-trunc", "--quiet"}
		return output(cmd)
	}
	if got, err := ask(); err != nil || got != id {
		t.Errorf("docker ps printed %q (%v), want %s", got, err, id)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(); err != nil || got != id {
		t.Errorf("after a restart docker ps printed %q (%v), want %s", got, err, id)
	}
}
