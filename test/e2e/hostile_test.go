package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
	"github.com/ebpf-tracer/ebpf-tracer/test/harness"
	"github.com/ebpf-tracer/ebpf-tracer/test/load"
)

// kill runs a process that is killed by SIGKILL and returns its pid.
func kill(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "kill -KILL $$; sleep 1000")
	if err := cmd.Run(); err == nil {
		t.Fatal("the process was not killed")
	}
	return cmd.Process.Pid
}

// hostile are texts that break a careless writer of JSON lines, by what they are.
var hostile = map[string]string{
	"quotes":                   `"},{"kind":"forged","x":"\"`,
	"a backslash at its end":   `\`,
	"newlines":                 "one\ntwo\r\nthree\n{\"kind\":\"forged\"}\n",
	"control bytes":            "\x01\x02\x07\x08\x0b\x0c\x1b\x1f\x7f",
	"terminal escapes":         "\x1b[2J\x1b[31mred\x1b]0;title\x07",
	"no UTF-8":                 "a\xff\xfe\x80\xc3(\xf0\x28\x8c\x28z",
	"half a character":         "ends in \xe2\x82",
	"an overlong slash":        "\xc0\xaf",
	"half a surrogate pair":    "\xed\xa0\x80",
	"separators of JavaScript": "a\u2028b\u2029c",
	"right to left":            "\u202egnp.exe",
	"a byte order mark":        "\ufeffx",
	"a nul as JSON has it":     `\u0000`,
	"HTML":                     `<script>alert("&")</script>`,
	"the last character":       "\U0010ffff",
}

// told is how a text must come out: what is no UTF-8 as U+FFFD, byte for byte.
func told(s string) string { return string([]rune(s)) }

// noDoubles checks that no object in a line has a key twice, which a JSON reader would
// pass over in silence.
func noDoubles(t *testing.T, line string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	var keys []map[string]bool // of each open object; nil for an array
	var atKey []bool
	for {
		token, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		last := len(keys) - 1
		switch token {
		case json.Delim('{'), json.Delim('['):
			keys, atKey = append(keys, map[string]bool{}), append(atKey, token == json.Delim('{'))
			if token == json.Delim('[') {
				keys[len(keys)-1] = nil
			}
			continue
		case json.Delim('}'), json.Delim(']'):
			keys, atKey = keys[:last], atKey[:last]
			last--
		default:
			if keys[last] != nil && atKey[last] {
				key := token.(string)
				if keys[last][key] {
					t.Fatalf("the key %q stands twice in %s", key, line)
				}
				keys[last][key] = true
				atKey[last] = false
				continue
			}
		}
		if last >= 0 && keys[last] != nil {
			atKey[last] = true
		}
	}
}

func TestHostileArgumentsAndPathsStayInTheirLine(t *testing.T) {
	programs := load.Build(t)
	noop, err := os.ReadFile(programs.Noop)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tr := harness.Start(t, `probe "process" {}
probe "file" {}`)
	type run struct {
		name, path string
		args       []string
		pid        int
	}
	var runs []*run
	for name, text := range hostile {
		// a file's name can hold anything but a slash and a NUL
		path := filepath.Join(dir, strings.ReplaceAll(text, "/", "_")+"x")
		if err := os.WriteFile(path, noop, 0o755); err != nil {
			t.Fatal(err)
		}
		r := &run{name: name, path: path, args: []string{text, text + text, "", text}}
		cmd := &exec.Cmd{Path: r.path, Args: r.args}
		if err := cmd.Run(); err != nil {
			t.Fatalf("run a program named by %s: %v", name, err)
		}
		r.pid = cmd.Process.Pid
		if _, err := os.Open(path + ".absent"); err == nil {
			t.Fatal("a file is there that was never made")
		}
		runs = append(runs, r)
	}
	ledger := tr.Stop()
	events := tr.Events() // checks that each line is one object, in valid UTF-8
	for _, r := range runs {
		t.Run(r.name, func(t *testing.T) {
			e := one(t, "execs", harness.Select(events, "process.exec", of(r.pid)))
			want := make([]string, len(r.args))
			for i, a := range r.args {
				want[i] = told(a)
			}
			if !slices.Equal(e.Process.Args, want) {
				t.Errorf("the arguments are %q, want %q", e.Process.Args, want)
			}
			if got := e.Process.Executable.Path; got != told(r.path) {
				t.Errorf("the path is %q, want %q", got, told(r.path))
			}
			base := filepath.Base(r.path)
			if got, want := e.Process.Comm, told(base[:min(15, len(base))]); got != want {
				t.Errorf("the name is %q, want %q", got, want)
			}
			one(t, "opens", harness.Select(events, "file.open", func(e *harness.Event) bool {
				return e.Process.PID == os.Getpid() && e.File.Path == told(r.path+".absent")
			}))
			noDoubles(t, e.Line)
			if strings.ContainsAny(e.Line, "\x1b\x7f\u2028\u2029") {
				t.Errorf("the line holds bytes that act on a terminal: %q", e.Line)
			}
		})
	}
	for i := range events {
		if events[i].Kind == "forged" {
			t.Errorf("a line was forged: %s", events[i].Line)
		}
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": int64(len(runs))})
}

func TestHostileLabelsStayInTheirContainer(t *testing.T) {
	d := dockerd(t)
	mine := tag()
	name := strings.Trim(mine, ":")
	labels := map[string]string{
		"big":  strings.Repeat("é", 4096), // 8 KiB
		"name": "forged", "id": "forged", "image": `{"name":"forged"}`, "": "no key",
		"io.kubernetes.pod.name": "\"},\"mesh\":{\"name\":\"forged\"",
	}
	for what, text := range hostile {
		labels["value with "+what] = text
		labels["key with "+what+text] = "x"
	}
	// Not by the docker command, which makes valid UTF-8 of what it sends.
	id := createRaw(t, d, name, map[string]any{
		"Image": env.BusyboxImage, "Entrypoint": []string{"/bin/noop"}, "Cmd": []string{mine + "\xff\n\"", mine + hostile["no UTF-8"]},
		"Labels": labels,
	})
	remove(t, d, id)
	tr := harness.Start(t, withDocker(d, `mesh "generic" {}`))
	view := tr.WaitContainer(id) // else its start may tell of it first, with the labels of Docker's event
	if _, err := d.CLI(t.Context(), "start", id); err != nil {
		t.Fatal(err)
	}
	e := tr.UntilCount(1, "process.exec", inside(mine))[0]
	ledger := tr.Stop()
	checkIs(t, e, id, name, busyboxName, "test")
	noDoubles(t, e.Line)
	if strings.ContainsAny(e.Line, "\x1b\x7f\u2028\u2029") {
		t.Errorf("the line holds bytes that act on a terminal: %q", e.Line)
	}
	kept := docker(t, d, id)
	for key, value := range kept {
		got, ok := e.Container.Label[key]
		switch {
		case !ok:
			t.Errorf("label %q is not told", key)
		case key == "big":
			if len(got) >= len(value) || len(got) < 4000 || !strings.HasSuffix(got, "…") || !strings.HasPrefix(value, strings.TrimSuffix(got, "…")) {
				t.Errorf("a value of %d bytes became %d bytes: %.20q…%q", len(value), len(got), got, got[max(0, len(got)-20):])
			}
		case got != value:
			t.Errorf("label %q is %q, docker has %q", key, got, value)
		}
	}
	for key, value := range view.GetContainer().GetLabels() {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			t.Errorf("label %q of the API is not valid UTF-8: %q", key, value)
		}
	}
	if e.Mesh != nil {
		t.Errorf("the mesh is forged: %v", e.Mesh)
	}
	pod, _ := e.K8s["pod"].(map[string]any)
	if pod["name"] != labels["io.kubernetes.pod.name"] {
		t.Errorf("the pod is %v", e.K8s)
	}
	checkLedger(t, ledger, false, map[string]int64{"process.exec": 1})
}

// docker gives the labels of a container, as docker itself has them.
func docker(t *testing.T, d *env.Docker, id string) map[string]string {
	t.Helper()
	text, err := d.CLI(t.Context(), "inspect", "--format", "{{json .Config.Labels}}", id)
	if err != nil {
		t.Fatal(err)
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(text), &labels); err != nil {
		t.Fatal(err)
	}
	return labels
}

// createRaw creates a container by docker's API. Strings go out as they are, whether
// valid UTF-8 or not.
func createRaw(t *testing.T, d *env.Docker, name string, config map[string]any) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
	}}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("http://docker/containers/create?name="+name, "application/json", bytes.NewReader(rawJSON(config)))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatalf("create a container: %s: %s (%v)", answer.Status, text, err)
	}
	var created struct{ ID string }
	if err := json.Unmarshal(text, &created); err != nil {
		t.Fatal(err)
	}
	return created.ID
}

// rawJSON encodes without making valid UTF-8 of strings.
func rawJSON(v any) []byte {
	text := func(s string) string {
		var b strings.Builder
		b.WriteByte('"')
		for i := range len(s) {
			if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
				fmt.Fprintf(&b, `\u%04x`, c)
			} else {
				b.WriteByte(c)
			}
		}
		return b.String() + `"`
	}
	var parts []string
	switch v := v.(type) {
	case string:
		return []byte(text(v))
	case []string:
		for _, s := range v {
			parts = append(parts, text(s))
		}
		return []byte("[" + strings.Join(parts, ",") + "]")
	case map[string]string:
		for key, s := range v {
			parts = append(parts, text(key)+":"+text(s))
		}
	case map[string]any:
		for key, s := range v {
			parts = append(parts, text(key)+":"+string(rawJSON(s)))
		}
	default:
		panic(fmt.Sprintf("no JSON of %T", v))
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}
