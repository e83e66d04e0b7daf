package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// isIn matches the events of a container.
func isIn(id string) func(*harness.Event) bool {
	return func(e *harness.Event) bool { return e.Container != nil && e.Container.ID == id }
}

// lifeOf writes down what was told of a container's life, in order, by its events.
func lifeOf(events []*harness.Event) (out []string) {
	for _, e := range events {
		if e.Lifecycle != nil {
			word := strings.TrimPrefix(e.Kind, "container.")
			if e.Lifecycle.ExitCode != nil {
				word += fmt.Sprintf(" %d", *e.Lifecycle.ExitCode)
			}
			if e.Lifecycle.Inferred {
				word += " inferred"
			}
			out = append(out, word)
		}
	}
	return out
}

// untilRemoved waits until the end of a container is told.
func untilRemoved(tr *harness.Tracer, id string) {
	tr.UntilCount(1, "container.removed", isIn(id))
}

// cli runs the client and fails the test when it does.
func cli(t *testing.T, d *env.Docker, args ...string) {
	t.Helper()
	if _, err := d.CLI(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// registry serves one image of one file on the loopback, over plain HTTP, and returns
// its reference.
func registry(t *testing.T) string {
	t.Helper()
	var layer bytes.Buffer
	out := tar.NewWriter(&layer)
	if err := out.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	digest := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		runtime.GOARCH, digest(layer.Bytes()))
	const kind = "application/vnd.oci.image.manifest.v1+json"
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,
		"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},
		"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		kind, digest(config), len(config), digest(layer.Bytes()), layer.Len())
	found := map[string][]byte{
		"/v2/": []byte("{}"), "/v2/pulled/manifests/1": manifest, "/v2/pulled/manifests/" + digest(manifest): manifest,
		"/v2/pulled/blobs/" + digest(config): config, "/v2/pulled/blobs/" + digest(layer.Bytes()): layer.Bytes(),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := found[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", kind)
		}
		w.Header().Set("Docker-Content-Digest", digest(b))
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		if r.Method == http.MethodGet {
			if _, err := w.Write(b); err != nil {
				return // the reader is gone
			}
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://") + "/pulled:1"
}

// patient gives dockerd the time that it takes on a busy machine: an answer that comes too
// late would end the stream of its events, and what is told then is inferred.
func patient(hcl string) string {
	return regexp.MustCompile(`discoverer "docker" \{ (.*) \}`).ReplaceAllString(hcl, "discoverer \"docker\" {\n  timeout = \"60s\"\n  $1\n}")
}

// withBoth is a configuration that hears of a dockerd's containers from it and from the
// containerd below it.
func withBoth(d *env.Docker, more string) string {
	return withDocker(d, fmt.Sprintf("discoverer \"containerd\" { address = \"unix://%s\" }\n%s", d.Containerd().Socket, more))
}

func TestTheLifeOfADockerContainerIsToldInOrderOnce(t *testing.T) {
	for name, config := range map[string]func(*env.Docker, string) string{"docker alone": withDocker, "docker and containerd": withBoth} {
		t.Run(name, func(t *testing.T) {
			d := dockerd(t)
			tr := harness.Start(t, patient(config(d, "")))
			mine := tag()
			name := strings.Trim(mine, ":")
			id, err := d.CLI(t.Context(), "create", "--name", name, env.BusyboxImage, "sleep", "1000")
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"start", id}, {"pause", id}, {"unpause", id}, {"kill", id}, {"wait", id},
				{"start", id}, {"kill", id}, {"wait", id}, {"rm", id},
			} {
				cli(t, d, args...)
			}
			untilRemoved(tr, id)
			image := registry(t)
			cli(t, d, "pull", image)
			cli(t, d, "image", "rm", image)
			isPull := func(e *harness.Event) bool { return e.Lifecycle.Image == image }
			tr.UntilCount(1, "image.pulled", isPull)
			ledger := tr.Stop()
			want := []string{"created", "started", "paused", "unpaused", "died 137", "started", "died 137", "removed"}
			if got := lifeOf(harness.Select(tr.Events(), "", isIn(id))); !slices.Equal(got, want) {
				t.Errorf("the life of the container is told as %q, want %q", got, want)
			}
			last := time.Time{}
			for _, e := range harness.Select(tr.Events(), "", isIn(id)) {
				if e.Lifecycle != nil {
					checkIs(t, e, id, name, busyboxName, "test")
					if e.Lifecycle.Source != "docker" || e.Weight != 1 || e.Time.Before(last) {
						t.Errorf("%s", e.Line)
					}
					last = e.Time
				}
			}
			if e := one(t, "the pull", harness.Select(tr.Events(), "image.pulled", isPull)); e.Container != nil || e.Pending {
				t.Errorf("the pull is told to be of a container: %s", e.Line)
			}
			checkLedger(t, ledger, false, map[string]int64{
				"container.created": 1, "container.started": 2, "container.paused": 1, "container.unpaused": 1,
				"container.died": 2, "container.removed": 1, "image.pulled": 1,
			})
		})
	}
}

func TestAContainerThatRunsOutOfMemoryIsToldSoBeforeItsEnd(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, patient(withBoth(d, "")))
	id := d.Run(t, "--detach", "--network", "none", "--memory", "8m", "--memory-swap", "8m", env.BusyboxImage,
		// A second, by which the runtime watches for it.
		"sh", "-c", "sleep 1; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1; exit 3")
	cli(t, d, "wait", id)
	cli(t, d, "rm", id)
	untilRemoved(tr, id)
	ledger := tr.Stop()
	want := []string{"created", "started", "oom", "died 3", "removed"}
	if got := lifeOf(harness.Select(tr.Events(), "", isIn(id))); !slices.Equal(got, want) {
		t.Errorf("the life of the container is told as %q, want %q", got, want)
	}
	checkLedger(t, ledger, false, map[string]int64{"container.oom": 1})
}

