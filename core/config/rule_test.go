package config_test

import (
	"strings"
	"testing"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
)

func TestAFilterOfNoFileIsCheckedAsOneOfAFileIs(t *testing.T) {
	ok := config.Selector{Comm: []string{"sh"}}
	for _, test := range []struct {
		name   string
		filter config.Filter
		wants  []string // nothing: it is right
	}{
		{"all of it", config.Filter{Name: "a.b_c-9", Action: "keep", Selector: config.Selector{
			Kinds: []string{"file.open"}, Comm: []string{"sh"}, PID: []uint32{1}, UID: []uint32{0}, Container: []string{"web-*"}, Namespace: []string{"shop-*"}, Image: []string{"nginx:1.*"},
			Label: map[string]string{"a": "b*"}, Cgroup: []string{"/x"}, Error: []string{"ENOENT"}, Syscall: []string{"openat"},
		}}, nil},
		{"no action is drop", config.Filter{Name: "a", Selector: ok}, nil},
		{"a priority", config.Filter{Name: "a", Action: "critical", Selector: ok}, nil},
		{"another word", config.Filter{Name: "a", Action: "hide", Selector: ok}, []string{`action: Value not allowed: "hide" is not allowed`, "critical"}},
		{"no name", config.Filter{Selector: ok}, []string{"name: Malformed name"}},
		{"a name with a space", config.Filter{Name: "a b", Selector: ok}, []string{`name: Malformed name: "a b" can't name a filter`}},
		{"nothing is asked for", config.Filter{Name: "a"}, []string{"Filter of everything"}},
		{"a kind that there is not", config.Filter{Name: "a", Selector: config.Selector{Kinds: []string{"process.exec", "process.exek"}}}, []string{`kinds[1]: Value not allowed: "process.exek"`}},
		{"a kind that no kernel decides", config.Filter{Name: "a", Selector: config.Selector{Kinds: []string{"container.died"}}}, []string{"kinds[0]"}},
		{"a name that no process has", config.Filter{Name: "a", Selector: config.Selector{Comm: []string{"sixteen-bytes-no"}}}, []string{"comm[0]: Malformed name"}},
		{"pid 0", config.Filter{Name: "a", Selector: config.Selector{PID: []uint32{0}}}, []string{"pid[0]: Value not allowed: 0 is not allowed: it wants at least 1."}},
		{"nobody's uid", config.Filter{Name: "a", Selector: config.Selector{UID: []uint32{1<<32 - 1}}}, []string{"uid[0]: Value not allowed"}},
		{"port 0", config.Filter{Name: "a", Selector: config.Selector{Port: []uint16{0}}}, []string{"port[0]: Value not allowed"}},
		{"no address", config.Filter{Name: "a", Selector: config.Selector{Peer: []string{"10.0.0.0/8", "example.com"}}}, []string{"peer[1]: Malformed address"}},
		{"an error that there is not", config.Filter{Name: "a", Selector: config.Selector{Error: []string{"ENOPE"}}}, []string{"error[0]: Unknown error"}},
		{"a call that tells no event", config.Filter{Name: "a", Selector: config.Selector{Syscall: []string{"read"}}}, []string{"syscall[0]: Value not allowed"}},
		{"a pattern that is none", config.Filter{Name: "a", Selector: config.Selector{Container: []string{"web-["}}}, []string{"container[0]: Malformed pattern"}},
		{"a namespace's pattern that is none", config.Filter{Name: "a", Selector: config.Selector{Namespace: []string{"shop", "["}}}, []string{"namespace[1]: Malformed pattern"}},
		{"a label's pattern that is none", config.Filter{Name: "a", Selector: config.Selector{Label: map[string]string{"app": "["}}}, []string{`label["app"]: Malformed pattern`}},
		{"too much", config.Filter{Name: "a", Selector: config.Selector{PID: many(8193)}}, []string{"Too many values"}},
		{"all that is wrong", config.Filter{Action: "no", Selector: config.Selector{PID: []uint32{0}}}, []string{"name:", "action:", "pid[0]:"}},
	} {
		err := config.CheckRule(test.filter).Err()
		if (err == nil) != (test.wants == nil) {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		for _, want := range test.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", test.name, err, want)
			}
		}
	}
}

func many(n int) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = uint32(i + 1)
	}
	return out
}
