package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// remove removes a container that a test left running.
func remove(t *testing.T, d *env.Docker, id string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := d.Command(ctxOf(t), "rm", "--force", id).CombinedOutput(); err != nil {
			t.Errorf("remove container %s: %v: %s", id, err, out)
		}
	})
}

// checkIs checks that an event is told to be of a container.
func checkIs(t *testing.T, e *harness.Event, id, name, image, tag string) {
	t.Helper()
	checkIsOf(t, e, "docker", id, name, image, tag)
}

func checkIsOf(t *testing.T, e *harness.Event, runtime, id, name, image, tag string) {
	t.Helper()
	c := e.Container
	if c == nil || e.Pending || c.ID != id || c.Name != name || c.Stale ||
		c.Image == nil || c.Image.Name != image || !slices.Equal(c.Image.Tags, []string{tag}) ||
		c.Runtime == nil || c.Runtime.Name != runtime {
		t.Errorf("the event is not of %s's container %s (%s) of %s:%s: %s", runtime, id, name, image, tag, e.Line)
	}
}

// inside matches the execs in a container with an argument that starts with prefix; the
// docker command that started it has the argument too.
func inside(prefix string) func(*harness.Event) bool {
	has := having(prefix)
	return func(e *harness.Event) bool { return e.Process.VPID != 0 && has(e) }
}

const (
	busyboxName = "localhost/ebpf-tracer/busybox"
	noopName    = "localhost/ebpf-tracer/noop"
)

func TestEventsOfAContainerCarryItsDescription(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, `probe "file" {}
probe "network" {}`))
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, "--label", "team=tracing", "--label", "empty=", "--label", "org.example/with.dots=yes",
		env.BusyboxImage, "sh", "-c",
		"cat /etc/passwd; nc -l -p 7777 >/dev/null & sleep 0.2; echo hello | nc 127.0.0.1 7777; exec sleep 1000", mine)
	remove(t, d, id)
	image, err := d.CLI(t.Context(), "inspect", "--format", "{{.Image}}", id)
	if err != nil {
		t.Fatal(err)
	}
	first := tr.UntilCount(1, "process.exec", inside(mine))[0]
	tr.UntilCount(1, "process.exec", func(e *harness.Event) bool {
		return e.Container != nil && e.Container.ID == id && slices.Contains(e.Process.Args, "sleep") && slices.Contains(e.Process.Args, "1000")
	})
	// The first exec has what create told; the image's id comes with the inspection
	// that follows, and then every event has it.
	inspected := func() bool {
		for i := range tr.Events() {
			if e := &tr.Events()[i]; e.Container != nil && e.Container.ID == id && e.Container.Image.ID == image {
				return true
			}
		}
		return false
	}
	for range 50 {
		if inspected() {
			break
		}
		if _, err := d.CLI(t.Context(), "exec", id, "true"); err != nil {
			t.Fatal(err)
		}
	}
	ledger := tr.Stop()

	checkIs(t, first, id, name, busyboxName, "test")
	if !inspected() {
		t.Errorf("no event has the image's id, which docker says is %s", image)
	}
	want := map[string]string{"team": "tracing", "empty": "", "org.example/with.dots": "yes", "org.example.image": "busybox"}
	for key, value := range want {
		if got, ok := first.Container.Label[key]; !ok || got != value {
			t.Errorf("label %s is %q, %v", key, got, ok)
		}
	}
	if len(first.Container.Label) != len(want) {
		t.Errorf("the labels are %v", first.Container.Label)
	}
	if first.Process.VPID != 1 || first.Process.Executable.Path != "/bin/busybox" {
		t.Errorf("the first process is %s", first.Line)
	}
	kinds := map[string]int64{}
	for i := range tr.Events() {
		if e := &tr.Events()[i]; e.Container != nil && e.Container.ID == id {
			kinds[e.Kind]++
			checkIs(t, e, id, name, busyboxName, "test")
		}
	}
	for _, kind := range []string{"process.fork", "process.exec", "process.exit", "file.open",
		"network.listen", "network.connect", "network.accept", "network.close"} {
		if kinds[kind] == 0 {
			t.Errorf("no event %s is of the container", kind)
		}
	}
	checkLedger(t, ledger, false, kinds)
}