// A dockerd that is dead tells nothing, and when it is back it tells what is, not what
// was.
func TestWhatHappensWhileTheRuntimeIsDeadIsInferred(t *testing.T) {
	d := env.StartDocker(t, env.WithArgs("--live-restore"))
	tr := harness.Start(t, patient(withDocker(d, "")))
	run := func() string { return d.Run(t, "--detach", env.BusyboxImage, "sleep", "1000") }
	stays, dies := run(), run()
	pids := map[string]int{}
	for _, id := range []string{stays, dies} {
		tr.UntilCount(1, "container.started", isIn(id))
		text, err := d.CLI(t.Context(), "inspect", "--format", "{{.State.Pid}}", id)
		if err != nil {
			t.Fatal(err)
		}
		if pids[id], err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids[dies], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	tr.UntilCount(1, "process.exit", of(pids[dies]))
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.UntilCount(1, "container.died", isIn(dies))
	cli(t, d, "kill", stays)
	tr.UntilCount(1, "container.died", isIn(stays))
	ledger := tr.Stop()
	for id, want := range map[string][]string{
		stays: {"created", "started", "died 137"},
		dies:  {"created", "started", "died 137 inferred"},
	} {
		if got := lifeOf(harness.Select(tr.Events(), "", isIn(id))); !slices.Equal(got, want) {
			t.Errorf("the life of the container is told as %q, want %q", got, want)
		}
	}
	checkLedger(t, ledger, false, map[string]int64{"container.started": 2, "container.died": 2})
}

func TestAnExporterTakesTheKindsOfLivesThatItNames(t *testing.T) {
	d := dockerd(t)
	tr := harness.Start(t, withDocker(d, "exporter \"json\" {\n  path = \"@DIR@/events.json\"\n  kinds = [\"container.died\"]\n}"))
	id := d.Run(t, "--detach", env.NoopImage)
	remove(t, d, id)
	tr.UntilCount(1, "container.died", isIn(id))
	ledger := tr.Stop()
	for i := range tr.Events() {
		if e := &tr.Events()[i]; e.Kind != "container.died" {
			t.Errorf("%s", e.Line)
		}
	}
	if x := ledger.Exporters["json"]; x.ScopedOut == 0 || ledger.Kind("container.started").Kept == 0 {
		t.Errorf("the exporter %+v, started %+v", x, ledger.Kind("container.started"))
	}
}

func TestTheFirstExecOfEachContainerIsCountedAsNamed(t *testing.T) {
	const containers = 20
	d := dockerd(t)
	tr := harness.Start(t, patient(withDocker(d, "")))
	mine := tag()
	for i := range containers {
		cli(t, d, "run", "--rm", "--network", "none", env.NoopImage, fmt.Sprintf("%s%d", mine, i))
	}
	tr.UntilCount(containers, "process.exec", inside(mine))
	// Nobody describes this one.
	dir := makeCgroup(t, filepath.Join(cgroupRoot(t), randomID(t)))
	runIn(t, dir, load.Build(t).Noop, mine+"stray")
	tr.UntilCount(1, "process.exec", func(e *harness.Event) bool { return e.Pending && having(mine+"stray")(e) })
	a := tr.Stats().GetAttribution()
	text := tr.Ask("get", "stats")
	tr.Stop()
	// Containers of others on this machine are among those that nobody describes.
	if a.GetFirstExecsNamed() != containers || a.GetFirstExecs() < containers+1 {
		t.Errorf("%d first execs were counted, %d as named, of %d containers and one that nobody describes",
			a.GetFirstExecs(), a.GetFirstExecsNamed(), containers)
	}
	if want := fmt.Sprintf("named %d (", containers); !strings.Contains(text, want) {
		t.Errorf("get stats does not say %q:\n%s", want, text)
	}
}
