package monitor

import (
	"math"
	"runtime"
	"testing"
	"time"
	"unsafe"
)

// cpuOnly are figures of which but the CPU none is told.
func cpuOnly(v float64) figures {
	var f figures
	for i := range f {
		f[i] = float32(math.NaN())
	}
	f[CPU] = float32(v)
	return f
}

func TestASummaryIsOfItsWindowOnly(t *testing.T) {
	h := newHistory()
	if s := h.summary(time.Minute); s.Readings != 0 || s.Span != 0 || s.Stats[CPU].Readings != 0 {
		t.Errorf("of nothing: %+v", s)
	}
	// Of each second i from 0 to 400 a reading of i / 1024, which a float32 holds.
	for i := range 401 {
		level := Low
		if i == 395 {
			level = High
		}
		h.add(start.Add(time.Duration(i)*time.Second), level, cpuOnly(float64(i)/1024))
	}
	for _, c := range []struct {
		window         time.Duration
		n              int
		min, mean, max float64
		level          Level
	}{
		{time.Second, 1, 400, 400, 400, Low},
		{10 * time.Second, 10, 391, 395.5, 400, High},
		{time.Minute, 60, 341, 370.5, 400, High},
		{5 * time.Minute, 300, 101, 250.5, 400, High},
		{time.Hour, 401, 0, 200, 400, High},
	} {
		s := h.summary(c.window)
		got := s.Stats[CPU]
		if s.Readings != c.n || got.Readings != c.n || s.Span != time.Duration(c.n-1)*time.Second || s.Level != c.level {
			t.Errorf("%v: %d readings, %d of the CPU, over %v, %v", c.window, s.Readings, got.Readings, s.Span, s.Level)
		}
		if got.Min*1024 != c.min || got.Max*1024 != c.max || !near(got.Mean*1024, c.mean) {
			t.Errorf("%v: %v to %v, mean %v; want %v to %v, mean %v", c.window, got.Min*1024, got.Max*1024, got.Mean*1024, c.min, c.max, c.mean)
		}
		if s.Stats[Network].Readings != 0 {
			t.Errorf("%v: the network was told %d times", c.window, s.Stats[Network].Readings)
		}
	}
	last := h.within(10 * time.Second)
	if len(last) != 10 || !last[0].Time.Equal(start.Add(391*time.Second)) || last[4].Level != High {
		t.Fatalf("readings are %v", last)
	}
	if v, ok := last[9].Get(Figure(CPU)); !ok || v*1024 != 400 {
		t.Errorf("the last is %v, %v", v, ok)
	}
	if _, ok := last[9].Get(NetworkBytes); ok {
		t.Error("what was not told is told")
	}
	if _, ok := last[9].Get(Figures); ok {
		t.Error("a figure that there is not is told")
	}
}

func TestAHistoryGoesTenMinutesBackAndNoFurther(t *testing.T) {
	h := newHistory()
	for i := range 10_000 { // each 250 ms
		h.add(start.Add(time.Duration(i)*250*time.Millisecond), Low, cpuOnly(float64(i)/16384))
	}
	s := h.summary(time.Hour)
	if s.Readings != 2400 || s.Span != 10*time.Minute-250*time.Millisecond || s.Stats[CPU].Min*16384 != 7600 || s.Stats[CPU].Max*16384 != 9999 {
		t.Errorf("%d readings over %v, %+v", s.Readings, s.Span, s.Stats[CPU])
	}
	// Slower reports don't make it longer.
	for i := range 100 {
		h.add(start.Add(time.Hour+time.Duration(i)*10*time.Second), Low, cpuOnly(0))
	}
	if s := h.summary(time.Hour); s.Readings != 60 || s.Span != 590*time.Second {
		t.Errorf("%d readings over %v", s.Readings, s.Span)
	}
}

func TestAHistoryTakesLessThanAMegabyteAndNeverGrows(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	h := newHistory()
	now := start
	for range 3 * capacity {
		now = now.Add(250 * time.Millisecond)
		h.add(now, High, figures{})
	}
	used := int64(heap() - before)
	runtime.KeepAlive(h)
	t.Logf("%d readings of %d bytes: %d bytes of heap", capacity, unsafe.Sizeof(record{}), used)
	if want := int64(capacity) * int64(unsafe.Sizeof(record{})); used < want/2 || used >= 1<<20 {
		t.Errorf("it takes %d bytes, want about %d and less than 1 MiB", used, want)
	}
	if n := testing.AllocsPerRun(100, func() { h.add(now, Low, figures{}) }); n != 0 {
		t.Errorf("adding allocates %v times", n)
	}
}