func TestOfTwoHundredShortContainersEachFirstExecIsAttributedWhileTheDiscovererHangs(t *testing.T) {
	const containers, atOnce = 200, 8
	d := dockerd(t)
	tr := harness.Start(t, patient(withDocker(d, "")))
	mine := tag()
	name := func(i int) string { return fmt.Sprintf("%s-%d", strings.Trim(mine, ":"), i) }
	ids := make([]string, containers)
	discoverer := tr.PluginPID("discoverer", "docker")
	var done atomic.Int64
	var running errgroup.Group
	running.SetLimit(atOnce)
	dir := t.TempDir()
	for i := range containers {
		running.Go(func() error {
			if done.Add(1) == containers/2 {
				if err := syscall.Kill(discoverer, syscall.SIGSTOP); err != nil {
					return err
				}
				time.AfterFunc(300*time.Millisecond, func() {
					if err := syscall.Kill(discoverer, syscall.SIGCONT); err != nil {
						t.Errorf("let the discoverer go on: %v", err)
					}
				})
			}
			file := filepath.Join(dir, fmt.Sprint(i))
			if _, err := d.CLI(t.Context(), "run", "--rm", "--cidfile", file, "--name", name(i), "--network", "none",
				env.NoopImage, fmt.Sprintf("%s%d", mine, i)); err != nil {
				return err
			}
			id, err := os.ReadFile(file)
			ids[i] = string(id)
			return err
		})
	}
	if err := running.Wait(); err != nil {
		t.Fatal(err)
	}
	tr.UntilCount(containers, "process.exec", inside(mine))
	for _, id := range ids {
		untilRemoved(tr, id)
	}
	if again := tr.PluginPID("discoverer", "docker"); again != discoverer {
		t.Errorf("the discoverer was started again: process %d, then %d", discoverer, again)
	}
	ledger := tr.Stop()
	events := tr.Events()

	exits := map[int][]*harness.Event{}
	for _, e := range harness.Select(events, "process.exit", nil) {
		exits[e.Process.PID] = append(exits[e.Process.PID], e)
	}
	ofContainer := map[string][]*harness.Event{}
	for i := range events {
		if e := &events[i]; e.Container != nil {
			ofContainer[e.Container.ID] = append(ofContainer[e.Container.ID], e)
		}
	}
	attributed := 0
	var lifetimes []time.Duration
	for i, id := range ids {
		arg := fmt.Sprintf("%s%d", mine, i)
		found := harness.Select(events, "process.exec", func(e *harness.Event) bool {
			return e.Process.Executable.Path == "/noop" && slices.Equal(e.Process.Args, []string{"/noop", arg})
		})
		if len(found) != 1 {
			t.Errorf("the exec of container %d was told %d times", i, len(found))
			continue
		}
		e := found[0]
		checkIs(t, e, id, name(i), noopName, "test")
		attributed++
		if got, want := lifeOf(ofContainer[id]), []string{"created", "started", "died 0", "removed"}; !slices.Equal(got, want) {
			t.Errorf("the life of container %d is told as %q, want %q", i, got, want)
		}
		for _, other := range ofContainer[id] {
			// The runtime may join the container's cgroup before it executes itself
			// once more, inside; what the image holds comes after that.
			runtime := slices.Equal(other.Process.Args, []string{"runc", "init"})
			if other.Kind == "process.exec" && other != e && !runtime {
				t.Errorf("container %d has another exec: %s", i, other.Line)
			}
			checkIs(t, other, id, name(i), noopName, "test")
		}
		for _, x := range exits[e.Process.PID] {
			if x.Time.After(e.Time) {
				checkIs(t, x, id, name(i), noopName, "test")
				lifetimes = append(lifetimes, x.Time.Sub(e.Time))
				break
			}
		}
	}
	if attributed != containers || len(lifetimes) != containers {
		t.Fatalf("%d execs and %d exits of %d containers were told", attributed, len(lifetimes), containers)
	}
	slices.Sort(lifetimes)
	t.Logf("from exec to exit a container lived, by the events' own times: median %v, p95 %v, longest %v",
		lifetimes[containers/2], lifetimes[containers*95/100-1], lifetimes[containers-1])
	checkLedger(t, ledger, false, map[string]int64{"process.exec": containers, "process.exit": containers,
		"container.created": containers, "container.started": containers, "container.died": containers, "container.removed": containers})
}

