package resource

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestEveryRunningContainerIsReadOnceInAnInterval(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	const n = 250
	for i := range n {
		h.container(i, i, 1)
	}
	h.describe(n, func(c *protov1.Container) { c.State = protov1.Container_STATE_EXITED })
	h.describe(n+1, func(c *protov1.Container) { c.State = protov1.Container_STATE_CREATED })
	m.begin(h.now)
	most, readings := uint64(0), uint64(0)
	for m.next < len(m.order) {
		before := m.Stats().Readings
		wait := m.step(h.now)
		if wait < 100*time.Millisecond {
			t.Fatalf("the next step is in %v", wait)
		}
		h.now = h.now.Add(wait)
		most = max(most, m.Stats().Readings-before)
		readings = m.Stats().Readings
	}
	if s := m.Stats(); s.Containers != n || readings != n || s.Gone != 0 {
		t.Errorf("%+v", s)
	}
	if took := h.now.Sub(m.began); took < 9*time.Second || took > 10*time.Second+10*time.Second/slots || most > n/slots+1 {
		t.Errorf("they were read within %v, at most %d at a time", took, most)
	}
	for i := range n {
		if got := h.figure(m, i, CPU); got != i*1000 {
			t.Fatalf("container %d used %v", i, got)
		}
	}
	// After a pause they are caught up with, not all at once.
	began := m.began
	h.now = h.now.Add(time.Hour)
	m.step(h.now)
	if m.began == began {
		t.Error("no pass begins after a pause")
	}
	h.now = h.now.Add(9 * time.Second)
	before := m.Stats().Readings
	m.step(h.now)
	if got := m.Stats().Readings - before; got > 2*n/slots+1 {
		t.Errorf("%d are read at once", got)
	}
}

func TestAContainerIsReadWhenItComesAndNoMoreWhenItGoes(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.pass(m)
	h.describe(1, func(c *protov1.Container) { c.State = protov1.Container_STATE_CREATED })
	m.look(key{id: id(1)})
	if got := h.figure(m, 1, Pids); got != "not measured" {
		t.Errorf("before it runs: %v", got)
	}
	group := h.container(1, 10, 3)
	m.look(key{id: id(1)})
	if got := h.figure(m, 1, Pids); got != 3 {
		t.Errorf("once it runs: %v", got)
	}
	if u, ok := m.Of(&protov1.ContainerRef{Id: id(1)}); !ok || u.GetPids() != 3 || u.GetSource() != "cgroup2" || u.GetTimeUnixNano() != h.now.UnixNano() {
		t.Errorf("%v, %v", u, ok)
	}
	// Its group goes before its description does, in the middle of a pass.
	h.gone("/docker/"+id(1), group)
	h.pass(m)
	if got := h.figure(m, 1, Pids); got != "not known" {
		t.Errorf("without its group: %v", got)
	}
	if _, ok := m.Of(&protov1.ContainerRef{Id: id(1)}); ok {
		t.Error("a container that is gone has a usage")
	}
	if strings.Contains(metrics(t, m), id(1)) {
		t.Error("a container that is gone has metrics")
	}
	h.removed(1)
	m.look(key{id: id(1)})
	if s := m.Stats(); s.Containers != 0 || s.Failed != 0 || s.Open != 0 || len(m.order)+len(m.owners) != 0 {
		t.Errorf("%+v", s)
	}
	if _, ok := m.Of(&protov1.ContainerRef{Id: "nobody"}); ok {
		t.Error("nobody has a usage")
	}
}

func TestARestartedContainerBeginsAnew(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	first := h.container(1, 1000, 9)
	h.traffic.sent(first, 100)
	h.pass(m)
	h.pass(m)
	if got := h.figure(m, 1, SentBytes); got != 100 {
		t.Errorf("it has sent %v", got)
	}
	h.gone("/docker/"+id(1), first)
	second := h.group("/docker/"+id(1), 5, 1)
	h.describe(1, func(c *protov1.Container) { c.StartedUnixNano = 7e9 })
	h.traffic.sent(first, 50) // a last packet of the first run
	h.traffic.sent(second, 3)
	h.pass(m)
	h.pass(m)
	if cpu, sent := h.figure(m, 1, CPU), h.figure(m, 1, SentBytes); cpu != 5000 || sent != 3 {
		t.Errorf("after the restart it has used %v and sent %v", cpu, sent)
	}
	if !strings.Contains(metrics(t, m), "container_start_time_seconds{"+`id="/docker/`+id(1)+`",image="app:1",name="c1"} 7`) {
		t.Error("its metrics do not say when it was started again")
	}
}

