// Command badplugin is a discoverer with one fault. Its first argument is the fault,
// after which it is called bad-FAULT; its second a file: faults of the start show while that
// file is there, the others when the process gets SIGUSR1. Until then, and again once
// the file is gone, it is a good plugin that tells one container.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: badplugin FAULT FILE [hold]")
		os.Exit(2)
	}
	fault, file := os.Args[1], os.Args[2]
	if len(os.Args) > 3 {
		signal.Ignore(syscall.SIGHUP, syscall.SIGTERM)
		time.Sleep(time.Hour) // holds standard error
	}
	atStart := false
	// The plugin's own directory, as the host knows it and as it may see it itself.
	for _, at := range []string{file, filepath.Join("/state", filepath.Base(file))} {
		if _, err := os.Stat(at); err == nil {
			atStart = true
		}
	}
	switch {
	case fault == "stdout-before":
		pollute("before the handshake")
	case fault == "mute" && atStart:
		fmt.Fprintln(os.Stderr, "thinks before it shakes hands")
		time.Sleep(time.Hour)
	case fault == "older" && atStart:
		otherVersion(0)
	case fault == "newer" && atStart:
		otherVersion(99)
	case fault == "too-large":
		raw("bad-" + fault)
		return
	}
	trigger := make(chan os.Signal, 1)
	signal.Notify(trigger, syscall.SIGUSR1)
	plugin.Serve(plugin.Discoverer[struct{}]{
		Name: "bad-" + fault, Version: "1.0", Doc: "A plugin with a fault.",
		New: func(context.Context, struct{}, plugin.Env) (discover.Discoverer, error) {
			switch {
			case fault == "slow-configure" && atStart:
				time.Sleep(time.Hour)
			case fault == "grandchild":
				return &bad{fault, trigger}, hold(fault, file)
			}
			return &bad{fault, trigger}, nil
		},
	})
}

// pollute prints what is no handshake to standard output: lines, one that is too long
// for any buffer, and bytes that are no text.
func pollute(when string) {
	for range 3 {
		fmt.Fprintln(os.Stdout, "printed "+when)
	}
	fmt.Fprintln(os.Stdout, strings.Repeat("-", 300<<10))
	fmt.Fprintf(os.Stdout, "|1|\x00\xff\xfe|unix|\n")
}

// otherVersion shakes hands as a plugin that was built for another protocol.
func otherVersion(version int) {
	fmt.Printf("1|%d|unix|%s|grpc\n", version, filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin0"))
	time.Sleep(time.Hour)
}

// hold starts a process that has nothing to do with the plugin any more but for its
// standard error.
func hold(fault, file string) error {
	cmd := exec.Command("/proc/self/exe", fault, file, "hold")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

type bad struct {
	fault   string
	trigger <-chan os.Signal
}

func (*bad) Detect(context.Context) (string, error) { return "here", nil }

func (b *bad) Discover(ctx context.Context, host discover.Host, inv discover.Inventory) error {
	var facts <-chan *protov1.HostFacts
	if b.fault == "stall" {
		facts = host.Facts(&protov1.Subscribe{Cgroups: true})
	}
	if err := inv.Reset(); err != nil {
		return err
	}
	if err := inv.Container(container("bad-" + b.fault)); err != nil {
		return err
	}
	if err := inv.Synced(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-facts:
		case <-b.trigger:
			facts = nil // the fault of stall
			b.misbehave()
		}
	}
}

func container(name string) *protov1.Container {
	return &protov1.Container{Id: fmt.Sprintf("%064x", name), Name: name, State: protov1.Container_STATE_RUNNING}
}

func (b *bad) misbehave() {
	switch b.fault {
	case "exit":
		os.Exit(0)
	case "panic":
		go func() { panic("out of its mind") }()
	case "stdout-after":
		pollute("after the handshake")
		// Past the SDK, as a library in C would.
		_, _ = syscall.Write(1, []byte("written to descriptor 1\n"+strings.Repeat("=", 300<<10)+"\n"))
	case "long-line":
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 1<<20))
		fmt.Fprintln(os.Stderr, "after the long line")
	case "flood":
		for n := range 200_000 {
			fmt.Fprintln(os.Stderr, "line", n, "of a flood")
		}
	case "hog":
		var all [][]byte
		for range 1024 {
			piece := make([]byte, 1<<20)
			for i := 0; i < len(piece); i += 4096 {
				piece[i] = 1
			}
			all = append(all, piece)
		}
		fmt.Fprintln(os.Stderr, "holds", len(all), "MiB")
	}
}

// raw serves without the SDK, which would refuse to send a message that is too large.
func raw(name string) {
	socket := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin1")
	l, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := grpc.NewServer(grpc.MaxSendMsgSize(64 << 20))
	r := &rawPlugin{name: name, server: s, trigger: make(chan os.Signal, 1)}
	signal.Notify(r.trigger, syscall.SIGUSR1)
	protov1.RegisterPluginServer(s, r)
	protov1.RegisterDiscovererServer(s, rawDiscoverer{r: r})
	fmt.Printf("1|1|unix|%s|grpc\n", socket)
	if err := s.Serve(l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type rawPlugin struct {
	protov1.UnimplementedPluginServer
	name    string
	server  *grpc.Server
	trigger chan os.Signal
}

func (r *rawPlugin) Describe(context.Context, *protov1.DescribeRequest) (*protov1.DescribeResponse, error) {
	return &protov1.DescribeResponse{Kind: protov1.Kind_KIND_DISCOVERER, Name: r.name, Version: "1.0", Schema: &protov1.Block{}}, nil
}

func (*rawPlugin) Validate(context.Context, *protov1.ValidateRequest) (*protov1.ValidateResponse, error) {
	return &protov1.ValidateResponse{}, nil
}

func (*rawPlugin) Configure(context.Context, *protov1.ConfigureRequest) (*protov1.ConfigureResponse, error) {
	return &protov1.ConfigureResponse{}, nil
}

func (*rawPlugin) Health(context.Context, *protov1.HealthRequest) (*protov1.HealthResponse, error) {
	return &protov1.HealthResponse{}, nil
}

func (r *rawPlugin) Shutdown(context.Context, *protov1.ShutdownRequest) (*protov1.ShutdownResponse, error) {
	time.AfterFunc(10*time.Millisecond, r.server.Stop)
	return &protov1.ShutdownResponse{}, nil
}

type rawDiscoverer struct {
	protov1.UnimplementedDiscovererServer
	r *rawPlugin
}

func (d rawDiscoverer) Discover(stream grpc.BidiStreamingServer[protov1.HostFacts, protov1.InventoryChanges]) error {
	err := stream.Send(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{
		{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}},
		{Change: &protov1.InventoryChange_Container{Container: container(d.r.name)}},
		{Change: &protov1.InventoryChange_Synced{Synced: &protov1.Synced{}}},
	}})
	if err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
		return nil
	case <-d.r.trigger:
	}
	large := container(d.r.name)
	large.Name = strings.Repeat("n", 5<<20)
	err = stream.Send(&protov1.InventoryChanges{Changes: []*protov1.InventoryChange{{Change: &protov1.InventoryChange_Container{Container: large}}}})
	if err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}
