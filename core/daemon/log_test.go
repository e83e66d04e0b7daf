package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

func TestALogChangesItsLevelAndFormatWhileItIsWritten(t *testing.T) {
	var out bytes.Buffer
	log, settings := newLog(&out, config.Log{Level: "info", Format: "text"})
	own := log.With("plugin", "a").WithGroup("g").With("b", 1) // made before the change
	for _, step := range []struct {
		set  config.Log
		want string
	}{
		{config.Log{Level: "info", Format: "text"}, "level=INFO msg=hello plugin=a g.b=1\n"},
		{config.Log{Level: "info", Format: "json"}, `"level":"INFO","msg":"hello","plugin":"a","g":{"b":1}}` + "\n"},
		{config.Log{Level: "error", Format: "json"}, ""},
		{config.Log{Level: "debug", Format: "text"}, "level=DEBUG msg=more plugin=a g.b=1\n"},
	} {
		settings.set(step.set)
		out.Reset()
		own.Info("hello")
		own.Debug("more")
		if got := out.String(); !strings.HasSuffix(got, step.want) || step.want == "" && got != "" {
			t.Errorf("as %+v: %q, want %q", step.set, got, step.want)
		}
		if got, want := own.Enabled(t.Context(), slog.LevelDebug), step.set.Level == "debug"; got != want {
			t.Errorf("as %+v: debug is enabled %v", step.set, got)
		}
	}
}
