package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

type conf struct {
	Socket  string        `json:"socket"`
	Timeout time.Duration `json:"timeout"`
	Level   []struct {
		Rate float64 `json:"rate"`
	} `json:"level"`
}

func example(newErr error) definition {
	return Discoverer[conf]{
		Name: "example", Version: "1.0.0", Doc: "An example.",
		Schema: schema.Block{Attributes: []schema.Attribute{{Name: "timeout", Type: schema.Duration, Default: time.Second}}},
		Validate: func(c conf) diag.Diagnostics {
			if c.Socket == "bad" {
				return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("socket")}, "bad socket", "it is bad")}
			}
			return nil
		},
		New: func(context.Context, conf, Env) (discover.Discoverer, error) { return nil, newErr },
	}.definition()
}

func TestRunByHandItExplainsItself(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := byHand(example(nil), nil, &out, &errOut); code != 1 || out.Len() != 0 {
		t.Errorf("exit code %d, printed %q", code, out.String())
	}
	for _, want := range []string{"example is a plugin of ebpf-tracer", `discoverer "example" {}`, "--describe"} {
		if !strings.Contains(errOut.String(), want) {
			t.Errorf("%q is missing in %q", want, errOut.String())
		}
	}
}

func TestDescribePrintsTheSchemaAsJSON(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := byHand(example(nil), []string{"word", "--describe"}, &out, &errOut); code != 0 || errOut.Len() != 0 {
		t.Fatalf("exit code %d: %s", code, errOut.String())
	}
	var got struct {
		Name, Version, Kind string
		Schema              struct {
			Attributes []struct {
				Name    string
				Default int
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if got.Name != "example" || got.Version != "1.0.0" || got.Kind != "KIND_DISCOVERER" || got.Schema.Attributes[0].Default != 1e9 {
		t.Errorf("printed %s", out.String())
	}
}

func TestAConfigurationIsReadAndRefusedAtItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ raw, path, detail string }{
		"good":                       {`{"socket":"s","timeout":5,"level":[{"rate":0.5}]}`, "", ""},
		"empty":                      {``, "", ""},
		"what Validate refuses":      {`{"socket":"bad"}`, "socket", "it is bad"},
		"what the struct can't hold": {`{"timeout":"5s"}`, "timeout", "disagree"},
		"what is no JSON":            {`{`, "", "read the configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			ds := example(nil).validate([]byte(c.raw))
			if c.detail == "" {
				if len(ds) != 0 {
					t.Errorf("diagnostics are %+v", ds)
				}
				return
			}
			if len(ds) != 1 || ds[0].Path.String() != c.path || !strings.Contains(ds[0].Detail, c.detail) {
				t.Errorf("diagnostics are %+v", ds)
			}
		})
	}
}

func TestAnErrorOfNewBecomesADiagnostic(t *testing.T) {
	placed := diag.Errorf(diag.Path{diag.Attr("a")}, "s", "d")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"plain":               {errors.New("no"), "plugin refused the configuration: no"},
		"a diagnostic":        {placed, "a: s: d"},
		"a diagnostic inside": {fmt.Errorf("new: %w", placed), "a: s: d"},
		"diagnostics":         {diag.Diagnostics{placed, placed}.Err(), "a: s: d"},
	} {
		t.Run(name, func(t *testing.T) {
			ds := diagnostics(c.err)
			if len(ds) == 0 || ds[0].Error() != c.want {
				t.Errorf("diagnostics are %+v", ds)
			}
		})
	}
	if ds := diagnostics(nil); ds != nil {
		t.Errorf("of none: %+v", ds)
	}
}

// sink takes the batches of an inventory.
type sink struct {
	mu      sync.Mutex
	batches []*protov1.InventoryChanges
	hold    chan struct{} // nil, or writes wait for it
}

func (s *sink) write(b *protov1.InventoryChanges) error {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, b)
	return nil
}

func TestAnInventorySendsEverythingInOrderInBoundedBatches(t *testing.T) {
	s := &sink{}
	inv := newInventory(t.Context(), func(string) {})
	sent := make(chan error, 1)
	go func() { sent <- inv.send(s.write) }()
	const n = 5000
	for i := range n {
		// Some are large, so that the bytes of a batch count too.
		c := &protov1.Container{Id: fmt.Sprint(i)}
		if i%10 == 0 {
			c.Env = []string{strings.Repeat("e", 30<<10), strings.Repeat("f", 30<<10)}
		}
		if err := inv.Container(c); err != nil {
			t.Fatal(err)
		}
	}
	inv.close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, b := range s.batches {
		if len(b.GetChanges()) > batchChanges || proto.Size(b) > wire.MaxBatch {
			t.Errorf("a batch of %d changes, %d bytes", len(b.GetChanges()), proto.Size(b))
		}
		for _, c := range b.GetChanges() {
			if c.GetContainer().GetId() != fmt.Sprint(next) {
				t.Fatalf("change %d is %v", next, c)
			}
			next++
		}
	}
	if next != n {
		t.Errorf("%d of %d were sent", next, n)
	}
}

