package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryCommandHasAnExample(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example or no description", c.CommandPath())
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len(line) > 85 {
				t.Errorf("%s: a line of help is too wide: %s", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

// interrupter cancels at the first write, as Ctrl-C would.
type interrupter struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (i *interrupter) Write(b []byte) (int, error) {
	i.cancel()
	return i.Buffer.Write(b)
}

// closedPipe is a reader that went away.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestCtrlCEndsEventsWithStatus0(t *testing.T) {
	socket := startAPI(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stderr bytes.Buffer
	out := &interrupter{cancel: cancel}
	if got := execute(ctx, []string{"get", "events", "--socket", socket}, out, &stderr); got != exitOK || stderr.Len() > 0 {
		t.Errorf("status %d: %s", got, stderr.String())
	}
	if !bytes.HasSuffix(out.Bytes(), []byte("}\n")) {
		t.Errorf("it ends within a line: %q", out.String())
	}
}

func TestAnOutputThatCanNotBeWrittenIsAnError(t *testing.T) {
	socket := startAPI(t)
	for _, args := range [][]string{
		{"get", "events"}, {"get", "stats"}, {"get", "containers"}, {"get", "plugins"}, {"version"},
		{"get", "events", "-o", "table"}, {"get", "stats", "-o", "json"},
	} {
		var stderr bytes.Buffer
		got := execute(t.Context(), append(args, "--socket", socket), closedPipe{}, &stderr)
		if got != exitError || !strings.Contains(stderr.String(), "broken pipe") {
			t.Errorf("%v: status %d: %s", args, got, stderr.String())
		}
	}
}

// startAPI serves as the scripts have it.
func startAPI(t *testing.T) (socket string) {
	t.Helper()
	dir := t.TempDir()
	if err := serveAPI(t.Cleanup, dir); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "api.sock")
}

func TestEquationsTellWhatIsOpen(t *testing.T) {
	for _, c := range []struct {
		left, right uint64
		want        string
	}{
		{5, 5, "a 5 = b 5 (closes)"},
		{7, 5, "a 7 = b 5 (2 in flight)"},
		{5, 7, "a 5 = b 7 (OPEN by 2: please report this)"},
	} {
		if got := equation([]term{{"a", c.left}}, []term{{"b", c.right}}); got != c.want {
			t.Error(got)
		}
	}
}

func TestTextsOfTheHostAreFitForATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain":           "plain",
		"日本語 é":           "日本語 é",
		"\x1b[31mred":     `\x1b[31mred`,
		"a\tb\nc":         `a\tb\nc`,
		"\xff\xfe":        `\xff\xfe`,
		"\u202eevil":      `\u202eevil`,
		"\u009b2J":        `\u009b2J`,
		"back\\slash":     `back\slash`,
		"quote'\x00":      `quote'\x00`,
		"\ufffd replaced": "\ufffd replaced",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestNumbersHaveUnits(t *testing.T) {
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1.0KiB", 40 << 20: "40.0MiB", 1<<64 - 1: "16.0EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0: "0s", 61.5: "1m2s", 1.256: "1.26s", 0.0015: "1.5ms", 7200: "2h0m0s"} {
		if got := seconds(s); got != want {
			t.Errorf("%v: %s, want %s", s, got, want)
		}
	}
}

func TestTheLifeOfAContainerIsALineForPeople(t *testing.T) {
	for line, want := range map[string]string{
		`{"kind":"container.died","priority":"error","lifecycle":{"exit_code":137,"signal_name":"SIGKILL","inferred":true},"container":{"name":"web"}}`: "container.died          web                   -                       status 137 SIGKILL (inferred)  error\n",
		`{"kind":"container.paused","lifecycle":{"source":"docker"},"container":{"name":"web"}}`:                                                        "container.paused        web                   -                     \n",
		`{"kind":"image.pulled","lifecycle":{"image":"evil\u001b[31m:1"}}`:                                                                              "image.pulled            -                     -                       evil\\x1b[31m:1\n",
	} {
		got, err := eventLine([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := strings.Cut(string(got), "  "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
