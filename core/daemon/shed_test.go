package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/load/monitor"
)

func TestProbesGoInTheirOrderWhileTheLoadIsCriticalAndComeBackInTheOther(t *testing.T) {
	s := shedding{order: []string{"file", "network"}}
	now := time.Now()
	var did []string
	spend := func(level monitor.Level, seconds int) string {
		did = nil
		for range seconds {
			now = now.Add(time.Second)
			if detach, attach := s.next(now, level); detach+attach != "" {
				did = append(did, map[bool]string{true: "-" + detach, false: "+" + attach}[detach != ""])
			}
		}
		return strings.Join(did, " ")
	}
	for i, step := range []struct {
		level   monitor.Level
		seconds int
		want    string
	}{
		{monitor.Low, 60, ""},
		{monitor.Critical, 4, ""},
		{monitor.High, 1, ""},
		{monitor.Critical, 5, ""}, // it begins anew
		{monitor.Critical, 1, "-file"},
		{monitor.Critical, 5, "-network"},
		{monitor.Critical, 60, ""}, // nothing is left
		{monitor.High, 60, ""},     // neither critical nor calm
		{monitor.Medium, 30, ""},
		{monitor.Low, 1, "+network"},
		{monitor.Critical, 6, "-network"},
		{monitor.Low, 31, "+network"},
		{monitor.Low, 60, "+file"},
		{monitor.Low, 60, ""},
	} {
		if got := spend(step.level, step.seconds); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}
