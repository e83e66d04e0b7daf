package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// still is a tracker whose loop a test runs step by step.
func still(t *testing.T, c Config, n *protov1.Node) (*tracker, *recorder) {
	t.Helper()
	r := newRecorder(t)
	tr := newTracker(r, c, n, testLog(t))
	t.Cleanup(func() {
		if err := tr.close(); err != nil {
			t.Error(err)
		}
	})
	if err := tr.begin(); err != nil {
		t.Fatal(err)
	}
	return tr, r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func batch(change protov1.CgroupFact_Change, id uint64, path string) *protov1.HostFacts {
	return &protov1.HostFacts{Facts: []*protov1.HostFact{{Fact: &protov1.HostFact_Cgroup{Cgroup: &protov1.CgroupFact{Change: change, Id: id, Path: path}}}}}
}

func new1(id uint64, path string) *protov1.HostFacts {
	return batch(protov1.CgroupFact_CHANGE_CREATED, id, path)
}

func mkdir(t *testing.T, at ...string) string {
	t.Helper()
	dir := filepath.Join(at...)
	must(t, os.MkdirAll(dir, 0o755))
	return dir
}

// at has the state of a container of runc that was made now, with another cgroup.
func at(cgroup string) string {
	return strings.NewReplacer("2024-03-01T07:17:54.736623953Z", time.Now().UTC().Format(time.RFC3339Nano),
		"/sys/fs/cgroup/unified/a/web", "/sys/fs/cgroup/unified"+cgroup, `,"freezer":"/sys/fs/cgroup/freezer/a/web"`, `,"cpu":"/x"`).Replace(ofRunc)
}

// write puts a state in place as runc does.
func write(t *testing.T, dir, text string) {
	t.Helper()
	must(t, os.WriteFile(dir+"/state-1", []byte(text), 0o600))
	must(t, os.Rename(dir+"/state-1", dir+"/state.json"))
}

func TestACgroupIsAnsweredForAsSoonAsItIsKnownWhoseItIs(t *testing.T) {
	type step = func(t *testing.T, tr *tracker, root string)
	fact := func(id uint64, path string) step {
		return func(t *testing.T, tr *tracker, _ string) { must(t, tr.facts(new1(id, path))) }
	}
	dir := func(id string) step { return func(t *testing.T, _ *tracker, root string) { mkdir(t, root, id) } }
	state := func(id, cgroup string) step {
		return func(t *testing.T, tr *tracker, root string) {
			write(t, filepath.Join(root, id), at(cgroup))
			must(t, tr.catchUp())
		}
	}
	later := func(d time.Duration) step {
		return func(t *testing.T, tr *tracker, _ string) {
			must(t, tr.settle(time.Now().Add(d)))
			must(t, tr.work())
		}
	}
	gone := func(id string) step {
		return func(t *testing.T, tr *tracker, root string) {
			must(t, os.RemoveAll(filepath.Join(root, id)))
			must(t, tr.catchUp())
		}
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  string // the first answer for cgroup 7
	}{
		{"nobody's, when nothing is being created", []step{fact(7, "/x")}, "none"},
		{"nobody's, though a container is known", []step{dir("web"), state("web", "/a/web"), fact(7, "/x")}, "none"},
		{"a container's whose state is there", []step{dir("web"), state("web", "/a/web"), fact(7, "/a/web")}, "web"},
		{"nothing yet, while one is being created", []step{dir("web"), fact(7, "/a/other")}, ""},
		{"a container's whose state comes later", []step{dir("web"), fact(7, "/a/other"), state("web", "/a/other")}, "web"},
		{"nobody's, when the state names another", []step{dir("web"), fact(7, "/a/web"), state("web", "/a/other")}, "none"},
		{"nobody's, when the directory came after the cgroup", []step{fact(7, "/web"), dir("web")}, "none"},
		{"nobody's, when the directory goes", []step{dir("web"), fact(7, "/a/other"), gone("web")}, "none"},
		{"the container's after which it is called, when that goes", []step{dir("web"), fact(7, "/a/runc-web.scope"), gone("web")}, "web"},
		{"nothing, a moment later", []step{dir("web"), fact(7, "/a/web"), later(patience / 2)}, ""},
		{"the container's after which it is called, in the end", []step{dir("web"), fact(7, "/a/web"), later(patience)}, "web"},
		{"nothing, when it is called after none", []step{dir("web"), fact(7, "/a/web2"), later(patience)}, ""},
		{"nobody's after a while, when it is called after none", []step{dir("web"), fact(7, "/a/web2"), later(longest)}, "none"},
		{"nobody's, when another's state comes first", []step{dir("one"), fact(7, "/a/x"), dir("two"), state("one", "/a/y")}, "none"},
		{"nothing, when one of two is known", []step{dir("one"), dir("two"), fact(7, "/a/x"), state("one", "/a/y")}, ""},
		{"one seen from a cgroup namespace", []step{dir("web"), fact(7, "/pod/a/web"), state("web", "/a/web")}, "web"},
		{"nobody's, below a container's own", []step{dir("web"), state("web", "/a/web"), fact(8, "/a/web"), fact(7, "/b/a/web")}, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			tr, r := still(t, defaults(root), nil)
			for _, s := range tt.steps {
				s(t, tr, root)
			}
			got := ""
			if name, ok := r.answer(7); ok {
				got = name
				if name == "" {
					got = "none"
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q; told:\n%s", got, tt.want, strings.Join(r.log, "\n"))
			}
		})
	}
}

func TestAGuessIsCorrected(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	dir := mkdir(t, root, "web")
	must(t, tr.facts(new1(7, "/a/web")))
	must(t, tr.settle(time.Now().Add(patience)))
	if got := r.container("web"); got.GetCgroupPath() != "/a/web" || got.GetCgroupId() != 7 || got.GetName() != "web" || got.GetScope() != "oci:"+root {
		t.Errorf("guessed is %v", got)
	}
	if w := r.words("web"); len(w) != 0 {
		t.Errorf("things happened to a guess: %q", w)
	}
	write(t, dir, at("/a/other"))
	must(t, tr.catchUp())
	must(t, tr.facts(new1(8, "/a/other")))
	if got := r.container("web"); got.GetCgroupPath() != "/a/other" || got.GetCgroupId() != 8 {
		t.Errorf("corrected is %v", got)
	}
	if got := r.words("web"); !slices.Equal(got, []string{"created", "started"}) {
		t.Errorf("what happened is %q", got)
	}
}

func TestACgroupOfV1IsNobodys(t *testing.T) {
	root := t.TempDir()
	mkdir(t, root, "web")
	tr, r := still(t, defaults(root), nil)
	f := new1(7, "/web")
	f.Facts[0].GetCgroup().Hierarchy = "cpu"
	must(t, tr.facts(f))
	if got, ok := r.answer(7); !ok || got != "" {
		t.Errorf("got %q, %v", got, ok)
	}
}

func TestTooManyCgroupsAtOnceAreNotWaitedWith(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	mkdir(t, root, "web")
	for i := range maxWaiting + 10 {
		must(t, tr.facts(new1(uint64(i+1), "/x")))
	}
	if len(tr.claims.waiting) != maxWaiting || tr.claims.hurried != 10 || len(r.answers) != 10 {
		t.Errorf("%d wait, %d were hurried, %d answered", len(tr.claims.waiting), tr.claims.hurried, len(r.answers))
	}
	for i := range 10 {
		must(t, tr.facts(batch(protov1.CgroupFact_CHANGE_REMOVED, uint64(i+1), "/x")))
	}
	must(t, tr.settle(time.Now().Add(longest)))
	if len(tr.claims.waiting) != 0 || len(r.answers) != maxWaiting+10 {
		t.Errorf("%d wait for too long, %d are answered", len(tr.claims.waiting), len(r.answers))
	}
}

// A discoverer that was held up hears of a cgroup and of its end at the same time.
func TestACgroupThatIsGoneBeforeItsAnswerIsStillItsContainers(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	mkdir(t, root, "slow") // is being created all the time
	must(t, tr.catchUp())
	comesAndGoes := func(id string) {
		t.Helper()
		mkdir(t, root, id)
		must(t, os.Remove(filepath.Join(root, id)))
		must(t, tr.catchUp())
	}
	lived := func(id uint64, path string) *protov1.HostFacts {
		f := new1(id, path)
		f.Facts = append(f.Facts, batch(protov1.CgroupFact_CHANGE_REMOVED, id, path).Facts...)
		for _, f := range f.Facts {
			f.GetCgroup().TimeUnixNano = time.Now().UnixNano()
		}
		return f
	}
	want := func(id uint64, want string) {
		t.Helper()
		if got, ok := r.answer(id); !ok || got != want {
			t.Errorf("cgroup %d: got %q, %v, want %q", id, got, ok, want)
		}
	}
	web := lived(7, "/a/web")
	comesAndGoes("web")
	must(t, tr.facts(web))
	want(7, "web")
	must(t, tr.facts(lived(8, "/a/db")))
	comesAndGoes("db")
	must(t, tr.settle(time.Now()))
	want(8, "db")
	// One that comes later, by the same name and path, has nothing to do with it.
	must(t, tr.facts(lived(9, "/a/app")))
	time.Sleep(2 * time.Millisecond)
	lay(t, root, map[string]string{"app/state.json": at("/a/app")})
	must(t, tr.catchUp())
	must(t, tr.settle(time.Now().Add(longest)))
	want(9, "")
	if c := r.container("app"); c == nil || len(tr.claims.waiting) != 0 {
		t.Errorf("it is told as %v, %d cgroups wait", c, len(tr.claims.waiting))
	}
}

// A discoverer that was held up hears of a container's end before it hears of its cgroup.
func TestACgroupOfAContainerThatCameAndWentIsItsOwn(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	made := func(id uint64, path string, at time.Time) *protov1.HostFacts {
		f := new1(id, path)
		f.Facts[0].GetCgroup().TimeUnixNano = at.UnixNano()
		return f
	}
	before := time.Now()
	for _, id := range []string{"web", "db"} {
		mkdir(t, root, id)
		must(t, os.Remove(filepath.Join(root, id)))
	}
	must(t, tr.catchUp())
	if len(r.lines("container"))+len(tr.containers) != 0 {
		t.Errorf("told is %v", r.lines("container"))
	}
	must(t, tr.facts(made(6, "/other", before)))
	must(t, tr.facts(made(7, "/a/web", before)))
	must(t, tr.facts(made(8, "/a/web", before)))
	must(t, tr.facts(made(9, "/db", time.Now().Add(time.Second))))
	for id, want := range map[uint64]string{6: "", 7: "web", 8: "", 9: ""} {
		if got, ok := r.answer(id); !ok || got != want {
			t.Errorf("cgroup %d: got %q, %v, want %q", id, got, ok, want)
		}
	}
	if got := strings.Join(r.words("web"), " "); got != "created removed" || r.container("web") != nil || len(tr.byCgroup)+len(tr.byPath) != 0 {
		t.Errorf("what happened is %q, and left is %v", got, r.container("web"))
	}
	for i := range maxGraves + 10 {
		mkdir(t, root, fmt.Sprint("c", i))
		must(t, os.Remove(filepath.Join(root, fmt.Sprint("c", i))))
	}
	must(t, tr.catchUp())
	if got := len(tr.claims.graves); got != maxGraves {
		t.Errorf("%d are remembered", got)
	}
	tr.buried(&protov1.CgroupFact{}, time.Now().Add(2*longest))
	if got := len(tr.claims.graves); got != 0 {
		t.Errorf("%d are remembered for too long", got)
	}
}

// A discoverer that was held up hears of a cgroup late.
func TestTheTimeToAnswerRunsFromTheCgroupsMaking(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	mkdir(t, root, "web")
	for id, ago := range map[uint64]time.Duration{7: patience, 8: -time.Hour, 9: 0} {
		f := new1(id, "/web")
		f.Facts[0].GetCgroup().TimeUnixNano = time.Now().Add(-ago).UnixNano()
		must(t, tr.facts(f))
		if got, ok := r.answer(id); ok != (id == 7) || id == 7 && got != "web" {
			t.Errorf("%s ago: got %q, %v", ago, got, ok)
		}
		must(t, os.RemoveAll(root+"/web"))
		must(t, tr.catchUp())
		mkdir(t, root, "web")
	}
}

// After a pause there may be many states to read, and the daemon waits with a cgroup's
// events for so long only.
func TestACgroupWhoseTimeIsUpDoesNotWaitForStates(t *testing.T) {
	for name, wake := range map[string]func(*tracker) error{
		"when files change": (*tracker).catchUp,
		"when facts come":   func(tr *tracker) error { return tr.facts(new1(9, "/x")) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			tr, r := still(t, defaults(root), nil)
			mkdir(t, root, "web")
			must(t, tr.facts(new1(7, "/a/web")))
			tr.claims.waiting[0].since = time.Now().Add(-patience)
			write(t, root+"/web", at("/a/web"))
			must(t, wake(tr))
			told := r.lines("container")
			if len(told) < 2 || !strings.HasSuffix(told[0], "web unspecified") || !strings.HasSuffix(told[len(told)-1], "web running") {
				t.Errorf("told is %q, want a guess before the state was read, and then the state", told)
			}
			if got := r.container("web"); got.GetHostname() != "h.d" || got.GetCgroupId() != 7 {
				t.Errorf("in the end it is %v", got)
			}
		})
	}
}

func TestTheNextTimeToLookIsThatOfTheNextAnswer(t *testing.T) {
	tr := &tracker{}
	now := time.Now()
	if !tr.due().IsZero() {
		t.Error("there is nothing to wait for")
	}
	tr.claims.waiting = []waiting{{since: now.Add(-patience)}, {since: now.Add(-patience / 2)}, {since: now}}
	for _, tt := range []struct{ looked, want time.Duration }{
		{-patience, 0}, // though it is past, nobody has looked since
		{0, patience / 2},
		{patience / 2, patience},
		{patience, longest - patience},
	} {
		tr.claims.looked = now.Add(tt.looked)
		if got := tr.due().Sub(now); got != tt.want {
			t.Errorf("looked at %s, it is at %s, want %s", tt.looked, got, tt.want)
		}
	}
}