func TestAContainerOlderThanTheDaemonIsKnown(t *testing.T) {
	d := dockerd(t)
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sh", "-c",
		"while :; do /bin/noop "+mine+"inside; sleep 0.3; done")
	remove(t, d, id)
	tr := harness.Start(t, withDocker(d, ""))
	view := tr.WaitContainer(id)
	if got := view.GetContainer().GetName(); got != name {
		t.Errorf("its name is %q, want %q", got, name)
	}
	// What follows was begun after the daemon knew it.
	if _, err := d.CLI(t.Context(), "exec", id, "/bin/noop", mine+"later"); err != nil {
		t.Fatal(err)
	}
	later := tr.UntilCount(1, "process.exec", inside(mine+"later"))
	tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return e.Arg(mine+"inside") && inside(mine)(e) })
	ledger := tr.Stop()
	checkIs(t, one(t, "docker exec", later), id, name, busyboxName, "test")
	execs := harness.Select(tr.Events(), "process.exec", func(e *harness.Event) bool { return e.Arg(mine+"inside") && inside(mine)(e) })
	for _, e := range execs {
		checkIs(t, e, id, name, busyboxName, "test")
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": int64(len(execs)) + 1})
}

func TestWhatDockerExecStartsBelongsToItsContainer(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sleep", "1000")
	remove(t, d, id)
	const n = 5
	for i := range n {
		if _, err := d.CLI(t.Context(), "exec", id, "sh", "-c", fmt.Sprintf("/bin/noop %s%d; true", mine, i)); err != nil {
			t.Fatal(err)
		}
	}
	isNoop := func(e *harness.Event) bool { return inside(mine)(e) && e.Process.Executable.Path == "/bin/noop" }
	tr.UntilCount(n, "process.exec", isNoop)
	ledger := tr.Stop()
	execs := harness.Select(tr.Events(), "process.exec", isNoop)
	if len(execs) != n {
		t.Errorf("%d execs were told, want %d", len(execs), n)
	}
	for _, e := range execs {
		checkIs(t, e, id, name, busyboxName, "test")
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 2 * n})
}

func TestACgroupBelowAContainerBelongsToTheContainer(t *testing.T) {
	programs := load.Build(t)
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	mine := tag()
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, env.BusyboxImage, "sleep", "1000")
	remove(t, d, id)
	tr.WaitContainer(id)
	outer := findCgroup(t, id)
	// below it, also what looks like another container's: a nested runtime's
	for i, below := range []string{"plain", "deeper/down", randomID(t)} {
		dir := makeCgroup(t, filepath.Join(outer, below))
		runIn(t, dir, programs.Noop, fmt.Sprintf("%s%d", mine, i))
	}
	ledger := tr.Stop()
	for i := range 3 {
		arg := fmt.Sprintf("%s%d", mine, i)
		e := one(t, arg, harness.Select(tr.Events(), "process.exec", func(e *harness.Event) bool {
			return e.Process.Executable.Path == programs.Noop && e.Arg(arg)
		}))
		checkIs(t, e, id, name, busyboxName, "test")
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 3})
}

func TestACgroupNamedLikeAContainerThatNobodyDescribesIsPending(t *testing.T) {
	programs := load.Build(t)
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, ""))
	mine := tag()
	hint := randomID(t)
	dir := makeCgroup(t, filepath.Join(cgroupRoot(t), hint))
	runIn(t, dir, programs.Noop, mine+"first")
	noop := func(arg string) func(*harness.Event) bool {
		return func(e *harness.Event) bool { return e.Process.Executable.Path == programs.Noop && e.Arg(mine+arg) }
	}
	first := tr.UntilCount(1, "process.exec", noop("first"))
	// Having waited in vain, it is not waited for again, nor is anybody else.
	runIn(t, dir, programs.Noop, mine+"second")
	second := tr.UntilCount(1, "process.exec", noop("second"))
	if err := exec.Command(programs.Noop, mine+"host").Run(); err != nil {
		t.Fatal(err)
	}
	host := tr.UntilCount(1, "process.exec", noop("host"))
	name := strings.Trim(mine, ":")
	id := d.Run(t, "--detach", "--name", name, env.NoopImage, mine+"container")
	remove(t, d, id)
	inside := tr.UntilCount(1, "process.exec", func(e *harness.Event) bool {
		return e.Process.Executable.Path == "/noop" && e.Arg(mine+"container")
	})
	stats := tr.Stats().GetAttribution()
	ledger := tr.Stop()
	for _, found := range [][]*harness.Event{first, second} {
		e := one(t, "an exec in the cgroup", found)
		if !e.Pending || e.Container == nil || e.Container.ID != hint || e.Container.Name != "" {
			t.Errorf("the exec in a cgroup that nobody describes is %s", e.Line)
		}
	}
	if e := one(t, "an exec of the host", host); e.Pending || e.Container != nil {
		t.Errorf("the exec of the host is %s", e.Line)
	}
	checkIs(t, one(t, "the container's exec", inside), id, name, noopName, "test")
	if stats.GetHeldExpired() == 0 || stats.GetPending() < 2 {
		t.Errorf("the statistics do not count what waited in vain: %v", stats)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 4})
}

