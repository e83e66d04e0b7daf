package main

import (
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
)

func TestAUnitIsReadFromThePathOfItsControlGroup(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct {
		path string
		want unit // zero: no unit's
	}{
		{"/system.slice/nginx.service", unit{name: "nginx.service", slice: "system.slice"}},
		{"/nginx.service", unit{name: "nginx.service"}},
		{"/system.slice/system-getty.slice/getty@tty1.service", unit{name: "getty@tty1.service", slice: "system-getty.slice"}},
		{"/user.slice/user-1000.slice/session-3.scope", unit{name: "session-3.scope", slice: "user-1000.slice"}},
		{"/user.slice/user-1000.slice/user@1000.service", unit{name: "user@1000.service", slice: "user-1000.slice"}},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service", unit{name: "mail.service", slice: "app.slice", user: "1000"}},
		{"/system.slice/_tasks.service", unit{name: "tasks.service", slice: "system.slice"}},
		{"/system.slice/docker-" + hex + ".scope", unit{name: "docker-" + hex + ".scope", slice: "system.slice"}},
		{"/", unit{}},
		{"/system.slice", unit{}},
		{"/docker/" + hex, unit{}},
		{"/system.slice/nginx.service/worker", unit{}},
		{"/system.slice/docker.service/inner.service", unit{}},
		{"/somebody/nginx.service", unit{}},
		{"/user.slice/user@x.service/app.slice/mail.service", unit{}},
		{"/user@1.service/user@2.service/mail.service", unit{}},
	} {
		got, ok := parse(tt.path)
		if got != tt.want || ok != (tt.want != unit{}) {
			t.Errorf("%s is %+v, %v; want %+v", tt.path, got, ok, tt.want)
		}
	}
	if !ofContainer("docker-" + hex + ".scope") {
		t.Error("a container's scope is not taken for one")
	}
	for _, name := range []string{"session-3.scope", hex + ".service", "run-" + hex[1:] + ".scope", "run-G" + hex[1:] + ".scope"} {
		if ofContainer(name) {
			t.Errorf("%s is taken for a container's", name)
		}
	}
}

func TestTheLabelsOfAUnitNameItsTemplate(t *testing.T) {
	u, _ := parse("/system.slice/system-getty.slice/getty@tty1.service")
	l := u.labels()
	for k, want := range map[string]string{
		"systemd.unit": "getty@tty1.service", "systemd.slice": "system-getty.slice",
		"systemd.template": "getty@.service", "systemd.instance": "tty1",
	} {
		if l[k] != want {
			t.Errorf("%s is %q, want %q", k, l[k], want)
		}
	}
	if len(l) != 4 {
		t.Errorf("the labels are %v", l)
	}
}

func TestPatternsThatMatchNoUnitAreRefusedAtTheirPlace(t *testing.T) {
	for _, tt := range []struct {
		units []string
		path  string // of the only mistake; "": none
	}{
		{[]string{"*.service"}, ""},
		{[]string{"nginx.service", "session-*.scope", "app-*"}, ""},
		{nil, "units"},
		{[]string{"*.service", "nginx"}, "units[1]"},
		{[]string{"[.service"}, "units[0]"},
		{[]string{"system.slice/nginx.service"}, "units[0]"},
		{[]string{"user-*.slice"}, "units[0]"},
	} {
		var paths []string
		for _, d := range validate(Config{Units: tt.units}) {
			paths = append(paths, d.Path.String())
			if d.Severity != diag.Error {
				t.Errorf("%v: %v is no error", tt.units, d)
			}
		}
		if strings.Join(paths, " ") != tt.path {
			t.Errorf("%v: mistakes at %v, want %q", tt.units, paths, tt.path)
		}
	}
}
