package namespace

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func TestIdsAreMappedBothWays(t *testing.T) {
	m, err := parseMap("         0     100000      65536\n     70000     500000          1\n")
	check(t, err)
	for _, c := range []struct {
		inside, host uint32
	}{{0, 100000}, {1000, 101000}, {65535, 165535}, {70000, 500000}} {
		if got, ok := m.Host(c.inside); !ok || got != c.host {
			t.Errorf("%d inside is %d on the host, want %d", c.inside, got, c.host)
		}
		if got, ok := m.Inside(c.host); !ok || got != c.inside {
			t.Errorf("%d of the host is %d inside, want %d", c.host, got, c.inside)
		}
	}
	for _, id := range []uint32{65536, 69999, 70001, 4294967295} {
		if got, ok := m.Host(id); ok {
			t.Errorf("%d inside is %d on the host", id, got)
		}
	}
	for _, id := range []uint32{0, 99999, 165536, 500001, 4294967295} {
		if got, ok := m.Inside(id); ok {
			t.Errorf("%d of the host is %d inside", id, got)
		}
	}
	whole := Map{{0, 0, 4294967295}}
	if got, ok := whole.Host(4294967294); !ok || got != 4294967294 {
		t.Error(got, ok)
	}
}

func TestTheUserNamespaceOfAContainerTellsItsMaps(t *testing.T) {
	r := newRig(t)
	a := r.run("a", 10, task{set: but(map[Type]uint64{User: 50}), uids: "0 100000 65536\n"})
	b := r.run("b", 11, task{set: hostSet})
	uids, gids, ok := r.Maps(ref(a))
	if got, mapped := uids.Host(33); !ok || !mapped || got != 100033 || !slices.Equal(uids, gids) {
		t.Error(uids, gids, ok)
	}
	uids, _, ok = r.Maps(ref(b))
	if got, mapped := uids.Host(33); !ok || !mapped || got != 33 {
		t.Error(uids, ok)
	}
	if _, _, ok := r.Maps(ref(removed(a).GetContainer())); ok {
		t.Error("a container that there is not has maps")
	}
	if s, _ := r.Get(ID{User, 50}); !slices.Equal(s.UIDs, Map{{0, 100000, 65536}}) || s.Host {
		t.Errorf("%+v", s)
	}
	if s, _ := r.Get(ID{User, hostSet[User]}); len(s.UIDs) != 0 || !s.Host {
		t.Errorf("%+v", s)
	}
}

func TestMapsAreKeptAsFarAsThereIsRoom(t *testing.T) {
	r := newRig(t)
	r.extents = mostKept - 1
	r.run("a", 10, task{set: but(map[Type]uint64{User: 50}), uids: "0 100000 65536\n"})
	if s, _ := r.Get(ID{User, 50}); len(s.UIDs) != 0 || r.Stats().Unmapped != 1 {
		t.Errorf("%+v, %+v", s, r.Stats())
	}
	r.extents = 0
	c := r.run("b", 11, task{set: but(map[Type]uint64{User: 51}), uids: "0 100000 65536\n"})
	if r.extents != 2 {
		t.Errorf("%d extents are kept, want 2", r.extents)
	}
	r.apply(removed(c))
	if r.extents != 0 {
		t.Errorf("%d extents are kept of a namespace that is gone", r.extents)
	}
}

func TestAProcessIsToldAsTheHostAndAsItSeesItself(t *testing.T) {
	r := newRig(t)
	c := r.run("a", 10, task{
		set: but(map[Type]uint64{User: 50, PID: 60}), uids: "0 100000 65536\n", pids: []uint32{10, 4, 1}, comm: "sh\x1b[2J"})
	p, err := r.Process(10)
	check(t, err)
	if !slices.Equal(p.PIDs, []uint32{10, 4, 1}) || p.UID != 100000 || p.GID != 100005 || p.NSUID == nil || *p.NSUID != 0 ||
		p.NSGID == nil || *p.NSGID != 5 || p.Comm != "sh\x1b[2J" || p.Namespaces[PID] != 60 {
		t.Errorf("%+v", p)
	}
	r.proc.add(11, task{set: hostSet, uids: "0 1 1\n"})
	if p, err := r.Process(11); err != nil || p.NSUID != nil || p.NSGID != nil {
		t.Errorf("ids that are not mapped: %+v, %v", p, err)
	}
	if _, err := r.Process(12); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is not there: %v", err)
	}
	if host, err := r.HostPID(ref(c), 1); err != nil || host != 10 {
		t.Errorf("process 1 of the container is %d on the host, %v", host, err)
	}
	if _, err := r.HostPID(ref(c), 99); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that the container has not: %v", err)
	}
	r.apply(removed(c))
	if _, err := r.HostPID(ref(c), 1); !errors.Is(err, ErrUnknown) {
		t.Errorf("a container that is gone: %v", err)
	}
}

func FuzzProcIsReadWithoutSurprise(f *testing.F) {
	f.Add("0 100000 65536\n")
	f.Add("Uid:\t0\t1\t2\t3\nNSpid:\t7\t1\n")
	f.Add("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21\n")
	f.Add("net:[4026531840]")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMap(text)
		if err == nil && len(m) > mostExtents {
			t.Errorf("%d extents", len(m))
		}
		for _, e := range m {
			if host, ok := m.Host(e.Inside); ok != (e.Count > 0) && ok && host == 0 && e.Outside != 0 {
				t.Errorf("%d inside is %d", e.Inside, host)
			}
			m.Inside(e.Outside)
		}
		_, _ = parseStatus(text)
		_, _ = parseStart(text)
		for typ := range Types {
			_, _ = parseLink(text, typ)
		}
	})
}
