package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// watched is an inventory whose happenings are written down, with a clock that stands.
type watched struct {
	*Inventory
	now   time.Time
	lines []string
	full  []Happening
}

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{now: time.Unix(1000, 0)}
	w.Inventory = New(Options{Now: func() time.Time { return w.now }, Happened: func(h Happening) {
		line := strings.TrimPrefix(h.Kind.String(), "container.")
		if h.Life.Exited {
			line += fmt.Sprint(" ", h.Life.ExitCode)
		}
		if h.Life.Image != "" {
			line += " " + h.Life.Image
		}
		if h.Life.Inferred {
			line += " inferred"
		}
		w.lines, w.full = append(w.lines, line), append(w.full, h)
	}})
	return w
}

// told checks what happened since it was last asked.
func (w *watched) told(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(w.lines, want) {
		t.Errorf("told %q, want %q", w.lines, want)
	}
	w.lines = nil
}

func word(id, action string, at int, attributes ...string) *protov1.InventoryChange {
	l := &protov1.Lifecycle{Action: action, TimeUnixNano: second(at), Attributes: map[string]string{}}
	if id != "" {
		l.Container = &protov1.ContainerRef{Id: id}
	}
	for n := 0; n < len(attributes); n += 2 {
		l.Attributes[attributes[n]] = attributes[n+1]
	}
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Lifecycle{Lifecycle: l}}
}

func second(at int) int64 { return time.Unix(int64(at), 0).UnixNano() }

// state describes a container: created at, started at and finished at, 0 when it was
// not.
func state(id string, s protov1.Container_State, times ...int) *protov1.InventoryChange {
	c := &protov1.Container{Id: id, Name: "web", State: s}
	for n, to := range []*int64{&c.CreatedUnixNano, &c.StartedUnixNano, &c.FinishedUnixNano} {
		if n < len(times) && times[n] != 0 {
			*to = second(times[n])
		}
	}
	if s == protov1.Container_STATE_EXITED {
		c.ExitCode = proto.Int32(3)
	}
	return &protov1.InventoryChange{Change: &protov1.InventoryChange_Container{Container: c}}
}

const (
	isCreated = protov1.Container_STATE_CREATED
	isRunning = protov1.Container_STATE_RUNNING
	isPaused  = protov1.Container_STATE_PAUSED
	isExited  = protov1.Container_STATE_EXITED
)

func TestTheLifeOfAContainerIsToldInOrderWithItsDescription(t *testing.T) {
	w, a := watch(t), id("a")
	apply(t, w.Inventory, "docker", reset(), synced(), described(a, "web"), word(a, "created", 1001), word(a, "started", 1002),
		word(a, "paused", 1003), described(a, "renamed"), word(a, "unpaused", 1004), word(a, "oom", 1005), word(a, "oom", 1005),
		word(a, "died", 1006, "exit_code", "137", "signal", "9"), word(a, "started", 1007), word(a, "died", 1008, "exit_code", "0"),
		word(a, "removed", 1009), removed(a))
	w.told(t, "created", "started", "paused", "unpaused", "oom", "oom", "died 137", "started", "died 0", "removed")
	for n, h := range w.full {
		want := "web"
		if n > 2 {
			want = "renamed"
		}
		if h.Workload.Container.GetName() != want || h.Life.Source != "docker" {
			t.Errorf("%d: %v of %q by %s", n, h.Kind, h.Workload.Container.GetName(), h.Life.Source)
		}
	}
	if l := w.full[6].Life; l.Signal != 9 || l.TimeUnixNano != second(1006) {
		t.Errorf("%+v", l)
	}
}

func TestRepeatsAndWhatCanNotBeAreLeftOut(t *testing.T) {
	w, a := watch(t), id("a")
	apply(t, w.Inventory, "docker", described(a, "web"),
		word(a, "created", 1), word(a, "created", 1), word(a, "started", 2), word(a, "started", 2), word(a, "created", 3),
		word(a, "unpaused", 3), word(a, "paused", 3), word(a, "paused", 3), word(a, "started", 3),
		word(a, "died", 4), word(a, "died", 4), word(a, "paused", 5),
		word(a, "removed", 6), word(a, "removed", 6), word(a, "died", 6), word(a, "oom", 6), word(a, "started", 6),
		word(id("b"), "started", 7), word(a, "exploded", 7))
	w.told(t, "created", "started", "paused", "died", "removed")
	if s := w.Stats(); s.LifeRepeated != 12 || s.LifeStrange != 2 {
		t.Errorf("%d repeated, %d strange", s.LifeRepeated, s.LifeStrange)
	}
}

func TestARemovalOfWhatRunsTellsItsDeathBefore(t *testing.T) {
	w, a := watch(t), id("a")
	apply(t, w.Inventory, "containerd", described(a, "web"), word(a, "created", 1), word(a, "started", 2), word(a, "removed", 3), word(a, "died", 3))
	w.told(t, "created", "started", "died inferred", "removed")
}

