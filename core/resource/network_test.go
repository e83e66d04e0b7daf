package resource

import (
	"os"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func TestTheTrafficOfAllGroupsOfAContainerIsItsOwn(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	outer := h.container(1, 1, 1)
	inner := h.group("/docker/"+id(1)+"/inner", 1, 1)
	deep := h.group("/docker/"+id(1)+"/inner/deep", 1, 1)
	other := h.container(2, 1, 1)
	host := h.group("/system.slice", 1, 1)
	h.traffic.sent(outer, 1)
	h.traffic.sent(inner, 20)
	h.traffic.sent(deep, 300)
	h.traffic.sent(other, 4000)
	h.traffic.sent(host, 50000)
	h.pass(m)
	h.pass(m)
	if a, b := h.figure(m, 1, SentBytes), h.figure(m, 2, SentBytes); a != 321 || b != 4000 {
		t.Errorf("they have sent %v and %v", a, b)
	}
	// A group goes, and with it its entry; the traffic stays the container's.
	h.traffic.sent(deep, 7)
	h.gone("/docker/"+id(1)+"/inner/deep", deep)
	h.now = h.now.Add(time.Minute)
	h.inventory.Containers() // sweeps
	for range 3 {
		h.apply() // sweeps
		h.pass(m)
	}
	if got := h.figure(m, 1, SentBytes); got != 328 {
		t.Errorf("with a group less it has sent %v", got)
	}
	if len(h.traffic.forgot) != 1 || h.traffic.forgot[0] != deep || len(m.charged) != 4 {
		t.Errorf("forgotten are %v, charged %v", h.traffic.forgot, m.charged)
	}
	// Nor is it unknown whose traffic that of a group of the host was.
	h.traffic.sent(host, 7)
	h.gone("/system.slice", host)
	h.now = h.now.Add(time.Minute)
	for range 3 {
		h.apply() // sweeps
		h.pass(m)
	}
	if len(h.traffic.forgot) != 2 || h.traffic.forgot[1] != host || m.unplaced != (kernel.Traffic{}) {
		t.Errorf("forgotten are %v, unplaced %+v", h.traffic.forgot, m.unplaced)
	}
	// What nobody knows of is counted, once it had the time to become known.
	h.traffic.sent(9999, 5)
	h.pass(m)
	if m.unplaced.SentBytes != 0 || h.traffic.of[9999].SentBytes != 5 {
		t.Errorf("at once unplaced are %+v", m.unplaced)
	}
	h.pass(m)
	if m.unplaced.SentBytes != 5 || h.traffic.of[9999].SentBytes != 0 {
		t.Errorf("unplaced are %+v", m.unplaced)
	}
	// Asked for one container, its groups are read at once.
	h.traffic.sent(inner, 1000)
	h.now = h.now.Add(2 * time.Second)
	if u, ok := m.Of(&protov1.ContainerRef{Id: id(1)}); !ok || u.GetSentBytes() != 1328 {
		t.Errorf("%v, %v", u, ok)
	}
	h.pass(m)
	h.pass(m)
	if got := h.figure(m, 1, SentBytes); got != 1328 {
		t.Errorf("and no packet is counted twice: %v", got)
	}
}

func TestTrafficThatIsThereBeforeItsGroupIsKnownIsNotLost(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.pass(m)
	h.traffic.sent(h.ids+1, 100)
	h.pass(m)
	if group := h.container(1, 1, 1); group != h.ids {
		t.Fatal("the group has another id")
	}
	h.pass(m)
	h.pass(m)
	if got := h.figure(m, 1, SentBytes); got != 100 || m.unplaced != (kernel.Traffic{}) {
		t.Errorf("it has sent %v, unplaced are %+v", got, m.unplaced)
	}
}

func TestTrafficThatCanNotBeReadIsAFault(t *testing.T) {
	h := newHost(t)
	m := h.monitor(nil)
	h.container(1, 1, 1)
	h.traffic.err = os.ErrInvalid
	h.pass(m)
	if s := m.Stats(); s.Faults == 0 {
		t.Errorf("%+v", s)
	}
	if got := h.figure(m, 1, Pids); got != 1 {
		t.Errorf("the files say %v", got)
	}
}
