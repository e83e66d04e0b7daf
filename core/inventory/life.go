package inventory

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

const (
	// lifeSlack is how far apart two sources, or an event and a description, may put
	// the time of one thing.
	lifeSlack = time.Second
	// mostPulls are the pulled images that are remembered, to tell a second word of
	// one pull from a second pull.
	mostPulls = 32
	// mostImage bounds the name of a pulled image, in bytes.
	mostImage = 4096
)

// Happening is something that happened to a container.
type Happening struct {
	Kind     event.Kind
	Life     *event.Life
	Workload *Workload // as it was described then; nil: of no container
	latest   *atomic.Pointer[Workload]
}

// Latest is the container as it is described by now. It takes no lock.
func (h *Happening) Latest() *Workload {
	if h.latest == nil {
		return h.Workload
	}
	return h.latest.Load()
}

// lifeKinds are the words of a Lifecycle.
var lifeKinds = map[string]event.Kind{
	"created": event.ContainerCreated, "started": event.ContainerStarted,
	"paused": event.ContainerPaused, "unpaused": event.ContainerUnpaused,
	"oom": event.ContainerOOM, "died": event.ContainerDied, "removed": event.ContainerRemoved,
	"pulled": event.ImagePulled,
}

// stage is how far the life of a container is.
type stage uint8

const (
	unheard stage = iota // nothing was told of it, and no snapshot had it
	born
	runs
	pauses
	dead
	buried
)

// next gives the stage that a kind leads to; false: that can't happen in this one, and
// is a repeat.
func (s stage) next(k event.Kind) (stage, bool) {
	switch k {
	case event.ContainerCreated:
		return born, s == unheard
	case event.ContainerStarted:
		return runs, s == unheard || s == born || s == dead
	case event.ContainerPaused:
		return pauses, s == unheard || s == runs
	case event.ContainerUnpaused:
		return runs, s == unheard || s == pauses
	case event.ContainerOOM: // of any process, as often as it happens, and told late at times
		return s, s != buried
	case event.ContainerDied: // also of a container whose start failed
		return dead, s < dead
	case event.ContainerRemoved:
		return buried, s != buried
	}
	return s, false
}

func (s stage) alive() bool { return s == runs || s == pauses }

// life is what was told of a container's life: enough to tell what is new.
type life struct {
	stage  stage
	oom    bool   // told since the last start
	source string // whose word was taken last
	last   int64  // the latest time that was taken, in Unix nanoseconds
	told   kinds  // taken from source
	echo   kinds  // taken from the source before it: this one may tell them again
}

// kinds is a set of kinds of injected events.
type kinds uint16

func one(k event.Kind) kinds { return 1 << (k - event.KernelKinds) }

// speaks tells whether a source is a runtime, whose word on the life of its containers
// counts.
func (i *Inventory) speaks(name string) bool {
	if s := i.sources[name]; s != nil && s.tells {
		return true
	}
	return rank(name) <= 1
}

// outranked tells whether another source knows a container's life better and is
// there. The end of a container is not told in the absence of one that knows better:
// below Docker, containerd has a container only while it runs.
func (i *Inventory) outranked(name string, c *container, k event.Kind) bool {
	for o, f := range c.facets {
		if f.gone.IsZero() && compareSources(o.source, name) < 0 && i.speaks(o.source) &&
			(k == event.ContainerRemoved || !i.source(o.source).away) {
			return true
		}
	}
	return false
}

// lived takes a discoverer's word of something that happened.
func (i *Inventory) lived(name string, l *protov1.Lifecycle) {
	kind, ok := lifeKinds[l.GetAction()]
	if !ok {
		i.stats.LifeStrange++
		return
	}
	told := &event.Life{TimeUnixNano: l.GetTimeUnixNano(), Source: name}
	if told.TimeUnixNano == 0 {
		told.TimeUnixNano = i.options.Now().UnixNano()
	}
	if kind == event.ImagePulled {
		told.Image = l.GetAttributes()["image"]
		told.Image = told.Image[:min(len(told.Image), mostImage)]
		if i.pulls.again(told) {
			i.stats.LifeRepeated++
			return
		}
		i.happened(Happening{Kind: kind, Life: told})
		return
	}
	c := i.container(keyOf(l.GetContainer()))
	if c == nil {
		i.stats.LifeStrange++
		return
	}
	i.source(name).tells = true
	if i.outranked(name, c, kind) || !c.life.news(name, kind, told.TimeUnixNano) {
		i.stats.LifeRepeated++
		return
	}
	if kind == event.ContainerDied {
		if n, err := strconv.ParseInt(l.GetAttributes()["exit_code"], 10, 32); err == nil {
			told.Exited, told.ExitCode = true, int32(n)
		}
		if n, err := strconv.ParseUint(l.GetAttributes()["signal"], 10, 8); err == nil {
			told.Signal = uint32(n)
		}
	}
	if kind == event.ContainerRemoved && c.life.stage.alive() {
		i.infer(name, c, event.ContainerDied, told.TimeUnixNano)
	}
	i.live(c, kind, told)
}

// news tells whether a source's word is news, and takes the source for the one that
// tells from now on.
func (l *life) news(source string, k event.Kind, at int64) bool {
	if l.source != source {
		l.echo, l.told, l.source = l.told, 0, source
	}
	if l.echo&one(k) != 0 {
		l.echo &^= one(k)
		if at < l.last+int64(lifeSlack) {
			return false
		}
	}
	_, ok := l.stage.next(k)
	return ok
}