func TestOfTwoSourcesEachThingIsToldOnce(t *testing.T) {
	a := id("a")
	both := func(source string, n int) []*protov1.InventoryChange {
		return []*protov1.InventoryChange{
			state(a, isCreated), word(a, "created", 1), word(a, "started", 2), word(a, "paused", 3),
			word(a, "unpaused", 4), word(a, "oom", 5), word(a, "died", 5, "exit_code", "1"), word(a, "removed", 6), removed(a),
		}[n : n+1]
	}
	want := []string{"created", "started", "paused", "unpaused", "oom", "died 1", "removed"}
	const steps = 9
	// however they are interleaved
	for first := range 1 << steps {
		w := watch(t)
		at := map[string]int{}
		step := func(source string) {
			if at[source] < steps {
				apply(t, w.Inventory, source, both(source, at[source])...)
				at[source]++
			}
		}
		for n := range steps {
			if first>>n&1 == 0 {
				step("docker")
			} else {
				step("containerd")
			}
		}
		for range steps {
			step("docker")
			step("containerd")
		}
		if !slices.Equal(w.lines, want) {
			t.Fatalf("interleaved as %0*b: told %q, want %q", steps, first, w.lines, want)
		}
	}
}

func TestAnotherSourceTellsWhileTheBestIsAway(t *testing.T) {
	w, a := watch(t), id("a")
	for _, source := range []string{"docker", "containerd"} {
		apply(t, w.Inventory, source, reset(), synced(), state(a, isCreated, 1001), word(a, "created", 1001), word(a, "started", 1002))
	}
	w.told(t, "created", "started")
	w.now = time.Unix(1100, 0)
	w.Away("docker")
	apply(t, w.Inventory, "containerd", word(a, "died", 1101, "exit_code", "2"), word(a, "started", 1102))
	w.told(t, "died 2", "started")
	apply(t, w.Inventory, "docker", reset(), state(a, isRunning, 1001, 1102), synced(), word(a, "died", 1103, "exit_code", "4"))
	apply(t, w.Inventory, "containerd", word(a, "died", 1103, "exit_code", "4"))
	w.told(t, "died 4")
}

func TestWhatIsThereAtTheStartIsNoNews(t *testing.T) {
	w, a, b := watch(t), id("a"), id("b")
	apply(t, w.Inventory, "docker", reset(), state(a, isRunning, 900, 901), state(b, isExited, 900, 901, 902), synced())
	w.told(t)
	apply(t, w.Inventory, "docker", word(a, "paused", 1001), word(b, "started", 1001), word(a, "started", 1001))
	w.told(t, "paused", "started")
}

func TestWhatHappenedWhileADiscovererWasAwayIsInferred(t *testing.T) {
	restarted := protov1.Container_STATE_RUNNING
	for name, tt := range map[string]struct {
		before, after *protov1.InventoryChange // nil: it is not there
		want          []string
	}{
		"nothing":                      {state(id("a"), isRunning, 900, 901), state(id("a"), isRunning, 900, 901), nil},
		"it died":                      {state(id("a"), isRunning, 900, 901), state(id("a"), isExited, 900, 901, 1105), []string{"died 3 inferred"}},
		"it was removed":               {state(id("a"), isRunning, 900, 901), nil, []string{"died inferred", "removed inferred"}},
		"it had died and was removed":  {state(id("a"), isExited, 900, 901, 902), nil, []string{"removed inferred"}},
		"it was started":               {state(id("a"), isCreated, 900), state(id("a"), isRunning, 900, 1105), []string{"started inferred"}},
		"it ran and died":              {state(id("a"), isCreated, 900), state(id("a"), isExited, 900, 1105, 1106), []string{"started inferred", "died 3 inferred"}},
		"its start failed":             {state(id("a"), isCreated, 900), state(id("a"), isExited, 900), []string{"died 3 inferred"}},
		"it was started again":         {state(id("a"), isRunning, 900, 901), state(id("a"), restarted, 900, 1105), []string{"died inferred", "started inferred"}},
		"it ran again":                 {state(id("a"), isExited, 900, 901, 902), state(id("a"), isExited, 900, 1105, 1106), []string{"started inferred", "died 3 inferred"}},
		"it was paused":                {state(id("a"), isRunning, 900, 901), state(id("a"), isPaused, 900, 901), []string{"paused inferred"}},
		"it goes on":                   {state(id("a"), isPaused, 900, 901), state(id("a"), isRunning, 900, 901), []string{"unpaused inferred"}},
		"it was created":               {nil, state(id("a"), isCreated, 1105), []string{"created inferred"}},
		"it came":                      {nil, state(id("a"), isRunning, 1105, 1106), []string{"created inferred", "started inferred"}},
		"it came and died":             {nil, state(id("a"), isExited, 1105, 1106, 1107), []string{"created inferred", "started inferred", "died 3 inferred"}},
		"it is old, and was not known": {nil, state(id("a"), isRunning, 900, 901), nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t)
			snapshot := func(c *protov1.InventoryChange) {
				changes := []*protov1.InventoryChange{reset()}
				if c != nil {
					changes = append(changes, c)
				}
				apply(t, w.Inventory, "docker", append(changes, synced())...)
			}
			snapshot(tt.before)
			w.told(t)
			w.now = time.Unix(1100, 0)
			w.Away("docker")
			w.now = time.Unix(1110, 0)
			snapshot(tt.after)
			w.told(t, tt.want...)
			snapshot(tt.after)
			w.told(t)
		})
	}
}