func TestAGroupOfV1ThatComesLateIsFound(t *testing.T) {
	h := newHost(t)
	h.write("v1/pids.txt", "")
	m := h.monitor(func(o *Options) {
		mounts := fmt.Sprintf("30 25 0:26 / %s/v1 rw - cgroup cgroup rw,pids\n", h.dir)
		var err error
		if o.Hierarchies, err = find([]byte(mounts), h.dir); err != nil {
			t.Fatal(err)
		}
	})
	h.container(1, 10, 9) // 9 on v2, where this host doesn't account it
	h.pass(m)
	if cpu, pids := h.figure(m, 1, CPU), h.figure(m, 1, Pids); cpu != 10_000 || pids != "not known" {
		t.Errorf("at first it used %v, with %v tasks", cpu, pids)
	}
	h.write("v1/docker/"+id(1)+"/pids.current", "3\n")
	for range limitsEvery + 1 {
		h.pass(m)
	}
	if cpu, pids := h.figure(m, 1, CPU), h.figure(m, 1, Pids); cpu != 10_000 || pids != 3 {
		t.Errorf("then it used %v, with %v tasks", cpu, pids)
	}
}

func TestThereAreNoMoreContainersThanAreWanted(t *testing.T) {
	h := newHost(t)
	m := h.monitor(func(o *Options) { o.Most, o.Exported = 5, 3 })
	var groups []uint64
	for i := range 8 {
		groups = append(groups, h.container(i, 1, 1))
	}
	h.pass(m)
	if s := m.Stats(); s.Containers != 5 || s.Left != 3 {
		t.Errorf("%+v", s)
	}
	text := metrics(t, m)
	if n := strings.Count(text, "\ncontainer_threads{"); n != 3 {
		t.Errorf("%d have metrics", n)
	}
	for _, line := range []string{"ebpf_tracer_containers_measured 5", "ebpf_tracer_containers_not_measured 3", "ebpf_tracer_containers_not_exported 2"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the metrics do not say %q", line)
		}
	}
	// Those that are not measured can be asked for all the same.
	for i := range 8 {
		h.traffic.sent(groups[i], 9)
		h.now = h.now.Add(fresh)
		if u, ok := m.Of(&protov1.ContainerRef{Id: id(i)}); !ok || u.GetPids() != 1 || u.GetSentBytes() != 9 {
			t.Errorf("container %d: %v, %v", i, u, ok)
		}
	}
	for i := range 4 {
		h.removed(i)
	}
	h.pass(m)
	if s := m.Stats(); s.Containers != 4 || s.Left != 0 {
		t.Errorf("after some have gone: %+v", s)
	}
}

func TestThoseThatUseTheMostCPUAreExported(t *testing.T) {
	h := newHost(t)
	m := h.monitor(func(o *Options) { o.Exported = 2 })
	for i := range 5 {
		h.container(i, 0, 1)
	}
	exported := func() string {
		var out []string
		text := metrics(t, m)
		for i := range 5 {
			if strings.Contains(text, id(i)) {
				out = append(out, fmt.Sprint(i))
			}
		}
		return strings.Join(out, " ")
	}
	used := [5]int{}
	use := func(microseconds ...int) {
		for i, u := range microseconds {
			used[i] += u
			h.use("/docker/"+id(i), used[i], 1)
		}
		h.pass(m)
	}
	h.pass(m)
	use(0, 10_000, 0, 20_000, 0)
	use(0, 10_000, 0, 20_000, 0)
	if got := exported(); got != "1 3" {
		t.Errorf("exported are %s", got)
	}
	use(0, 10_000, 11_000, 20_000, 0)
	use(0, 10_000, 11_000, 20_000, 0)
	if got := exported(); got != "1 3" {
		t.Errorf("after another has used a little more: %s", got)
	}
	use(0, 10_000, 15_000, 20_000, 0)
	use(0, 10_000, 15_000, 20_000, 0)
	if got := exported(); got != "2 3" {
		t.Errorf("after another has used much more: %s", got)
	}
}