// kept is what is sent of changes that come at once, in one batch.
func kept(changes ...*protov1.InventoryChange) string {
	b := newBatch(sized{changes[0], proto.Size(changes[0])})
	for _, c := range changes[1:] {
		b.add(sized{c, proto.Size(c)})
	}
	var out []string
	bytes := 0
	for _, c := range b.changes {
		bytes += proto.Size(c)
		switch {
		case c.GetContainer() != nil:
			out = append(out, c.GetContainer().GetId()+"="+c.GetContainer().GetName())
		case c.GetLifecycle() != nil:
			out = append(out, c.GetLifecycle().GetContainer().GetId()+" "+c.GetLifecycle().GetAction())
		case c.GetRemoved().GetContainer() != nil:
			out = append(out, c.GetRemoved().GetContainer().GetId()+" gone")
		default:
			out = append(out, "other")
		}
	}
	if bytes != b.bytes {
		out = append(out, fmt.Sprintf("taken for %d bytes, not %d", b.bytes, bytes))
	}
	return strings.Join(out, "; ")
}

func TestOfDescriptionsOfOneContainerTheLastIsSentUnlessSomethingWasSaidInBetween(t *testing.T) {
	is := func(id, name string) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: &protov1.Container{Id: id, Name: name}}}
	}
	ref := func(id string) *protov1.ContainerRef { return &protov1.ContainerRef{Id: id} }
	did := func(id, action string) *protov1.InventoryChange {
		l := &protov1.Lifecycle{Action: action}
		if id != "" {
			l.Container = ref(id)
		}
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Lifecycle{Lifecycle: l}}
	}
	gone := func(id string) *protov1.InventoryChange {
		return &protov1.InventoryChange{Change: &protov1.InventoryChange_Removed{Removed: &protov1.Removed{What: &protov1.Removed_Container{Container: ref(id)}}}}
	}
	reset := &protov1.InventoryChange{Change: &protov1.InventoryChange_Reset_{Reset_: &protov1.Reset{}}}
	scoped := is("a", "another's")
	scoped.GetContainer().Scope = "x"
	for _, c := range []struct {
		name    string
		changes []*protov1.InventoryChange
		want    string
	}{
		{"one after the other", []*protov1.InventoryChange{is("a", "1"), is("a", "twice"), is("a", "3")}, "a=3"},
		{"with another between", []*protov1.InventoryChange{is("a", "1"), is("b", "1"), is("a", "2")}, "a=2; b=1"},
		{"of one id in two scopes", []*protov1.InventoryChange{is("a", "1"), scoped}, "a=1; a=another's"},
		{"with its life between", []*protov1.InventoryChange{is("a", "1"), did("a", "started"), is("a", "2"), is("a", "3")}, "a=1; a started; a=3"},
		{"with the life of another", []*protov1.InventoryChange{is("a", "1"), did("b", "started"), is("a", "2")}, "a=2; b started"},
		{"with its end between", []*protov1.InventoryChange{is("a", "1"), gone("a"), is("a", "2")}, "a=1; a gone; a=2"},
		{"with a new snapshot between", []*protov1.InventoryChange{is("a", "1"), reset, is("a", "2")}, "a=1; other; a=2"},
		{"with an image between", []*protov1.InventoryChange{is("a", "1"), did("", "pulled"), is("a", "2")}, "a=1;  pulled; a=2"},
	} {
		if got := kept(c.changes...); got != c.want {
			t.Errorf("%s: sent %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWhatNobodyWaitsForIsSentWithWhatSomebodyDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		inv := newInventory(t.Context(), func(string) {})
		sent := make(chan error, 1)
		go func() { sent <- inv.send(s.write) }()
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		batches := func(after time.Duration) int {
			time.Sleep(after)
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.batches)
		}
		must(inv.Container(&protov1.Container{Id: "a"}))
		if n := batches(0); n != 1 {
			t.Errorf("a description after a pause: %d batches", n)
		}
		must(inv.Container(&protov1.Container{Id: "b"}))
		if n := batches(quiet.Millis(batchWait) - 1); n != 1 {
			t.Errorf("another right after it: %d batches", n)
		}
		if n := batches(1); n != 2 {
			t.Errorf("another, in time: %d batches", n)
		}
		const before = 2
		must(inv.RemoveContainer(&protov1.ContainerRef{Id: "a"}))
		must(inv.Lifecycle(&protov1.Lifecycle{Action: "died"}))
		if n := batches(leisure - 1); n != before {
			t.Errorf("a removal: %d batches", n)
		}
		must(inv.Considered(1))
		if n := batches(0); n != before+1 || len(s.batches[before].GetChanges()) != 3 {
			t.Errorf("a removal and an answer: %d batches, %v", n, s.batches[n-1])
		}
		must(inv.RemoveContainer(&protov1.ContainerRef{Id: "b"}))
		if n := batches(leisure); n != before+2 {
			t.Errorf("a removal alone, in time: %d batches", n)
		}
		inv.close()
		must(<-sent)
	})
}