func TestWhatIsToldWithinASnapshotIsNotInferredToo(t *testing.T) {
	w, a := watch(t), id("a")
	apply(t, w.Inventory, "docker", reset(), synced())
	w.Away("docker")
	apply(t, w.Inventory, "docker", reset(), state(a, isCreated, 1001), word(a, "created", 1001), state(a, isRunning, 1001, 1002), word(a, "started", 1002), synced())
	w.told(t, "created", "started")
}

func TestWhatIsForgottenIsNotToldAsRemoved(t *testing.T) {
	a := id("a")
	for name, forget := range map[string]func(*watched){
		"it was away for too long": func(w *watched) {
			w.Away("docker")
			w.now = w.now.Add(time.Hour)
			w.lock()
			w.tidy()
			w.mu.Unlock()
		},
		"it is not wanted any more":      func(w *watched) { w.Forget("docker") },
		"who merely knew of it has left": func(w *watched) { apply(t, w.Inventory, "oci", removed(a)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t)
			source := "docker"
			if strings.HasPrefix(name, "who") {
				source = "oci"
			}
			apply(t, w.Inventory, source, reset(), state(a, isRunning, 900, 901), synced())
			forget(w)
			w.told(t)
			if s := w.Stats(); s.Containers != 0 {
				t.Errorf("%d containers are left", s.Containers)
			}
		})
	}
}

func TestAPullIsToldOnceOfAllSourcesAndAsOftenAsItHappens(t *testing.T) {
	w := watch(t)
	apply(t, w.Inventory, "docker", word("", "pulled", 1, "image", "busybox:1"), word("", "pulled", 50, "image", "busybox:1"))
	apply(t, w.Inventory, "containerd", word("", "pulled", 50, "image", "busybox:1"), word("", "pulled", 50, "image", strings.Repeat("x", 2*mostImage)))
	w.told(t, "image.pulled busybox:1", "image.pulled busybox:1", "image.pulled "+strings.Repeat("x", mostImage))
	if w.full[0].Workload != nil {
		t.Error("a pull is told to be of a container")
	}
}

func TestALifeTakesNoRoomBesideItsContainer(t *testing.T) {
	w := watch(t)
	const n = 3 * mostPulls
	for k := range n {
		a := fmt.Sprintf("%064x", k)
		apply(t, w.Inventory, "docker", word("", "pulled", k, "image", a), word(a, "started", k), described(a, "web"), word(a, "created", k), word(a, "removed", k), removed(a))
	}
	w.now = w.now.Add(time.Hour)
	w.lock()
	w.tidy()
	w.mu.Unlock()
	if len(w.containers) != 0 {
		t.Errorf("%d containers are remembered", len(w.containers))
	}
	if s := w.Stats(); s.LifeStrange != n {
		t.Errorf("%d words of what is not known were counted, want %d", s.LifeStrange, n)
	}
	if len(w.full) != 3*n {
		t.Errorf("%d were told, want %d", len(w.full), 3*n)
	}
}

func TestTheWordOfAnOOMThatWasInferredIsARepeat(t *testing.T) {
	w, a := watch(t), id("a")
	killed := state(a, isExited, 900, 901, 1105)
	killed.GetContainer().OomKilled = proto.Bool(true)
	apply(t, w.Inventory, "docker", reset(), state(a, isRunning, 900, 901), synced())
	w.Away("docker")
	apply(t, w.Inventory, "docker", reset(), killed, synced(), word(a, "oom", 1105), word(a, "died", 1105))
	w.told(t, "oom inferred", "died 3 inferred")
	apply(t, w.Inventory, "docker", word(a, "started", 1200), word(a, "oom", 1201))
	w.told(t, "started", "oom")
}

// containerd has Docker's containers while they run, without their names.
func TestWhoDoesNotKnowAContainersNameSaysNothingOfItsEnd(t *testing.T) {
	w, a := watch(t), id("a")
	nameless := state(a, isRunning, 900, 901)
	nameless.GetContainer().Name = ""
	apply(t, w.Inventory, "containerd", reset(), nameless, synced(), removed(a))
	w.told(t)
	apply(t, w.Inventory, "containerd", nameless)
	w.Away("containerd")
	apply(t, w.Inventory, "containerd", reset(), synced())
	w.told(t)
}
