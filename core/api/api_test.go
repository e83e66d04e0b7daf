package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/core/exporter"
	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	"github.com/ebpf-tracer/ebpf-tracer/core/pipeline"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// answers is a Source of fixed answers.
type answers struct {
	containers []*protov1.ContainerView
	namespaces []*protov1.Namespace
	statsErr   error
	reloadErr  error
}

func (a *answers) Version() *protov1.GetVersionResponse {
	return &protov1.GetVersionResponse{Version: "1.2.3", Kernel: "6.1.0"}
}

func (a *answers) Containers() []*protov1.ContainerView { return a.containers }

func (a *answers) FindContainers(word string, most int) (found []*protov1.ContainerView) {
	for _, c := range a.containers {
		if len(found) < most && strings.HasPrefix(c.GetContainer().GetId(), word) {
			found = append(found, c)
		}
	}
	return found
}

func (a *answers) Process(pid uint32) (*protov1.ProcessView, *protov1.ContainerView, error) {
	process := &protov1.ProcessView{Pid: pid, NsPids: []uint32{pid, 1}, Comm: "sh\xff"}
	switch pid {
	case 1:
		return process, nil, nil
	case 2:
		return nil, nil, fmt.Errorf("read the cgroup of process 2: %w", fs.ErrNotExist)
	case 3:
		return nil, nil, errors.New("the table is gone")
	}
	return process, a.containers[0], nil
}

func (a *answers) HostPID(container *protov1.ContainerRef, pid uint32) (uint32, error) {
	switch pid {
	case 2:
		return 0, fmt.Errorf("find it: %w", fs.ErrNotExist)
	case 3:
		return 0, errors.New("it was not read yet")
	}
	return 1000 + pid, nil
}

func (a *answers) Namespaces(types ...namespace.Type) (out []*protov1.Namespace) {
	for _, n := range a.namespaces {
		if t, ok := namespace.ParseType(n.GetRef().GetType()); ok && slices.Contains(types, t) {
			out = append(out, n)
		}
	}
	return out
}

func (a *answers) Namespace(id namespace.ID) *protov1.Namespace {
	for _, n := range a.namespaces {
		if n.GetRef().GetType() == id.Type.String() && n.GetRef().GetInode() == id.Inode {
			return n
		}
	}
	return nil
}

func (a *answers) Plugins() []*protov1.PluginView {
	return []*protov1.PluginView{{Name: "docker", Kind: protov1.Kind_KIND_DISCOVERER, State: "running", Reason: "not \xff UTF-8"}}
}

func (a *answers) Stats() (*protov1.Stats, error) {
	return &protov1.Stats{Node: "node-1"}, a.statsErr
}

func (a *answers) Reload(context.Context) (*protov1.ReloadResponse, error) {
	if a.reloadErr != nil {
		return nil, a.reloadErr
	}
	return &protov1.ReloadResponse{Changes: []*protov1.ReloadResponse_Change{{What: "log", Action: "changed"}}}, nil
}

// running is a server over a real socket, with a client of it.
type running struct {
	*Server
	socket string
	live   *exporter.Live
	client *client.Client
}

func clock() (int64, int64) { return 1_700_000_000_000_000_000, 0 }

