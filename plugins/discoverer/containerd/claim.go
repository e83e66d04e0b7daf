package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// claimPatience is how long a cgroup waits for its answer: its first events wait
	// with it, and the daemon lets them go soon after.
	claimPatience = 400 * time.Millisecond
	maxUnanswered = 4096
	maxQuestions  = 256 // of claims
	maxCgroups    = 16384
	maxPath       = describe.MaxName // bytes; those of containers have 200
)

// claims are the host's cgroups, every one of which is to be answered: it is a container's
// or none's. A container's path is in its record, which its create event does not tell, so
// the answer may have to wait for the store's. Of a container that was deleted before the
// store was asked there is only its name to tell. It is a part of the tracker, and belongs
// to the same goroutine.
type claims struct {
	cgroups    map[string]uint64 // ids on the default hierarchy, by path
	byPath     map[string]key    // whose cgroup it is, or will be
	unanswered map[uint64]claim  // by id
	doubts     []question        // to ask the store: whether there is such a container
	unread     map[key]int64     // containers that the store had no more when it was asked, and when that was, ns
	scope      scope
	connecting bool // whether there is a containerd to ask is not known yet
	away       bool // there is none

	unasked, expired uint64 // answered without an answer of the store, since the tracker began
}

// claim is a cgroup whose answer waits.
type claim struct {
	path  string
	key   key // of the container whose record it waits for; none: for the end of the snapshot
	since time.Time
	made  int64 // when the cgroup was, ns; 0: not known
	gone  bool  // it is removed, and still to be answered for the sake of its events
}

func newClaims(s scope) claims {
	return claims{scope: s, connecting: true, cgroups: map[string]uint64{}, byPath: map[string]key{}, unanswered: map[uint64]claim{}, unread: map[key]int64{}}
}

// facts takes what the host tells of its cgroups.
func (t *tracker) facts(batch *protov1.HostFacts) error {
	for _, f := range batch.GetFacts() {
		if f.GetReset_() != nil {
			clear(t.cgroups)
			clear(t.unanswered) // the list that follows has them again
			t.doubts = nil
		}
		if g := f.GetCgroup(); g != nil {
			if err := t.cgroup(g); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tracker) cgroup(f *protov1.CgroupFact) error {
	id, path := f.GetId(), f.GetPath()
	if f.GetHierarchy() != "" {
		if f.GetChange() == protov1.CgroupFact_CHANGE_REMOVED {
			return nil
		}
		return t.inv.Considered(id)
	}
	if f.GetChange() == protov1.CgroupFact_CHANGE_REMOVED {
		// A container keeps the id: events of the cgroup may still be on their way.
		if t.cgroups[path] == id {
			delete(t.cgroups, path)
		}
		if c, waits := t.unanswered[id]; waits {
			c.gone = true
			t.unanswered[id] = c
		}
		return nil
	}
	if len(path) > maxPath {
		return t.considered(id)
	}
	if _, there := t.cgroups[path]; there || len(t.cgroups) < maxCgroups {
		t.cgroups[path] = id
	}
	return t.consider(id, claim{path: path, since: t.now(), made: f.GetTimeUnixNano()})
}

// consider answers for a cgroup, or has the answer wait for what is not known yet.
func (t *tracker) consider(id uint64, c claim) error {
	if k, ok := t.owner(c); ok {
		if err := t.claim(k, id, c.path); err != nil {
			return err
		}
		return t.leaveIfWhole(k)
	}
	if t.away || len(t.unanswered) >= maxUnanswered {
		t.unasked++
		return t.considered(id)
	}
	if t.inSnapshot || t.connecting {
		t.unanswered[id] = c
		return nil
	}
	k, asked := t.askedAbout(c.path)
	if !asked {
		if k = named(c.path); k.id == "" || t.containers[k] != nil || !t.scope.has(k.namespace) {
			return t.considered(id)
		}
		if g := t.buried.find(k); g != nil && c.made != 0 && c.made <= g.nano {
			return t.considered(id) // the store has it no more
		}
		if len(t.doubts) >= maxQuestions {
			t.unasked++
			return t.considered(id)
		}
		t.doubts = append(t.doubts, question{key: k, claim: id, tick: t.tick})
	}
	c.key = k
	t.unanswered[id] = c
	return nil
}

// owner is the container whose cgroup it is, by its record's word, or by its name where
// there is no record to be had. One that was made before the container was an earlier one's
// of the same id.
func (t *tracker) owner(c claim) (key, bool) {
	if k, ok := t.byPath[c.path]; ok && (c.made == 0 || c.made >= t.containers[k].created) {
		return k, true
	}
	for k, until := range t.unread {
		own := t.containers[k]
		if end, ends := t.leaving[k]; ends {
			until = min(until, end.deletion.nano)
		}
		if c.made != 0 && c.made >= own.created && c.made <= until && isCalled(c.path, k) {
			return k, true
		}
	}
	return key{}, false
}

// isCalled tells whether a cgroup's name is enough to take it for a container's. Where
// others can guess the id it has to be where ctr puts it, and nobody else may.
func isCalled(path string, k key) bool {
	if at := named(path); at.id != "" {
		return at == k
	}
	return len(k.id) == 64 && strings.Trim(k.id, "0123456789abcdef") == "" && discover.CalledAfter(path, k.id)
}

// claim answers that a cgroup is a container's, whose path is the record's now where that
// has none.
func (t *tracker) claim(k key, id uint64, path string) error {
	c := t.containers[k]
	if c.path == "" {
		r := c.record.Container()
		r.CgroupPath = path
		t.record(k, c, r)
	}
	c.cgroup = id
	return t.tell(k, c)
}

func (t *tracker) considered(id uint64) error {
	delete(t.unanswered, id)
	return t.inv.Considered(id)
}

// askedAbout tells whether a container is being asked for whose cgroup it may be.
func (t *tracker) askedAbout(path string) (key, bool) {
	for k := range t.asking {
		if discover.CalledAfter(path, k.id) {
			return k, true
		}
	}
	return key{}, false
}

// named is the container that a cgroup is called like: ctr's are at /NAMESPACE/ID.
func named(path string) key {
	namespace, id, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || !isIdentifier(namespace) || !isIdentifier(id) || strings.HasSuffix(namespace, ".slice") {
		return key{}
	}
	return key{namespace, id}
}

// isIdentifier tells whether containerd would take a name for an id or a namespace.
func isIdentifier(s string) bool {
	if len(s) == 0 || len(s) > 76 {
		return false
	}
	inside := false // a letter or digit was the last
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
			inside = true
		case (c == '-' || c == '_' || c == '.') && inside:
			inside = false
		default:
			return false
		}
	}
	return inside
}