func TestAListReadsNothing(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 2)
	if u, ok := m.Last(&protov1.ContainerRef{Id: id(1)}); ok {
		t.Errorf("before a reading there is %v", u)
	}
	h.pass(m)
	h.pass(m)
	before := m.Stats().Readings
	h.now = h.now.Add(time.Hour)
	if u, ok := m.Last(&protov1.ContainerRef{Id: id(1)}); !ok || u.GetPids() != 2 || u.GetTimeUnixNano() >= h.now.UnixNano() {
		t.Errorf("%v, %v", u, ok)
	}
	if got := m.Stats().Readings; got != before {
		t.Errorf("%d containers were read", got-before)
	}
}

func TestAskingOftenReadsOnceASecond(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 1)
	h.pass(m)
	before := m.Stats().Readings
	for range 100 {
		h.now = h.now.Add(20 * time.Millisecond)
		if _, ok := m.Of(&protov1.ContainerRef{Id: id(1)}); !ok {
			t.Fatal("not known")
		}
	}
	if got := m.Stats().Readings - before; got < 1 || got > 2 {
		t.Errorf("it was read %d times in two seconds", got)
	}
}

func TestTheContainersOwnGroupIsFoundAmongThoseThatAreIts(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	for n, tt := range []struct {
		told   string
		groups []string
		want   string
	}{
		{"", []string{"/a/X/deep/er", "/a/X", "/a/X/deep"}, "/a/X"},
		{"/a/X", []string{"/a/X/init", "/a/X"}, "/a/X"},
		{"/a/b/c/X", []string{"/crio-X", "/a/b/c/X"}, "/a/b/c/X"},
		{"", []string{"/s/crio-conmon-X.scope", "/s/crio-X.scope"}, "/s/crio-X.scope"},
		{"", []string{"/s/libpod-X.scope/container", "/s/libpod-X.scope", "/s/libpod-conmon-X.scope"}, "/s/libpod-X.scope"},
		{"/told/X", nil, "/told/X"},
		{"", nil, ""},
	} {
		x := id(1000 + n)
		named := func(p string) string { return strings.ReplaceAll(p, "X", x) }
		var last uint64
		for _, g := range tt.groups {
			last = h.group(fmt.Sprintf("/%d%s", n, named(g)), 1, 1)
		}
		told := named(tt.told)
		if told != "" {
			told = fmt.Sprintf("/%d%s", n, told)
		}
		h.describe(1000+n, func(c *protov1.Container) { c.CgroupPath = told })
		v, ok := h.inventory.Get(&protov1.ContainerRef{Id: x})
		if !ok {
			t.Fatal("not described")
		}
		main, group := m.home(v)
		want := named(tt.want)
		if want != "" {
			want = fmt.Sprintf("/%d%s", n, want)
		}
		if main != want || (group == 0) != (len(tt.groups) == 0) {
			t.Errorf("told %q, groups %v: %q %d", tt.told, tt.groups, main, group)
		}
		if len(tt.groups) > 0 {
			g := h.inventory.Lookup(group)
			if g == nil || g.Path != main {
				t.Errorf("group %d is not at %s", group, main)
			}
		}
		_ = last
	}
}

func TestRunReadsNewContainersAtOnceAndEnds(t *testing.T) {
	h := newHost(t)
	m := h.monitor(func(o *Options) { o.Interval, o.Now = time.Second, time.Now })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	h.container(1, 1, 4)
	for deadline := time.Now().Add(20 * time.Second); h.figure(m, 1, Pids) != 4; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a container that has come was not read")
		}
	}
	cancel()
	<-done
	if open := m.Stats().Open; open != 0 {
		t.Errorf("%d files are open in the end", open)
	}
}
