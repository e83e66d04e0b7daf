// Command dialler is a discoverer whose runtime is a server inside another network
// namespace: Detect tells what it said.
package main

import (
	"context"
	"io"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/netns"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

type config struct {
	Namespace string `json:"namespace"`
	Address   string `json:"address"`
}

func main() {
	plugin.Serve(plugin.Discoverer[config]{
		Name: "dialler", Version: "1", Doc: "A test.",
		Schema: schema.Block{Doc: "A test.", Attributes: []schema.Attribute{
			{Name: "namespace", Type: schema.String, Required: true, Opens: schema.Path, Doc: "The namespace's file."},
			{Name: "address", Type: schema.String, Required: true, Opens: schema.Network, Doc: "Where the server listens."},
		}},
		New: func(_ context.Context, c config, _ plugin.Env) (discover.Discoverer, error) { return dialler(c), nil },
	})
}

type dialler config

func (d dialler) Detect(ctx context.Context) (string, error) {
	c, err := netns.Path(d.Namespace).Dial(ctx, "tcp", d.Address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	said, err := io.ReadAll(c)
	return string(said), err
}

func (d dialler) Discover(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
	if err := inv.Reset(); err != nil {
		return err
	}
	if err := inv.Synced(); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
