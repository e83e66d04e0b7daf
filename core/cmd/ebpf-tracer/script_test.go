package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ebpf-tracer/ebpf-tracer/core/api"
	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
)

var update = flag.Bool("update", false, "write what was found as what is wanted")

func TestMain(m *testing.M) {
	if sandbox.Called() { // this program is the daemon too
		sandbox.Main()
	}
	testscript.Main(m, map[string]func(){"ebpf-tracer": main})
}

// samplers are both samplers that come with the program, built, and their manifests.
func samplers(dir string) error {
	from := filepath.Join("..", "..", "..", "plugins", "sampler", "threshold")
	dir = filepath.Join(dir, "plugins", "sampler")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"threshold.plugin.hcl", "fixed.plugin.hcl"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "threshold"), "./"+from).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the samplers: %w\n%s", err, out)
	}
	return nil
}

// appendTo is the script command "append FILE TEXT".
func appendTo(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(args[1])
	ts.Check(errors.Join(err, f.Close()))
}

// Each script runs the program. $SOCKET is a real API socket; what answers on it
// has fixed numbers and one event every few milliseconds.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("STATE_DIRECTORY", filepath.Join(env.WorkDir, "state"))
			env.Setenv("SOCKET", filepath.Join(env.WorkDir, "api.sock"))
			script := filepath.Base(env.WorkDir)
			if strings.HasPrefix(script, "script-plugin_lock") || strings.HasPrefix(script, "script-sampler") {
				if err := samplers(env.WorkDir); err != nil {
					return err
				}
			}
			return serveAPI(env.Defer, env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": wantStatus, "append": appendTo},
	})
}

// wantStatus is the script command "status N PROGRAM ARGS...".
func wantStatus(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// serveAPI serves on dir/api.sock until what it defers is called.
func serveAPI(deferred func(func()), dir string) error {
	live := exporter.NewLive("live", exporter.NewEncoder("node-1", exporter.NewClock(func() (int64, int64) { return 1_700_000_000_000_000_000, 0 })))
	listener, err := api.Listen(filepath.Join(dir, "api.sock"))
	if err != nil {
		return err
	}
	server := api.New(api.Options{Listener: listener, Source: &figures{}, Live: live, Log: slog.New(slog.DiscardHandler)})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		emit(live, stop)
	}()
	deferred(func() {
		close(stop)
		<-stopped
		if err := errors.Join(live.Close(), server.Close(context.Background())); err != nil {
			panic(err)
		}
	})
	return nil
}