func TestAnInventoryWaitsForASlowDaemonAndEndsWithItsContext(t *testing.T) {
	s := &sink{hold: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	inv := newInventory(ctx, func(string) {})
	sent := make(chan error, 1)
	go func() { sent <- inv.send(s.write) }()
	taken := make(chan int, 1)
	go func() {
		for i := 0; ; i++ {
			if err := inv.RemovePod("p"); err != nil {
				taken <- i
				return
			}
		}
	}()
	for len(inv.changes) < pendingChanges {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if n := <-taken; n > pendingChanges+2*batchChanges {
		t.Errorf("it took %d changes that the daemon did not read", n)
	}
	close(s.hold)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := inv.Synced(); !errors.Is(err, context.Canceled) {
		t.Errorf("a call after the end: %v", err)
	}
}

func TestNilAndWhatCantBeMadeToFitAreRefused(t *testing.T) {
	inv := newInventory(t.Context(), func(string) {})
	for name, err := range map[string]error{
		"container": inv.Container(nil), "pod": inv.Pod(nil), "service": inv.Service(nil),
		"lifecycle": inv.Lifecycle(nil), "removal": inv.RemoveContainer(nil),
		"too large": inv.Service(&protov1.Service{PodUids: strings.Split(strings.Repeat("u,", 1<<18), ",")}),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestDegradedIsTakenBackBySynced(t *testing.T) {
	p := newProcess(example(nil), nil, nil)
	inv := newInventory(t.Context(), p.setDegraded)
	health := func() *protov1.HealthResponse {
		r, err := p.Health(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	inv.Degraded("away")
	if r := health(); !r.GetDegraded() || r.GetReason() != "away" {
		t.Errorf("health is %v", r)
	}
	if err := inv.Synced(); err != nil {
		t.Fatal(err)
	}
	if r := health(); r.GetDegraded() || r.GetReason() != "" {
		t.Errorf("health is %v", r)
	}
}

func TestARecordThatIsTooLongIsStoodInForByAShortOne(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out)
	log.Info("short", "k", "v")
	log.Info("long", "k", strings.Repeat("\x00", 100<<10))
	for i, line := range bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
		var rec map[string]any
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
		if len(line) >= wire.MaxLogLine {
			t.Errorf("line %d has %d bytes", i, len(line))
		}
		if i == 1 && (rec["level"] != "WARN" || !strings.Contains(fmt.Sprint(rec["begins"]), `"msg":"long"`)) {
			t.Errorf("the record is %.200s", line)
		}
	}
}

func TestConfigureIsTakenOnceAndAStreamWaitsForIt(t *testing.T) {
	p := newProcess(example(nil), nil, nil)
	run := func(context.Context) error { return nil }
	if err := p.stream(t.Context(), newSlot(), run); err == nil || !strings.Contains(err.Error(), "not configured yet") {
		t.Errorf("a stream before: %v", err)
	}
	refused, err := p.Configure(t.Context(), &protov1.ConfigureRequest{Config: []byte(`{"socket":"bad"}`)})
	if err != nil || len(refused.GetDiagnostics()) != 1 {
		t.Errorf("refused: %v, %v", refused, err)
	}
	if _, err := p.Configure(t.Context(), &protov1.ConfigureRequest{Config: []byte(`{}`)}); err != nil {
		t.Errorf("after a refused one: %v", err)
	}
	if _, err := p.Configure(t.Context(), &protov1.ConfigureRequest{Config: []byte(`{}`)}); err == nil || !strings.Contains(err.Error(), "configured already") {
		t.Errorf("a second time: %v", err)
	}
	if err := p.stream(t.Context(), newSlot(), run); err != nil {
		t.Errorf("a stream after: %v", err)
	}
}
