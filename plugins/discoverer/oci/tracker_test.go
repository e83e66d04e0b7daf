package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestOnlyDirectoriesWithAStateAreContainers(t *testing.T) {
	root := t.TempDir()
	lay(t, root, map[string]string{
		"web/state.json": ofRunc, "empty/x": "", "broken/state.json": "{", "file": "", "bad\nname/state.json": ofRunc, "\xff/state.json": ofRunc,
	})
	outside := t.TempDir()
	lay(t, outside, map[string]string{"state.json": ofRunc})
	must(t, os.Symlink(outside, root+"/link"))
	must(t, os.Chtimes(root+"/empty", time.Now(), time.Now().Add(-time.Hour)))
	tr, r := still(t, defaults(root), nil)
	if got := len(r.containers); got != 2 || r.container("web") == nil || r.container("broken") == nil {
		t.Errorf("the containers are %v", r.lines("container"))
	}
	if got := r.container("broken"); got.GetState() != protov1.Container_STATE_UNSPECIFIED || got.GetName() != "broken" || got.GetCgroupPath() != "" {
		t.Errorf("of the broken one is told %v", got)
	}
	if len(tr.creating) != 1 { // the broken one
		t.Errorf("%d are taken to be created", len(tr.creating))
	}
	lay(t, root, map[string]string{"another\x1b/state.json": ofRunc})
	must(t, os.Symlink(outside, root+"/another-link"))
	lay(t, root, map[string]string{"last/state.json": ofRunc})
	must(t, tr.catchUp())
	if got := len(r.containers); got != 3 || r.container("last") == nil {
		t.Errorf("the containers are %v", r.lines("container"))
	}
}

func TestABrokenStateIsToldWhenItIsRight(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	dir := mkdir(t, root, "web")
	write(t, dir, "{")
	must(t, tr.catchUp())
	if len(r.containers) != 0 {
		t.Errorf("told is %v", r.lines("container"))
	}
	for c := range tr.creating {
		c.since = c.since.Add(-2 * young)
	}
	must(t, tr.beat())
	if got := r.container("web"); got == nil || len(tr.creating) != 0 {
		t.Fatalf("told is %v", got)
	}
	write(t, dir, at("/a/web"))
	must(t, tr.catchUp())
	if got := r.container("web"); got.GetState() != running || got.GetHostname() != "h.d" {
		t.Errorf("it is %v", got)
	}
	must(t, os.RemoveAll(dir))
	must(t, tr.catchUp())
	if got := strings.Join(r.words("web"), " "); got != "created started died removed" || r.container("web") != nil {
		t.Errorf("what happened is %q", got)
	}
}

func TestNamespacesOfContainerdAreRoots(t *testing.T) {
	root := mkdir(t, t.TempDir(), "containerd/runc")
	lay(t, root, map[string]string{"default/web/state.json": at("/default/web")})
	tr, r := still(t, defaults(root), nil)
	if got := r.container("web"); got.GetScope() != "containerd:default" || got.GetRuntime() != "containerd" {
		t.Errorf("it is %v", got)
	}
	lay(t, root, map[string]string{"other/db/state.json": at("/other/db")})
	must(t, tr.catchUp())
	if got := r.container("db"); got.GetScope() != "containerd:other" {
		t.Errorf("it is %v", got)
	}
	if w := r.words("db"); len(w) != 0 {
		t.Errorf("what happened is containerd's to tell, not %q", w)
	}
	must(t, os.RemoveAll(root+"/other"))
	must(t, tr.catchUp())
	if r.container("db") != nil || len(tr.open) != 2 {
		t.Errorf("left are %v and %d open directories", r.containers, len(tr.open))
	}
	lay(t, root, map[string]string{"other/db/state.json": at("/other/db")})
	must(t, tr.catchUp())
	if r.container("db") == nil {
		t.Error("a namespace that came back is not looked at")
	}
	t.Run("and what happens to their containers is told to who asks", func(t *testing.T) {
		c := defaults(root)
		c.Lifecycle = lifecycleAll
		tr, r := still(t, c, nil)
		lay(t, root, map[string]string{"other/new/state.json": at("/other/new")})
		must(t, tr.catchUp())
		if got := strings.Join(r.words("new"), " "); got != "created started" {
			t.Errorf("what happened is %q", got)
		}
	})
}

