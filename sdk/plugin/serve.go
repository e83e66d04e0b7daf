package plugin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// Serve runs the process as a plugin and never returns. The process exits with
// 0 when the daemon asked it to or is gone, and with 1 when it could not serve.
// The life of the process:
//
//  1. Serve takes standard output for the handshake: what is printed from here on
//     goes to standard error, and from there to the daemon's log.
//  2. The daemon asks for the schema. A process that is only asked ends here.
//  3. Validate checks a configuration, any number of times, and does no I/O.
//  4. New is called once, with a configuration that Validate took. A process whose
//     New failed may be given another configuration, or is ended.
//  5. The methods of the kind are called, as their interface says
//     (discover.Discoverer, mesh.Detector, sampling.Sampler).
//  6. The context of New and of all methods is done when the daemon asks for the
//     end. What still runs half a second later is cut off.
//  7. The process exits. It also does so when the daemon is gone without a word.
//
// A process may end at any point by a signal that can't be caught. What must
// outlive it goes into Env.StateDir.
//
// Run by hand, it explains itself; with --describe it prints its schema.
func Serve(k Kind) {
	def := k.definition()
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		os.Exit(byHand(def, os.Args[1:], os.Stdout, os.Stderr))
	}
	std, err := claimStdio()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", def.name, err)
		os.Exit(1)
	}
	runtime.MemProfileRate = 0 // the profile that nobody takes costs a megabyte
	p := newProcess(def, newLogger(std.stderr), std)
	go watchParent(p.ctx, p.orphaned)
	go p.shed(p.ctx)
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion:  wire.ProtocolVersion,
			MagicCookieKey:   wire.CookieKey,
			MagicCookieValue: wire.CookieValue,
		},
		VersionedPlugins: wire.Versioned(goplugin.PluginSet{wire.Service: services{process: p}}),
		GRPCServer:       p.newServer,
		Logger:           hclog.NewNullLogger(),
	})
	// go-plugin returns both after an orderly end and when it could not listen.
	if p.ctx.Err() == nil {
		p.log.Error("plugin could not serve", "socket_dir", os.Getenv(goplugin.EnvUnixSocketDir))
		os.Exit(1)
	}
	os.Exit(0)
}

// byHand answers a person at a terminal. It returns the exit code.
func byHand(def definition, args []string, out, errOut io.Writer) int {
	if !slices.Contains(args, "--describe") {
		fmt.Fprintf(errOut, "%s is a plugin of ebpf-tracer (%s, version %s) and is started by it: write\n"+
			"  %s %q {}\nin config.hcl and run `ebpf-tracer run`. With --describe it prints its schema.\n",
			def.name, wire.KindName(def.kind), def.version, wire.KindName(def.kind), def.name)
		return 1
	}
	d, err := def.describe()
	if err != nil {
		fmt.Fprintf(errOut, "%s: describe: %v\n", def.name, err)
		return 1
	}
	// protojson varies its spaces on purpose; encoding/json settles them.
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(d)
	if err == nil {
		var v any
		if err = json.Unmarshal(raw, &v); err == nil {
			readable(v)
			enc := json.NewEncoder(out)
			enc.SetIndent("", "  ")
			err = enc.Encode(v)
		}
	}
	if err != nil {
		fmt.Fprintf(errOut, "%s: print the schema: %v\n", def.name, err)
		return 1
	}
	return 0
}

// readable puts the value of each default in the place of its encoding.
func readable(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			readable(e)
		}
	case map[string]any:
		if s, ok := v["default_json"].(string); ok {
			if raw, err := base64.StdEncoding.DecodeString(s); err == nil {
				delete(v, "default_json")
				v["default"] = json.RawMessage(raw)
			}
		}
		for _, e := range v {
			readable(e)
		}
	}
}

// services is the go-plugin side of a process.
type services struct {
	goplugin.NetRPCUnsupportedPlugin
	process *process
}

func (s services) GRPCServer(_ *goplugin.GRPCBroker, srv *grpc.Server) error {
	s.process.register(srv)
	return nil
}

func (services) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("this is the plugin's side of the connection")
}
