package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

// world is what a search acts on in a test: runtimes that are here or not, discoverers
// that answer in their own time, and a token that a reload may hold.
type world struct {
	token chan struct{}

	mu      sync.Mutex
	here    map[string]answer
	takes   map[string]time.Duration // to answer
	changed map[string]func(bool)    // who is told, by name
	watches map[string]int           // begun, of each name
	running map[string]bool
	ailing  map[string]bool
	cured   []string
	asked   map[string]int
	asking  int
	most    int // asked at a time
	log     []string
}

var _ hands = (*world)(nil)

func newWorld() *world {
	return &world{
		token: make(chan struct{}, 1), here: map[string]answer{}, takes: map[string]time.Duration{}, changed: map[string]func(bool){}, watches: map[string]int{},
		running: map[string]bool{}, ailing: map[string]bool{}, asked: map[string]int{},
	}
}

func (w *world) ask(ctx context.Context, c *candidate) (answer, *self) {
	w.mu.Lock()
	w.asked[c.name]++
	w.asking++
	w.most = max(w.most, w.asking)
	takes := w.takes[c.name]
	w.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asking--
	a := w.here[c.name]
	a.ready = a.err == nil
	return a, &self{}
}

func (w *world) watch(c *candidate, changed func(bool)) (func() bool, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed[c.name] = changed
	w.watches[c.name]++
	mine := w.watches[c.name]
	return func() bool { return false }, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.watches[c.name] == mine { // else it is the next one's
			delete(w.changed, c.name)
		}
	}
}

func (w *world) alone(ctx context.Context, f func()) bool {
	select {
	case w.token <- struct{}{}:
		defer func() { <-w.token }()
		f()
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *world) start(_ context.Context, c *candidate) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running[c.name] {
		return errors.New("it runs already")
	}
	w.running[c.name] = true
	w.log = append(w.log, "+"+c.name)
	return nil
}

func (w *world) stop(c *candidate) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.running[c.name] {
		return errors.New("it does not run")
	}
	w.running[c.name] = false
	w.log = append(w.log, "-"+c.name)
	return nil
}

func (w *world) ill(c *candidate) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ailing[c.name]
}

func (w *world) cure(c *candidate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cured = append(w.cured, c.name)
}

// comes and goes change whether a runtime is here, and say so.
func (w *world) comes(name string) { w.becomes(name, answer{present: true, detail: "at its socket"}) }
func (w *world) goes(name string)  { w.becomes(name, answer{detail: "no socket"}) }

func (w *world) becomes(name string, a answer) {
	w.mu.Lock()
	w.here[name] = a
	changed := w.changed[name]
	w.mu.Unlock()
	if changed != nil {
		changed(true)
	}
}

func (w *world) check(t *testing.T, when, want string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.log, " "); got != want {
		t.Errorf("%s: it did %q, want %q", when, got, want)
	}
	w.log = nil
}

func candidatesOf(names ...string) (all []*candidate) {
	for _, n := range names {
		all = append(all, &candidate{sought: sought{name: n}})
	}
	return all
}

// searching runs a search for as long as f does, on a clock of its own.
func searching(t *testing.T, f func(w *world, a *auto)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := newAuto(w, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.run(ctx)
		}()
		f(w, a)
		cancel()
		<-done
		if len(w.changed) > 0 {
			t.Errorf("watched after the end: %v", w.changed)
		}
	})
}

func settings() *config.Auto { return &config.Auto{Grace: 30 * time.Second} }

func TestASearchFollowsRuntimesAsTheyComeAndGo(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		a.set(settings(), 0, candidatesOf("a", "b"))
		w.check(t, "nothing is here", "")
		w.comes("b")
		w.check(t, "b has come, which has just been asked", "")
		time.Sleep(askPause)
		w.check(t, "b has come", "+b")
		time.Sleep(time.Hour)
		w.goes("b")
		time.Sleep(29 * time.Second)
		w.check(t, "b has gone", "")
		time.Sleep(2 * time.Second)
		w.check(t, "its grace has passed", "-b")
		if all := a.lookedFor(); len(all) != 2 || all[1].state != "absent" || all[1].reason != "no socket" || all[1].running {
			t.Errorf("looked for are %+v", all)
		}
		w.comes("b")
		time.Sleep(time.Second)
		w.check(t, "b is back", "+b")
		if all := a.lookedFor(); !all[1].running || all[1].found != "at its socket" {
			t.Errorf("looked for are %+v", all)
		}
	})
}

