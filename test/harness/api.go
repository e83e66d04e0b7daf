package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// apiConn is the connection to the daemon's local API, made at its first use.
type apiConn struct{ conn *grpc.ClientConn }

func (a *apiConn) closeAPI(t testing.TB) {
	if a.conn == nil {
		return
	}
	if err := a.conn.Close(); err != nil {
		t.Errorf("close the connection to the daemon: %v", err)
	}
	a.conn = nil
}

// API is the daemon's local API.
func (tr *Tracer) API() protov1.TracerClient {
	tr.t.Helper()
	if tr.conn == nil {
		conn, err := grpc.NewClient("unix:"+tr.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			tr.t.Fatalf("connect to the daemon: %v", err)
		}
		tr.conn = conn
	}
	return protov1.NewTracerClient(tr.conn)
}

var pluginBlock = regexp.MustCompile(`(?m)^\s*(discoverer|mesh|sampler)\s+"([a-z0-9-]+)"`)

// WaitPlugins waits until every plugin of the configuration is at work, running or
// degraded, and the sampler's policy is in force.
func (tr *Tracer) WaitPlugins() {
	tr.t.Helper()
	for _, m := range pluginBlock.FindAllStringSubmatch(tr.hcl, -1) {
		if m[2] == "auto" {
			continue // a word, and no plugin
		}
		tr.WaitPlugin(m[1], m[2], func(p *protov1.PluginView) bool {
			return p.GetState() == "running" || p.GetState() == "degraded"
		})
		if m[1] == "sampler" {
			tr.wait("the sampler's policy", func(ctx context.Context) error {
				s, err := tr.API().GetStats(ctx, &protov1.GetStatsRequest{})
				if err != nil {
					return err
				}
				if s.GetPolicy().GetSource() != m[2] {
					return fmt.Errorf("the policy in force is of %q", s.GetPolicy().GetSource())
				}
				return nil
			})
		}
	}
}

// WaitPlugin waits until a plugin is as wanted, and returns it.
func (tr *Tracer) WaitPlugin(kind, name string, as func(*protov1.PluginView) bool) (found *protov1.PluginView) {
	tr.t.Helper()
	tr.wait(fmt.Sprintf("plugin %s %q", kind, name), func(ctx context.Context) error {
		list, err := tr.API().ListPlugins(ctx, &protov1.ListPluginsRequest{})
		if err != nil {
			return err
		}
		for _, p := range list.GetPlugins() {
			if p.GetName() == name && p.GetKind().String() == "KIND_"+strings.ToUpper(kind) {
				if found = p; as(p) {
					return nil
				}
			}
		}
		return fmt.Errorf("the plugins are %v", list.GetPlugins())
	})
	return found
}

// WaitContainer waits until the daemon knows a container by its id.
func (tr *Tracer) WaitContainer(id string) (found *protov1.ContainerView) {
	tr.t.Helper()
	tr.wait("container "+id, func(ctx context.Context) error {
		for _, c := range tr.Containers() {
			if c.GetContainer().GetId() == id {
				found = c
				return nil
			}
		}
		return errors.New("the daemon does not know it")
	})
	return found
}

// Containers are all that the daemon knows.
func (tr *Tracer) Containers() (all []*protov1.ContainerView) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), Patience)
	defer cancel()
	pages, err := tr.API().ListContainers(ctx, &protov1.ListContainersRequest{})
	for err == nil {
		var page *protov1.ListContainersResponse
		if page, err = pages.Recv(); err == nil {
			all = append(all, page.GetContainers()...)
		}
	}
	if !errors.Is(err, io.EOF) {
		tr.t.Fatalf("list the containers: %v", err)
	}
	return all
}

// Command prepares a call of the command line, about this daemon.
func (tr *Tracer) Command(args ...string) *exec.Cmd {
	return exec.CommandContext(tr.t.Context(), tr.Binaries.Tracer, append(args, "--socket", tr.Socket)...)
}

// Ask runs the command line about this daemon and returns what it printed on standard
// output. The test fails if the command does, or complains.
func (tr *Tracer) Ask(args ...string) string {
	tr.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := tr.Command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		tr.t.Fatalf("ebpf-tracer %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// Stats of the daemon.
func (tr *Tracer) Stats() *protov1.Stats {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), Patience)
	defer cancel()
	s, err := tr.API().GetStats(ctx, &protov1.GetStatsRequest{})
	if err != nil {
		tr.t.Fatalf("ask for the stats: %v", err)
	}
	return s
}

// wait asks until there is no error.
func (tr *Tracer) wait(what string, ask func(context.Context) error) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), Patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		if !tr.Running() {
			tr.t.Fatalf("the daemon ended while the test waited for %s", what)
		}
		if ctx.Err() != nil {
			tr.t.Fatalf("waited in vain for %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