// emit exports an exec, an exit and a failed connect, again and again.
func emit(live *exporter.Live, stop <-chan struct{}) {
	events := []*event.Event{
		{Kind: event.ProcessExec, Priority: event.Info, PID: 42, TID: 42, NSPID: 1, Comm: []byte("sh\x1b[2J"), Threshold: event.Threshold(0.5),
			Exec: event.Exec{Path: []byte("/bin/sh"), Args: []byte("sh\x00-c\x00echo \x1b[31mred\x00")}},
		{Kind: event.ProcessExit, Priority: event.Error, PID: 42, TID: 42, NSPID: 1, Comm: []byte("sh"), Exit: event.Exit{Code: 3, DurationNS: 1_500_000}},
		{Kind: event.NetworkConnectFailed, Priority: event.Error, PID: 7, TID: 7, NSPID: 7, Comm: []byte("curl"), Network: event.Network{
			LocalAddr: []byte{0, 0, 0, 0}, PeerAddr: []byte{10, 0, 0, 1}, PeerPort: 443, Errno: 111}},
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, e := range events {
			live.Export(e, pipeline.Attribution{Pending: e.Kind == event.ProcessExit, Hint: "abcdef0123456789"})
		}
		live.Flush()
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// figures is an api.Source of fixed numbers.
type figures struct {
	reloads atomic.Int64
	added   added
}

func (*figures) Version() *protov1.GetVersionResponse {
	return &protov1.GetVersionResponse{Version: "v1.2.3", Revision: "abc", GoVersion: "go1", Kernel: "6.1.0"}
}

func (*figures) Plugins() []*protov1.PluginView {
	return []*protov1.PluginView{
		{Kind: protov1.Kind_KIND_SAMPLER, Name: "threshold", Version: "1", State: "running", Pid: 9, MemoryBytes: 12 << 20, CpuSeconds: 1.25},
		{Kind: protov1.Kind_KIND_DISCOVERER, Name: "docker", Version: "1", State: "degraded", Restarts: 2, QueueDropped: 3, Reason: "no docker on this host"},
		{Kind: protov1.Kind_KIND_DISCOVERER, Name: "crio", Version: "1", State: "running", Pid: 8, Found: "cri-o 1.34 at /run/crio.sock\x1b[2J"},
		{Kind: protov1.Kind_KIND_DISCOVERER, Name: "containerd", State: "absent", Reason: "no containerd at /run/containerd/containerd.sock"},
		{Kind: protov1.Kind_KIND_DISCOVERER, Name: "mine", State: "skipped", Reason: "it is not in the lock file"},
	}
}

func (*figures) Stats() (*protov1.Stats, error) {
	return &protov1.Stats{
		Node: "node-1",
		Kernel: []*protov1.LedgerRow{
			{Kind: "process.exec", Priority: "info", Seen: 110, Kept: 90, SampledOut: 10, Filtered: 6, Lost: 4, Bytes: 9000, Probability: 0.9,
				Estimate: &protov1.Estimate{Events: 90, Seen: 100.3, Low: 92, High: 108.6, Correction: 94.0 / 90}},
			{Kind: "process.exit", Priority: "error", Seen: 10, Kept: 10, Bytes: 900, Probability: 1},
			{Kind: "container.died", Priority: "error", Seen: 3, Kept: 2, Lost: 1, Probability: 1},
		},
		Pipeline: &protov1.Pipeline{Decoded: 95, Injected: 2, Malformed: 1, InRing: 1, Released: 92, Held: 5, SkippedRuns: 2},
		Exporters: []*protov1.ExporterStats{
			{Name: "json", Released: 92, Exported: 82, QueueDropped: 4, Failed: 3, ScopedOut: 2, Queued: 1, Bytes: 70_000, LastError: "no space left on device"},
		},
		Attribution: &protov1.Attribution{FirstExecs: 8, FirstExecsNamed: 7, Host: 10, Container: 72, Pending: 10, HeldTotal: 8, HeldExpired: 1, HeldOverflow: 2, Corrected: 1,
			DelayP50Seconds: 0.02, DelayP99Seconds: 0.5, Containers: 2, Cgroups: 30, Key: "default-hierarchy cgroup"},
		Queues:     []*protov1.QueueDepth{{Queue: "hold", Depth: 5, Capacity: 4096}},
		Policy:     &protov1.PolicyStats{Generation: 7, Source: "threshold", Swaps: 7, Refused: 1, Reason: "below 1,000 events a second"},
		Probes:     []*protov1.ProbeStats{{Name: "network", State: "partial", Reason: "network_accept: refused", Programs: []string{"a", "b"}}},
		Daemon:     &protov1.DaemonStats{Pid: 77, MemoryBytes: 40 << 20, CpuSeconds: 61.5},
		Faults:     map[string]uint64{"no_policy": 5, "no_scratch": 0},
		Discovered: &protov1.Discovered{Containers: 3, Namespaces: 9, Pods: 1, Services: 4},
		User: []*protov1.LedgerRow{
			{Kind: "user.http_request", Priority: "info", Seen: 1000, Kept: 100, SampledOut: 900, Probability: 0.5,
				Estimate: &protov1.Estimate{Events: 100, Seen: 1010, Low: 820, High: 1200, Correction: 1}},
		},
		UserEvents: &protov1.UserStats{Programs: 1, EventsPerSecond: 1000, Recorded: 100, Dropped: 900},
		Load: &protov1.LoadStats{
			CurrentLoad: 25_000, CurrentSamplingRate: 0.4, ProcessedEvents: 202, DroppedEvents: 915, DropRate: 0.819, AdaptationCount: 7,
			SystemLoad: &protov1.SystemLoad{CpuUsage: ptr(91.2)},
			Windows: []*protov1.LoadWindow{
				{Seconds: 1.002, SeenPerSecond: 25_000, KeptPerSecond: 10_000, SamplingRate: 0.4, DropRate: 0.6},
				{Seconds: 60.01, SeenPerSecond: 5000.4, KeptPerSecond: 4000, FilteredPerSecond: 600, SamplingRate: 0.909, DropRate: 0.091, Adaptations: 3},
			},
			Budget: &protov1.BudgetStats{EventsPerSecond: 10_000, Use: 1, Seconds: 90, SecondsWithin: 89, WorstRatio: 1.25},
			Level:  &protov1.LoadLevel{Level: "high", Resource: "disk", Name: "sda\x1b[2J", Share: ptr(0.85)},
			Relief: []string{"cpu 91 %, above 80 %: less of everything"}, PromotedRows: 12,
			Host: &protov1.HostLoad{
				Cpus: 2, CpuUtilization: ptr(0.912), DaemonCpuCores: ptr(0.125), DaemonMemoryBytes: 40 << 20, MemoryTotalBytes: 4 << 30, MemoryAvailableBytes: 3 << 30,
				NetworkBytesPerSecond: ptr(2048.0), DiskBytesPerSecond: ptr(1024.0), DiskUtilization: ptr(0.85), PressureCpu: &protov1.Pressure{Some: 0.3},
			},
			Alerts: []*protov1.LoadAlert{
				{Name: "high_drop_rate", Active: true, Times: 2, Text: "60.0 % of the events were dropped"},
				{Name: "low_sampling_rate", Times: 1, Text: "it is over"},
			},
		},
	}, nil
}

// Reload answers each call with the next of three answers.
func (f *figures) Reload(context.Context) (*protov1.ReloadResponse, error) {
	switch f.reloads.Add(1) {
	case 1:
		return &protov1.ReloadResponse{Refused: "config.hcl:2:11: Error: Value not allowed\n\n  on config.hcl line 2, in log:\n   2:   level = \"inf\"\n"}, nil
	case 2:
		return &protov1.ReloadResponse{}, nil
	}
	return &protov1.ReloadResponse{
		Warnings: "config.hcl:3:1: Warning: Deprecated\n",
		Changes: []*protov1.ReloadResponse_Change{
			{What: "log", Action: "changed"},
			{What: `sampler "fixed"`, Action: "kept", Reason: "replace plugin sampler/fixed: start: exit status 1", Failed: true},
			{What: "api", Action: "kept", Reason: "it takes effect at the next start of the daemon"},
		},
	}, nil
}