func TestARootThatIsAwayIsWaitedFor(t *testing.T) {
	root := filepath.Join(t.TempDir(), "runc")
	r, host := start(t, defaults(root), nil)
	r.wait("a reason", func(r *recorder) bool {
		return strings.Contains(r.reason, root) && strings.Contains(r.reason, "set roots")
	})
	host.created(5, "/x")
	r.answered(5)
	for n := range 2 {
		lay(t, root, map[string]string{fmt.Sprintf("web-%d/state.json", n): ofRunc})
		r.wait("a snapshot", synced(n+1))
		r.wait("the container", inState(fmt.Sprint("web-", n), running))
		must(t, os.Rename(root, root+fmt.Sprint(".gone.", n)))
		r.wait("that it is missed", func(r *recorder) bool { return r.reason != "" })
		if r.container(fmt.Sprint("web-", n)) == nil {
			t.Error("what was told is not in force any more while there is no root")
		}
	}
	lay(t, root, map[string]string{"last/state.json": ofRunc})
	r.wait("the last snapshot", synced(3))
	r.wait("that only the last is left", func(r *recorder) bool { return len(r.containers) == 1 && r.containers["last"] != nil })
}

func TestARootThatGoesTakesItsContainersAlong(t *testing.T) {
	top := t.TempDir()
	one, two := mkdir(t, top, "one"), mkdir(t, top, "two")
	lay(t, top, map[string]string{"one/a/state.json": at("/a"), "two/b/state.json": at("/b")})
	tr, r := still(t, defaults(one, two), nil)
	must(t, os.Rename(one, one+".gone"))
	must(t, tr.catchUp())
	if r.container("a") != nil || r.container("b") == nil || r.reason != "" {
		t.Errorf("left are %v; %q", r.containers, r.reason)
	}
	if got := strings.Join(r.words("a"), " "); got != "died removed" {
		t.Errorf("what happened is %q", got)
	}
	must(t, os.Rename(one+".gone", one))
	must(t, tr.beat())
	if r.container("a") == nil {
		t.Error("it came back and is not looked at")
	}
}

func TestADirectoryWithTwoNamesIsOneRoot(t *testing.T) {
	root := t.TempDir()
	other := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(root, other))
	lay(t, root, map[string]string{"web/state.json": ofRunc})
	tr, r := still(t, defaults(root, other), nil)
	if len(tr.open) != 1 || len(r.lines("container")) != 1 {
		t.Errorf("%d are open; told is %v", len(tr.open), r.lines("container"))
	}
}

// Without inotify everything is looked at again and again.
func TestABlindTrackerLooks(t *testing.T) {
	root := t.TempDir()
	tr, r := still(t, defaults(root), nil)
	must(t, tr.watcher.close())
	tr.watcher, tr.blind = nil, true
	dir := mkdir(t, root, "web")
	must(t, tr.facts(new1(7, "/a/web")))
	write(t, dir, ofRunc)
	must(t, tr.beat())
	if got, _ := r.answer(7); got != "web" || r.container("web").GetState() != running {
		t.Errorf("got %q, %v", got, r.container("web"))
	}
	must(t, os.RemoveAll(dir))
	must(t, tr.beat())
	if r.container("web") != nil {
		t.Error("its end is not seen")
	}
}