// live passes on something that happened, and remembers it.
func (i *Inventory) live(c *container, k event.Kind, told *event.Life) {
	l := &c.life
	l.stage, _ = l.stage.next(k)
	l.last = max(l.last, told.TimeUnixNano)
	l.told |= one(k)
	switch k {
	case event.ContainerStarted:
		l.oom = false
	case event.ContainerOOM:
		l.oom = true
	}
	i.happened(Happening{Kind: k, Life: told, Workload: c.workload.Load(), latest: &c.workload})
}

func (i *Inventory) happened(h Happening) { i.options.Happened(h) }

// infer passes on what nobody told when it happened; at 0: now, at the latest.
func (i *Inventory) infer(source string, c *container, k event.Kind, at int64) {
	if c.life.source != source {
		c.life.echo, c.life.told, c.life.source = 0, 0, source
	}
	if at == 0 {
		at = i.options.Now().UnixNano()
	}
	i.live(c, k, &event.Life{TimeUnixNano: at, Source: source, Inferred: true})
}

// inferEnd passes on that a container died, with what its description tells of it.
func (i *Inventory) inferEnd(source string, c *container, d *protov1.Container) {
	at := d.GetFinishedUnixNano()
	if at == 0 {
		at = i.options.Now().UnixNano()
	}
	if d.GetOomKilled() && !c.life.oom {
		i.infer(source, c, event.ContainerOOM, at)
		c.life.echo |= one(event.ContainerOOM) // the word of it may come yet
	}
	i.live(c, event.ContainerDied, &event.Life{
		TimeUnixNano: at, Source: source, Inferred: true,
		Exited: d != nil && d.ExitCode != nil, ExitCode: d.GetExitCode(),
	})
}

// inferRemoval passes on that a container is gone, when the source that knows it best
// says no more than that. One that does not know its name is another's, as those of
// Docker are in containerd, where they are only while they run.
func (i *Inventory) inferRemoval(source string, c *container, d *protov1.Container) {
	l := &c.life
	if d.GetName() == "" || i.source(source).expired || l.stage == unheard || l.stage == buried || !i.speaks(source) || i.outranked(source, c, event.ContainerRemoved) {
		return
	}
	if l.stage.alive() {
		i.infer(source, c, event.ContainerDied, 0)
	}
	i.infer(source, c, event.ContainerRemoved, 0)
}

// inferLives passes on what happened to a source's containers while it was not heard,
// by its new descriptions of them. What was there before the first snapshot is no news.
func (i *Inventory) inferLives(name string, s *source) {
	if !i.speaks(name) {
		return
	}
	for _, c := range i.containers {
		for o, f := range c.facets {
			if o.source == name && f.generation == s.generation && f.gone.IsZero() && !i.outranked(name, c, event.ContainerDied) {
				i.inferLife(name, s, c, f.told)
				break
			}
		}
		i.pause()
	}
}

func (i *Inventory) inferLife(name string, s *source, c *container, d *protov1.Container) {
	l := &c.life
	if l.stage == buried || d.GetName() == "" {
		return
	}
	now := stageOf(d.GetState())
	if l.stage == unheard {
		born := d.GetCreatedUnixNano()
		if !s.heard || born == 0 || born < s.deaf.Add(-lifeSlack).UnixNano() {
			l.stage, l.source = now, name
			l.last = max(born, d.GetStartedUnixNano(), d.GetFinishedUnixNano())
			return
		}
		i.infer(name, c, event.ContainerCreated, born)
	}
	started := d.GetStartedUnixNano()
	anew := started > l.last+int64(lifeSlack) // than the run that was told
	if now != runs && now != pauses && now != dead {
		return
	}
	if l.stage.alive() && anew {
		i.infer(name, c, event.ContainerDied, started)
	}
	if l.stage == born && (now != dead || started != 0) || l.stage == dead && (now != dead || anew) {
		i.infer(name, c, event.ContainerStarted, started)
	}
	switch {
	case now == dead && l.stage != dead:
		i.inferEnd(name, c, d)
	case now == pauses && l.stage == runs:
		i.infer(name, c, event.ContainerPaused, 0)
	case now == runs && l.stage == pauses:
		i.infer(name, c, event.ContainerUnpaused, 0)
	}
}

func stageOf(s protov1.Container_State) stage {
	switch s {
	case protov1.Container_STATE_CREATED:
		return born
	case protov1.Container_STATE_RUNNING:
		return runs
	case protov1.Container_STATE_PAUSED:
		return pauses
	case protov1.Container_STATE_EXITED, protov1.Container_STATE_DEAD, protov1.Container_STATE_RESTARTING:
		return dead
	}
	return unheard // not told
}

// pulls are the images that were pulled last.
type pulls struct {
	last [mostPulls]*event.Life
	at   int
}

// again tells whether another source has told of the same pull.
func (p *pulls) again(l *event.Life) bool {
	for _, o := range p.last {
		if o != nil && o.Image == l.Image && o.Source != l.Source &&
			time.Duration(l.TimeUnixNano-o.TimeUnixNano).Abs() < lifeSlack {
			return true
		}
	}
	p.last[p.at] = l
	p.at = (p.at + 1) % mostPulls
	return false
}