func TestASearchDoesNothingWhileSomebodyReloads(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		w.token <- struct{}{}
		a.set(settings(), 0, candidatesOf("a", "b"))
		w.comes("a")
		time.Sleep(time.Minute)
		w.check(t, "while somebody reloads", "")
		// The reload takes a away, and finds b running.
		b := candidatesOf("b")
		b[0].running, b[0].ready = true, true
		w.running["b"] = true
		a.set(settings(), 1, b)
		<-w.token
		time.Sleep(time.Minute)
		w.check(t, "a is not looked for any more, and b is not here", "-b")
		synctest.Wait()
		if w.changed["a"] != nil || w.changed["b"] == nil {
			t.Error("what is watched is not what is looked for")
		}
	})
}

func TestAnAnswerThatComesAfterAReloadSaysNothing(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		w.here["a"], w.takes["a"] = answer{present: true}, 10*time.Second
		a.set(settings(), 0, candidatesOf("a"))
		time.Sleep(time.Second)
		a.set(settings(), 0, candidatesOf("b"))
		time.Sleep(time.Minute)
		w.check(t, "the old one was here", "")
		a.set(nil, 0, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.asked["a"] != 1 || w.asked["b"] != 1 || len(a.lookedFor()) != 0 {
			t.Errorf("asked were %v, looked for are %v", w.asked, a.lookedFor())
		}
	})
}

func TestOfTwentyDiscoverersThatHangFourAreAskedAtATimeAndOthersGetTheirTurn(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		all := candidatesOf("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11", "a12", "a13", "a14", "a15", "a16", "a17", "a18", "a19", "z")
		for _, c := range all[:19] {
			w.takes[c.name], w.here[c.name] = 3*time.Second, answer{err: errors.New("it did not answer in time")}
		}
		w.here["z"] = answer{present: true}
		a.set(settings(), 0, all)
		time.Sleep(15*time.Second + time.Millisecond)
		w.check(t, "all have been asked once", "+z")
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.most != askedAtOnce {
			t.Errorf("%d were asked at a time", w.most)
		}
		for _, c := range all[:19] {
			if n := w.asked[c.name]; n < 50 || n > 80 {
				t.Errorf("%s was asked %d times in an hour", c.name, n)
			}
		}
	})
}

func TestADiscovererThatIsIllIsAskedWhetherItsRuntimeIsStillHere(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		w.here["a"] = answer{present: true}
		a.set(settings(), 0, candidatesOf("a"))
		time.Sleep(time.Hour)
		w.check(t, "it is here", "+a")
		if w.asked["a"] != 1 {
			t.Errorf("while it is well it was asked %d times", w.asked["a"])
		}
		w.mu.Lock()
		w.ailing["a"], w.here["a"] = true, answer{detail: "refused"} // and nothing is told of its socket
		w.mu.Unlock()
		time.Sleep(2*30*time.Second + time.Second)
		w.check(t, "its runtime is gone without a word", "-a")
	})
}

func TestADiscovererThatHasFailedIsTriedAgainWhenItsSocketChanges(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		w.here["a"] = answer{present: true}
		a.set(settings(), 0, candidatesOf("a"))
		time.Sleep(time.Second)
		w.comes("a")
		w.changed["a"](false) // which alone is no reason
		time.Sleep(time.Second)
		w.changed["a"](false)
		time.Sleep(time.Second)
		synctest.Wait()
		if !slices.Equal(w.cured, []string{"a"}) {
			t.Errorf("tried again were %v", w.cured)
		}
	})
}

func TestASearchEndsWhileAReloadIsUnderWayAndADiscovererHangs(t *testing.T) {
	searching(t, func(w *world, a *auto) {
		w.here["a"] = answer{present: true}
		w.takes["b"] = time.Hour
		w.token <- struct{}{}
		a.set(settings(), 0, candidatesOf("a", "b"))
		time.Sleep(time.Second)
	})
}

func TestWhatIsSetAfterTheEndIsGivenUp(t *testing.T) {
	w := newWorld()
	a := newAuto(w, slog.New(slog.DiscardHandler))
	a.end()
	a.set(settings(), 0, candidatesOf("a"))
	if len(w.changed) > 0 || len(a.lookedFor()) > 0 {
		t.Errorf("watched are %v, looked for are %v", w.changed, a.lookedFor())
	}
}
