// Command broken is a discoverer written without the SDK, straight onto gRPC, and in
// the way that its argument says it is wrong. "sound" is none.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(wrong string) error {
	if wrong == "prints before the handshake" {
		fmt.Println("hello")
	}
	if wrong == "shakes no hands" {
		select {}
	}
	l, err := net.Listen("unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin1"))
	if err != nil {
		return err
	}
	b := &broken{wrong: wrong, server: grpc.NewServer(), over: make(chan struct{})}
	protov1.RegisterPluginServer(b.server, b)
	protov1.RegisterDiscovererServer(b.server, discoverer{broken: b})
	fmt.Printf("1|1|unix|%s|grpc|\n", l.Addr())
	if wrong != "does not read its standard input" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	return b.server.Serve(l)
}

type broken struct {
	protov1.UnimplementedPluginServer
	wrong  string
	server *grpc.Server
	over   chan struct{}
	once   sync.Once

	mu         sync.Mutex
	configured bool
	streams    int
	open       int
}

func (b *broken) Describe(context.Context, *protov1.DescribeRequest) (*protov1.DescribeResponse, error) {
	d := &protov1.DescribeResponse{Kind: protov1.Kind_KIND_DISCOVERER, Name: "broken", Version: "1", Doc: "A test.", Schema: &protov1.Block{
		Attributes: []*protov1.Attribute{{Name: "socket", Type: protov1.Attribute_TYPE_STRING, DefaultJson: []byte(`"/run/x"`), Doc: "The socket."}},
	}}
	switch b.wrong {
	case "has another name":
		d.Name = "other"
	case "does not document":
		d.Schema.Attributes[0].Doc = ""
	case "has a wrong default":
		d.Schema.Attributes[0].DefaultJson = []byte("7")
	}
	return d, nil
}

var errNone = errors.New("no configuration")

func (b *broken) read(raw []byte) error {
	if b.wrong == "takes anything" {
		return nil
	}
	var c struct{ Socket *string }
	err := json.Unmarshal(raw, &c)
	if err != nil && b.wrong == "ends on garbage" {
		panic(err)
	}
	if b.wrong == "refuses its defaults" {
		return errNone
	}
	return err
}

func diagnostics(err error) []*protov1.Diagnostic {
	if err == nil {
		return nil
	}
	d := &protov1.Diagnostic{Summary: "refused", Detail: err.Error()}
	if errors.Is(err, errNone) {
		d.Path = []*protov1.PathStep{{Step: &protov1.PathStep_Attribute{Attribute: "no_such"}}}
	}
	return []*protov1.Diagnostic{d}
}

func (b *broken) Validate(_ context.Context, r *protov1.ValidateRequest) (*protov1.ValidateResponse, error) {
	return &protov1.ValidateResponse{Diagnostics: diagnostics(b.read(r.GetConfig()))}, nil
}

func (b *broken) Configure(_ context.Context, r *protov1.ConfigureRequest) (*protov1.ConfigureResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.configured && b.wrong != "is configured again" {
		return nil, status.Error(codes.FailedPrecondition, "configured already")
	}
	err := b.read(r.GetConfig())
	b.configured = err == nil
	return &protov1.ConfigureResponse{Diagnostics: diagnostics(err)}, nil
}

func (b *broken) Health(ctx context.Context, _ *protov1.HealthRequest) (*protov1.HealthResponse, error) {
	b.mu.Lock()
	open := b.open
	b.mu.Unlock()
	if open > 0 && b.wrong == "is not healthy at work" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &protov1.HealthResponse{}, nil
}

func (b *broken) Shutdown(context.Context, *protov1.ShutdownRequest) (*protov1.ShutdownResponse, error) {
	if b.wrong != "stays when asked to go" {
		b.once.Do(func() {
			close(b.over)
			go b.server.GracefulStop()
		})
	}
	return &protov1.ShutdownResponse{}, nil
}

type discoverer struct {
	protov1.UnimplementedDiscovererServer
	*broken
}

func (d discoverer) Detect(context.Context, *protov1.DetectRequest) (*protov1.DetectResponse, error) {
	return &protov1.DetectResponse{Present: true, Detail: "here"}, nil
}

func (d discoverer) Discover(stream grpc.BidiStreamingServer[protov1.HostFacts, protov1.InventoryChanges]) error {
	d.mu.Lock()
	configured := d.configured
	d.streams++
	first := d.streams == 1
	d.open++
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open--
	}()
	if !configured && d.wrong != "streams unconfigured" {
		return status.Error(codes.FailedPrecondition, "not configured")
	}
	if d.wrong == "prints at work" {
		fmt.Println("working")
	}
	reset := &protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}}
	synced := &protov1.InventoryChange{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}}}
	container := &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: "a"}}}
	subscribe := &protov1.InventoryChange{Change: &protov1.InventoryChange_Subscribe{Subscribe: &protov1.Subscribe{Cgroups: true}}}
	changes := []*protov1.InventoryChange{subscribe, reset, container, synced}
	if d.wrong == "does not reset" || d.wrong == "resets once" && !first {
		changes = []*protov1.InventoryChange{container, reset, synced}
	}
	if err := stream.Send(&protov1.InventoryChanges{Changes: changes}); err != nil {
		return err
	}
	if d.wrong == "ends its stream" {
		return nil
	}
	if d.wrong == "ends on later editions" {
		go endOnLater(stream)
	}
	select {
	case <-stream.Context().Done():
	case <-d.over:
	}
	return nil
}

// endOnLater ends the process on a fact that it does not know.
func endOnLater(stream grpc.BidiStreamingServer[protov1.HostFacts, protov1.InventoryChanges]) {
	for {
		facts, err := stream.Recv()
		if err != nil {
			return
		}
		for _, f := range facts.GetFacts() {
			if f.GetFact() == nil {
				fmt.Fprintln(os.Stderr, "a fact that is not known")
				os.Exit(2)
			}
		}
	}
}