func TestASidecarAndWhatItServesCarryTheirMesh(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, `mesh "generic" {}`))
	proxyImage := "localhost/istio/proxyv2:1"
	if _, err := d.CLI(t.Context(), "tag", env.BusyboxImage, proxyImage); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := d.Command(ctxOf(t), "rmi", proxyImage).CombinedOutput(); err != nil {
			t.Errorf("remove the image's second name: %v: %s", err, out)
		}
	})
	mine := tag()
	// The labels of a kubelet put both into one pod.
	pod := []string{"--label", "io.kubernetes.pod.uid=e2e-" + strings.Trim(mine, ":"), "--label", "io.kubernetes.pod.name=reviews-1",
		"--label", "io.kubernetes.pod.namespace=books", "--label", "service.istio.io/canonical-name=reviews"}
	run := func(name, image string, labels ...string) string {
		args := append([]string{"--detach", "--name", name + "-" + strings.Trim(mine, ":")}, append(pod, labels...)...)
		id := d.Run(t, append(args, image, "sleep", "1000")...)
		remove(t, d, id)
		return id
	}
	proxy := run("istio-proxy", proxyImage, "--label", "io.kubernetes.container.name=istio-proxy")
	app := run("app", env.BusyboxImage, "--label", "io.kubernetes.container.name=app")
	plain := d.Run(t, "--detach", "--name", "plain-"+strings.Trim(mine, ":"), env.BusyboxImage, "sleep", "1000")
	remove(t, d, plain)

	exec := func(id, arg string) *harness.Event {
		t.Helper()
		if _, err := d.CLI(t.Context(), "exec", id, "/bin/noop", mine+arg); err != nil {
			t.Fatal(err)
		}
		return tr.UntilCount(1, "process.exec", func(e *harness.Event) bool {
			return e.Process.Executable.Path == "/bin/noop" && e.Arg(mine+arg)
		})[0]
	}
	// Facts come by themselves, after the containers: until then there is none.
	for attempt := 0; ; attempt++ {
		arg := fmt.Sprint("wait", attempt)
		if exec(proxy, arg).Mesh != nil && exec(app, arg+"app").Mesh != nil {
			break
		}
		if attempt == 100 {
			t.Fatal("no event carries its mesh")
		}
		time.Sleep(50 * time.Millisecond)
	}
	ofProxy, ofApp, ofPlain := exec(proxy, "proxy"), exec(app, "app"), exec(plain, "plain")
	ledger := tr.Stop()
	for _, c := range []struct {
		e          *harness.Event
		role       string
		id, in, as string
	}{
		{ofProxy, "sidecar", proxy, "localhost/istio/proxyv2", "1"},
		{ofApp, "workload", app, busyboxName, "test"},
	} {
		if c.e.Container == nil || c.e.Container.ID != c.id || c.e.Container.Image.Name != c.in || !slices.Equal(c.e.Container.Image.Tags, []string{c.as}) {
			t.Errorf("the %s's event is not its container's: %s", c.role, c.e.Line)
		}
		proxyOf, _ := c.e.Mesh["proxy"].(map[string]any)
		if c.e.Mesh["name"] != "istio" || c.e.Mesh["role"] != c.role || proxyOf["name"] != "envoy" || c.e.Mesh["service"] != "reviews" {
			t.Errorf("the %s's mesh is %v", c.role, c.e.Mesh)
		}
		podOf, _ := c.e.K8s["pod"].(map[string]any)
		space, _ := c.e.K8s["namespace"].(map[string]any)
		if podOf["name"] != "reviews-1" || space["name"] != "books" {
			t.Errorf("the %s's pod is %v", c.role, c.e.K8s)
		}
	}
	if ofPlain.Mesh != nil || ofPlain.K8s != nil {
		t.Errorf("a container of no mesh and no pod: %s", ofPlain.Line)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 5})
}