// run starts a server; the caller or the test's end closes it.
func run(t testing.TB, source Source) *running {
	t.Helper()
	r := &running{
		socket: filepath.Join(t.TempDir(), "run", "api.sock"),
		live:   exporter.NewLive("live", exporter.NewEncoder("node-1", exporter.NewClock(clock))),
	}
	listener, err := Listen(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = New(Options{Listener: listener, Source: source, Live: r.live, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if r.client, err = client.Dial(t.Context(), r.socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.client.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func container(id string) *protov1.ContainerView {
	return &protov1.ContainerView{Container: &protov1.Container{Id: id, Name: "name-" + id}}
}

func TestQuestionsAreAnsweredFromTheSource(t *testing.T) {
	a := &answers{containers: []*protov1.ContainerView{container("a")}}
	r := run(t, a)
	version, err := r.client.Version(t.Context())
	if err != nil || version.GetVersion() != "1.2.3" || version.GetKernel() != "6.1.0" {
		t.Error(version, err)
	}
	containers, err := r.client.ListContainers(t.Context())
	if err != nil || len(containers) != 1 || !proto.Equal(containers[0], a.containers[0]) {
		t.Error(containers, err)
	}
	one, err := r.client.GetContainerByPID(t.Context(), 100)
	if err != nil || !proto.Equal(one, a.containers[0]) {
		t.Error(one, err)
	}
	plugins, err := r.client.ListPlugins(t.Context())
	if err != nil || len(plugins) != 1 || plugins[0].GetReason() != "not \uFFFD UTF-8" {
		t.Error(plugins, err)
	}
	stats, err := r.client.GetStats(t.Context())
	if err != nil || stats.GetNode() != "node-1" {
		t.Error(stats, err)
	}
	reload, err := r.client.Reload(t.Context())
	if err != nil || reload.GetChanges()[0].GetWhat() != "log" {
		t.Error(reload, err)
	}
}

func TestErrorsTellWhatIsWrong(t *testing.T) {
	r := run(t, &answers{statsErr: errors.New("read the policy table: gone"), reloadErr: errors.New("the daemon has stopped")})
	byPID := func(pid uint32) error {
		_, err := r.client.GetContainerByPID(t.Context(), pid)
		return err
	}
	watch := func(kinds ...string) error {
		_, err := r.client.WatchEvents(t.Context(), client.EventFilter{Kinds: kinds})
		return err
	}
	_, statsErr := r.client.GetStats(t.Context())
	_, reloadErr := r.client.Reload(t.Context())
	for _, c := range []struct {
		name string
		err  error
		is   error
		has  string
	}{
		{"a process of the host", byPID(1), client.ErrNoContainer, "process 1"},
		{"a process that is not there", byPID(2), client.ErrNoProcess, "no process 2"},
		{"a process that can't be looked up", byPID(3), nil, "the table is gone"},
		{"pid 0", byPID(0), nil, "0 is no process"},
		{"a kind that there is not", watch("process.exec", "process.exek"), nil, `"process.exek": there are process.fork, process.exec`},
		{"a reload of a daemon that ends", reloadErr, client.ErrNotRunning, "the daemon has stopped"},
		{"stats that can't be read", statsErr, nil, "read the policy table: gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.err == nil || !strings.Contains(c.err.Error(), c.has) || c.is != nil && !errors.Is(c.err, c.is) {
				t.Errorf("%v", c.err)
			}
		})
	}
}

func TestManyContainersComeInPagesOfAtMostAMebibyte(t *testing.T) {
	var all []*protov1.ContainerView
	for i := range 3000 {
		c := container(fmt.Sprint(i))
		c.Container.Labels = map[string]string{"text": strings.Repeat("x", 1000)}
		all = append(all, c)
	}
	huge := container("huge")
	huge.Container.Labels = map[string]string{}
	for i := range 1000 {
		huge.Container.Labels[fmt.Sprint(i)] = strings.Repeat("x", 10_000)
	}
	huge.Container.Args = []string{strings.Repeat("y", 100_000)}
	huge.Pod = &protov1.Pod{Name: "pod", Annotations: map[string]string{"a": strings.Repeat("z", 2<<20)}}
	huge.Mesh = &protov1.MeshFact{Mesh: "istio", Attributes: map[string]string{"a": strings.Repeat("z", 2<<20)}}
	before := proto.Clone(huge)
	all = append(all, huge)

	sizes, n := 0, 0
	err := pages(all, func(p *protov1.ListContainersResponse) error {
		size := proto.Size(p)
		if size > 1<<20 {
			t.Errorf("a page of %d bytes", size)
		}
		sizes += size
		n++
		return nil
	})
	if err != nil || n < 4 {
		t.Errorf("%d pages of %d bytes, %v", n, sizes, err)
	}
	if !proto.Equal(before, huge) {
		t.Error("the inventory's own description was changed")
	}

	r := run(t, &answers{containers: all})
	got, err := r.client.ListContainers(t.Context())
	if err != nil || len(got) != len(all) {
		t.Fatal(len(got), err)
	}
	last := got[len(got)-1]
	if last.GetContainer().GetId() != "huge" || last.GetPod().GetName() != "pod" {
		t.Errorf("what names it is gone: %.200v", last)
	}
	for _, cut := range []string{"labels", "args", "mesh"} {
		if !slices.Contains(last.GetContainer().GetTruncated(), cut) {
			t.Errorf("it does not say that %s was shortened: %v", cut, last.GetContainer().GetTruncated())
		}
	}
}

func TestADescriptionThatCanNotBeShortenedStaysSmall(t *testing.T) {
	c := container(strings.Repeat("i", wire.MaxChange))
	c.Container.Security = &protov1.Security{CapabilitiesAdded: slices.Repeat([]string{strings.Repeat("x", 30_000)}, 20)}
	c.CgroupIds = slices.Repeat([]uint64{1 << 60}, 200_000)
	got, n := shown(c)
	if n > 1<<20-1024 || n != proto.Size(got) || got.GetContainer().GetId() == "" {
		t.Errorf("%d bytes: %.200v", n, got)
	}
}

func TestNoContainersAreNoError(t *testing.T) {
	got, err := run(t, &answers{}).client.ListContainers(t.Context())
	if err != nil || len(got) != 0 {
		t.Error(got, err)
	}
}

func TestValuesOfEnvironmentVariablesStayInTheDaemon(t *testing.T) {
	c := container("a")
	c.Container.Env = []string{"PASSWORD=Hunter2", "EMPTY=", "BARE"}
	r := run(t, &answers{containers: []*protov1.ContainerView{c}})
	all, err := r.client.ListContainers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	one, err := r.client.GetContainerByPID(t.Context(), 9)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.client.GetContainer(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []*protov1.ContainerView{all[0], one, found} {
		want := []string{"PASSWORD=[redacted]", "EMPTY=[redacted]", "BARE"}
		if !slices.Equal(got.GetContainer().GetEnv(), want) {
			t.Error(got.GetContainer().GetEnv())
		}
	}
	if c.Container.Env[0] != "PASSWORD=Hunter2" {
		t.Error("the inventory's own description was changed")
	}
}

func (r *running) export(comm string, n int) {
	e := &event.Event{Kind: event.ProcessExec, Comm: []byte(comm)}
	for range n {
		r.live.Export(e, pipeline.Attribution{})
	}
	r.live.Flush()
}

func TestWatchersSeeEventsFromTheTimeTheyBegan(t *testing.T) {
	r := run(t, &answers{})
	r.export("before", 1)
	watch, err := r.client.WatchEvents(t.Context(), client.EventFilter{Kinds: []string{"process.exec"}})
	if err != nil {
		t.Fatal(err)
	}
	r.export("after", 3)
	got, err := watch.Recv()
	if err != nil || bytes.Count(got.Lines, []byte(`"comm":"after"`)) != 3 || bytes.Contains(got.Lines, []byte("before")) || got.Dropped != 0 {
		t.Errorf("%q, %d dropped, %v", got.Lines, got.Dropped, err)
	}
}

func TestASlowWatcherIsToldWhatItMissedAndHoldsUpNobody(t *testing.T) {
	r := run(t, &answers{})
	watch, err := r.client.WatchEvents(t.Context(), client.EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	const all = 200_000 // more than its queue and the connection's window hold
	r.export("x", all)
	if err := r.live.Close(); err != nil {
		t.Fatal(err)
	}
	var read, dropped uint64
	for {
		got, err := watch.Recv()
		if errors.Is(err, client.ErrNotRunning) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		read += uint64(bytes.Count(got.Lines, []byte{'\n'}))
		dropped = got.Dropped
	}
	if read == 0 || dropped == 0 || read+dropped != all {
		t.Errorf("read %d and missed %d of %d", read, dropped, all)
	}
}

func TestAWatchThatIsCanceledLeaves(t *testing.T) {
	r := run(t, &answers{})
	for range 3 * exporter.MostWatches { // more than may watch at one time
		ctx, cancel := context.WithCancel(t.Context())
		watch, err := r.client.WatchEvents(ctx, client.EventFilter{})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := watch.Recv(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		for waiting := true; waiting; { // until the server has noticed
			_, capacity := r.live.Queue()
			waiting = capacity > 0
			time.Sleep(time.Millisecond)
		}
	}
}

func TestTooManyWatchersAreTurnedAway(t *testing.T) {
	r := run(t, &answers{})
	for range exporter.MostWatches {
		if _, err := r.client.WatchEvents(t.Context(), client.EventFilter{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.client.WatchEvents(t.Context(), client.EventFilter{})
	if err == nil || !strings.Contains(err.Error(), "too many are watching") {
		t.Error(err)
	}
}

func TestCloseEndsWatchersWithWhatIsAtHandWhileEventsGoOn(t *testing.T) {
	r := run(t, &answers{})
	watch, err := r.client.WatchEvents(t.Context(), client.EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	r.export("last", 1)
	stop := make(chan struct{})
	var flowing sync.WaitGroup
	flowing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.export("more", 10)
			}
		}
	})
	ended := make(chan error, 1)
	var all []byte
	go func() {
		for {
			got, err := watch.Recv()
			if err != nil {
				ended <- err
				return
			}
			all = append(all, got.Lines...)
		}
	}()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	close(stop)
	flowing.Wait()
	err = <-ended
	if !errors.Is(err, client.ErrNotRunning) || err.Error() != "the daemon has stopped" {
		t.Error(err)
	}
	if !bytes.Contains(all, []byte(`"comm":"last"`)) {
		t.Error("what was at hand was lost")
	}
	if _, err := r.client.Version(t.Context()); !errors.Is(err, client.ErrNotRunning) || !strings.Contains(err.Error(), "is the daemon running?") {
		t.Error(err)
	}
}

func TestCloseCutsOffAWatcherThatDoesNotReadAtTheDeadline(t *testing.T) {
	r := run(t, &answers{})
	if _, err := r.client.WatchEvents(t.Context(), client.EventFilter{}); err != nil {
		t.Fatal(err)
	}
	r.export("x", 100_000)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(r.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket stays:", err)
	}
}