// More happens between two looks than the kernel keeps.
func TestWhatTheKernelLostIsFound(t *testing.T) {
	raw, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	var most int
	_, err = fmt.Sscan(string(raw), &most)
	must(t, err)
	root := t.TempDir()
	lay(t, root, map[string]string{"before/state.json": at("/before")})
	tr, r := still(t, defaults(root), nil)
	for i := range most/2 + 10 { // each makes two events, which must differ from the one before
		name := filepath.Join(root, fmt.Sprint("x", i%2))
		must(t, os.Mkdir(name, 0o755))
		must(t, os.Remove(name))
	}
	must(t, os.RemoveAll(root+"/before"))
	lay(t, root, map[string]string{"web/state.json": ofRunc})
	must(t, tr.catchUp())
	if r.container("web") == nil || r.container("before") != nil || len(tr.containers) != 1 {
		t.Errorf("known are %v", r.containers)
	}
}

func TestContainersBeyondTheBoundAreCounted(t *testing.T) {
	root := t.TempDir()
	for i := range maxContainers + 3 {
		mkdir(t, root, fmt.Sprint("c", i))
	}
	tr, _ := still(t, defaults(root), nil)
	mkdir(t, root, "one-more")
	must(t, tr.catchUp())
	if len(tr.containers) != maxContainers || tr.refused == 0 {
		t.Errorf("%d are known, %d refused", len(tr.containers), tr.refused)
	}
	must(t, tr.resync())
	if tr.refused != 0 && len(tr.containers) != maxContainers {
		t.Errorf("%d are known", len(tr.containers))
	}
}

func TestAUserWhoMakesDirectoriesWithoutEndKeepsNobodyElsesOut(t *testing.T) {
	theirs, roots := t.TempDir(), t.TempDir()
	must(t, os.Chmod(theirs, 0o777))
	for i := range maxOthers + 3 {
		mkdir(t, theirs, fmt.Sprint("c", i))
	}
	tr, r := still(t, defaults(theirs, roots), nil)
	if len(tr.containers) != maxOthers || tr.others != maxOthers || tr.refused != 3 {
		t.Errorf("%d are known, %d of users, %d refused", len(tr.containers), tr.others, tr.refused)
	}
	lay(t, roots, map[string]string{"web/state.json": ofRunc})
	must(t, os.RemoveAll(filepath.Join(theirs, "c0")))
	must(t, tr.catchUp())
	if r.container("web") == nil || tr.others != maxOthers-1 {
		t.Errorf("root's container is %v, %d are users'", r.container("web"), tr.others)
	}
	must(t, tr.resync()) // lets one of those in that were left out
	if tr.others != maxOthers || len(tr.containers) != maxOthers+1 {
		t.Errorf("%d are known, %d of users", len(tr.containers), tr.others)
	}
}

