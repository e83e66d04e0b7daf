package plugin

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestHealthAnswersWhileThePluginIsBuilt(t *testing.T) {
	building, finish := make(chan struct{}), make(chan struct{})
	k := Discoverer[conf]{Name: "slow", New: func(_ context.Context, _ conf, env Env) (discover.Discoverer, error) {
		if len(env.Features) != 1 || env.Features[0] != "later" {
			t.Errorf("features are %q", env.Features)
		}
		close(building)
		<-finish
		return nil, nil
	}}
	l := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- ServeListener(ctx, l, k, slog.New(slog.DiscardHandler)) }()
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rpc := protov1.NewPluginClient(conn)
	configured := make(chan error, 1)
	go func() {
		_, err := rpc.Configure(t.Context(), &protov1.ConfigureRequest{Features: []string{"later"}})
		configured <- err
	}()
	<-building
	asked, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	if _, err := rpc.Health(asked, &protov1.HealthRequest{}); err != nil {
		t.Errorf("health during Configure: %v", err)
	}
	close(finish)
	if err := <-configured; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}