// nextDoubt gives the next question of a claim, if there is one.
func (t *tracker) nextDoubt() (question, bool) {
	for len(t.doubts) > 0 {
		q := t.doubts[0]
		t.doubts = t.doubts[1:]
		if c, ok := t.unanswered[q.claim]; ok && c.key == q.key {
			return q, true
		}
	}
	t.doubts = nil
	return question{}, false
}

// answerDoubt takes the answer to a question of nextDoubt.
func (t *tracker) answerDoubt(q question, r *protov1.Container, how outcome) error {
	g := t.buried.find(q.key)
	if how == answerOK && t.containers[q.key] == nil && (g == nil || g.tick <= q.tick) {
		t.tick++ // newer than a list that may be under way
		if c := t.add(q.key); c != nil {
			t.record(q.key, c, r)
			if err := t.tell(q.key, c); err != nil {
				return err
			}
		}
	}
	return t.settle(q.key)
}

// settle answers for the cgroups that waited for a container's record, once it is there or
// can't be had.
func (t *tracker) settle(k key) error {
	_, more := t.asking[k]
	var ids []uint64
	for id, c := range t.unanswered {
		if c.key == k {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint64) int { // what is there is the container's in the end
		if a, b := t.unanswered[a].gone, t.unanswered[b].gone; a != b {
			if a {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	for _, id := range ids {
		c, waits := t.unanswered[id]
		if !waits {
			continue
		}
		var err error
		if owner, ok := t.owner(c); ok {
			err = t.claim(owner, id, c.path)
		} else if !more {
			err = t.considered(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reconsider answers for the cgroups that waited for the snapshot.
func (t *tracker) reconsider() error {
	for id, c := range t.unanswered {
		if c.key != (key{}) {
			continue
		}
		delete(t.unanswered, id)
		if err := t.consider(id, c); err != nil {
			return err
		}
	}
	return nil
}

// expire answers for the cgroups that have waited for too long.
func (t *tracker) expire() error {
	before := t.now().Add(-claimPatience)
	for id, c := range t.unanswered {
		if c.since.After(before) {
			continue
		}
		t.expired++
		if err := t.considered(id); err != nil {
			return err
		}
	}
	return nil
}

// setAway notes that there is nobody to ask, and answers for all cgroups that wait.
func (t *tracker) setAway() error {
	t.away, t.connecting, t.doubts = true, false, nil
	for id := range t.unanswered {
		t.unasked++
		if err := t.considered(id); err != nil {
			return err
		}
	}
	return nil
}