// What a user can write to may name cgroups that are not theirs.
func TestARootOfAUsersIsBelievedOfTheirOwnCgroups(t *testing.T) {
	const user = 12345
	root := t.TempDir()
	theirs, dir := makeCgroup(t, "oci-test-theirs")
	must(t, os.Chown(dir, user, user))
	others, _ := makeCgroup(t, "oci-test-others")
	id := strings.Repeat("ab", 32)
	lay(t, root, map[string]string{"mine/state.json": at("/oci-test-theirs"), "evil/state.json": at("/oci-test-others"), id + "/state.json": at("/oci-test-theirs")})
	must(t, os.Chown(root, user, user))
	tr, r := still(t, defaults(root), node(t))
	for name, want := range map[string]uint64{"mine": theirs, "evil": 0} {
		if got := r.container(name); got.GetCgroupId() != want || (got.GetCgroupPath() != "") != (want != 0) {
			t.Errorf("%s is %v", name, got)
		}
	}
	if got := r.container(id); got.GetScope() != "oci:"+root {
		t.Errorf("a long id that somebody made up is %v", got)
	}
	mkdir(t, root, "guess")
	must(t, tr.facts(batch(protov1.CgroupFact_CHANGE_PRESENT, others, "/oci-test-others")))
	must(t, tr.facts(new1(99, "/guess")))
	must(t, tr.settle(time.Now().Add(longest)))
	for _, cgroup := range []uint64{others, 99} {
		if got, ok := r.answer(cgroup); !ok || got != "" {
			t.Errorf("cgroup %d is said to be of %q, %v", cgroup, got, ok)
		}
	}
	t.Run("also of one that comes later", func(t *testing.T) {
		lay(t, root, map[string]string{"later/state.json": at("/oci-test-later"), "thief/state.json": at("/oci-test-stolen")})
		must(t, tr.catchUp())
		for _, name := range []string{"later", "thief"} {
			if got := r.container(name); got == nil || got.GetCgroupPath() != "" {
				t.Errorf("before it is there, %s is %v", name, got)
			}
		}
		later, dir := makeCgroup(t, "oci-test-later")
		must(t, os.Chown(dir, user, user))
		stolen, _ := makeCgroup(t, "oci-test-stolen")
		must(t, tr.facts(new1(later, "/oci-test-later")))
		must(t, tr.facts(new1(stolen, "/oci-test-stolen")))
		must(t, tr.settle(time.Now().Add(longest)))
		for cgroup, want := range map[uint64]string{later: "later", stolen: ""} {
			if got, ok := r.answer(cgroup); !ok || got != want {
				t.Errorf("the cgroup of %q is said to be of %q, %v", want, got, ok)
			}
		}
	})
	t.Run("and not when one that has its own names another's", func(t *testing.T) {
		lay(t, root, map[string]string{"mine/state.json": at("/oci-test-others")})
		must(t, tr.catchUp())
		if got := r.container("mine"); got.GetCgroupPath() == "/oci-test-others" || got.GetCgroupId() == others {
			t.Errorf("it is %v", got)
		}
		if c := tr.byPath["/oci-test-others"]; c != nil {
			t.Errorf("the path leads to %s", c.id)
		}
	})
	t.Run("and of none, where their owners can't be seen", func(t *testing.T) {
		tr, r := still(t, defaults(root), nil)
		if got := r.container("mine"); got.GetCgroupPath() != "" {
			t.Errorf("it is %v", got)
		}
		must(t, tr.facts(batch(protov1.CgroupFact_CHANGE_PRESENT, theirs, "/oci-test-theirs")))
		must(t, tr.settle(time.Now().Add(longest)))
		if got, ok := r.answer(theirs); !ok || got != "" {
			t.Errorf("it is said to be of %q, %v", got, ok)
		}
	})
	t.Run("and so is one that others may write to", func(t *testing.T) {
		open := t.TempDir()
		must(t, os.Chmod(open, 0o777))
		root := newRoot(place{path: open, name: open})
		must(t, root.open())
		must(t, root.dir.Close())
		if root.trusted {
			t.Error("it is believed")
		}
	})
}

// A process of the same number that began at another time is another's.
func TestAProcessIsKnownByItsStart(t *testing.T) {
	sleep := exec.Command("sleep", "1000")
	must(t, sleep.Start())
	ended := false
	end := func() {
		if !ended {
			ended = true
			must(t, sleep.Process.Kill())
			_ = sleep.Wait() // it was killed
		}
	}
	t.Cleanup(end)
	pid := sleep.Process.Pid
	for { // its arguments come a moment after its program
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		must(t, err)
		if len(args) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	began := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))[19]
	in := func(began string) string {
		return strings.NewReplacer(`"init_process_pid":4242`, fmt.Sprintf(`"init_process_pid":%d`, pid), "804237", began).Replace(ofRunc)
	}
	root := t.TempDir()
	lay(t, root, map[string]string{"lives/state.json": in(began), "reused/state.json": in("1"), "gone/state.json": strings.Replace(ofRunc, "4242", "4194305", 1)})
	c := defaults(root)
	c.Proc = "/proc"
	tr, r := still(t, c, nil)
	for id, want := range map[string]protov1.Container_State{"lives": running, "reused": exited, "gone": exited} {
		if got := r.container(id); got.GetState() != want || (got.GetPid() == uint32(pid)) != (id == "lives") {
			t.Errorf("%s is %v", id, got)
		}
	}
	must(t, tr.beat())
	if got := r.container("lives"); !slices.Equal(got.GetArgs(), []string{"sleep", "1000"}) {
		t.Errorf("its arguments are %q", got.GetArgs())
	}
	// The test's own process waits for it: it is then no zombie.
	end()
	must(t, tr.beat())
	if got := r.container("lives"); got.GetState() != exited || got.GetPid() != 0 || got.GetFinishedUnixNano() == 0 {
		t.Errorf("it has ended, and is %v", got)
	}
}

func TestOnlyAForeignProcIsUsed(t *testing.T) {
	if newProc("") != "" || newProc(t.TempDir()) != "" {
		t.Error("a /proc that is none is used")
	}
	if newProc("/proc") != "/proc" {
		t.Error("the host's is not used")
	}
	own := t.TempDir()
	must(t, os.Symlink(fmt.Sprint(os.Getpid()), own+"/self"))
	if os.Getpid() != 1 && newProc(own) == "" {
		t.Error("one that is shared with the host is not used")
	}
}

func TestTheFreezerOfV1IsLookedAtInItsPlaceOnly(t *testing.T) {
	host := t.TempDir()
	lay(t, host, map[string]string{"sys/fs/cgroup/freezer/web/freezer.state": "FROZEN\n", "etc/freezer.state": "FROZEN\n", "sys/fs/cgroup/freezer/db/freezer.state": "THAWED\n"})
	h := hierarchy{host: host}
	for dir, want := range map[string]bool{
		"/sys/fs/cgroup/freezer/web": true, "/sys/fs/cgroup/freezer/db": false, "/sys/fs/cgroup/freezer/none": false, "/sys/fs/cgroup/../../../etc": false, "/etc": false, "": false,
	} {
		if got := h.frozen(dir); got != want {
			t.Errorf("%q: got %v", dir, got)
		}
	}
}

func TestWhereRootsMayBe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		roots []string
		host  string
		want  string
	}{
		{"the well-known ones", knownRoots()[:2], "", "[{/run/runc /run/runc false} {/run/crun /run/crun false}]"},
		{"and below the host's root", knownRoots()[:1], "/host", "[{/host/run/runc /run/runc false} {/run/runc /run/runc false}]"},
		{"the operator's", []string{"/srv/runc"}, "", "[{/srv/runc /srv/runc true}]"},
		{"the operator's below the host's root is called as the host does", []string{"/host/srv/runc"}, "/host", "[{/host/srv/runc /srv/runc true}]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fmt.Sprint(Config{Roots: tt.roots}.places(tt.host)); got != tt.want {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestRootsThatCantBeReadAreSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, r := still(t, defaults(file), nil)
	if !strings.Contains(r.reason, "not a directory") {
		t.Errorf("the reason is %q", r.reason)
	}
}

func TestWatchesEnd(t *testing.T) {
	root := t.TempDir()
	tr, _ := still(t, defaults(root), nil)
	for i := range 100 {
		dir := mkdir(t, root, fmt.Sprint("c", i))
		must(t, tr.catchUp())
		must(t, os.RemoveAll(dir))
		must(t, tr.catchUp())
	}
	if len(tr.watcher.targets) != 1 || len(tr.containers)+len(tr.creating)+len(tr.unplaced)+len(tr.stale)+len(tr.dirty)+len(tr.byPath)+len(tr.byCgroup) != 0 {
		t.Errorf("%d watches and %d containers are left", len(tr.watcher.targets), len(tr.containers))
	}
	var st unix.Stat_t
	must(t, unix.Stat(path.Clean(root), &st))
}
