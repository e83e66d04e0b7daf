package config

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Selector says which events are meant: those that have, of every list that is not
// empty, one of the values.
type Selector struct {
	Kinds     []string          `json:"kinds"`     // empty: all that can have what is asked for
	Comm      []string          `json:"comm"`      // of at most 15 bytes
	PID       []uint32          `json:"pid"`       // of processes, as the host numbers them
	UID       []uint32          `json:"uid"`       // as the host numbers them
	Container []string          `json:"container"` // patterns of names, or ids
	Namespace []string          `json:"namespace"` // patterns of namespaces of pods
	Image     []string          `json:"image"`     // patterns
	Label     map[string]string `json:"label"`     // patterns, all of which a container must match
	Cgroup    []string          `json:"cgroup"`    // patterns of paths from the hierarchy's root
	Peer      []string          `json:"peer"`      // addresses or prefixes
	Port      []uint16          `json:"port"`      // of either end
	Error     []string          `json:"error"`     // names, such as ENOENT
	Syscall   []string          `json:"syscall"`
}

// Filter says which events are not wanted, whatever the budget.
type Filter struct {
	Name   string `json:"-"`
	Action string `json:"action"` // drop, keep, only
	Selector
}

const (
	maxFilters = 32   // kernel.MaxFilters
	maxValues  = 8192 // of one list
)

// filterCalls are the system calls whose exits tell events.
var filterCalls = []string{"open", "openat", "openat2", "creat", "connect", "accept", "accept4"}

func filterSchema() schema.Block {
	return schema.Block{Attributes: append([]schema.Attribute{
		{Name: "action", Type: schema.String, Default: "drop", Enum: []string{"drop", "keep", "only"}},
	}, selectorAttributes()...)}
}

// selectorAttributes are what a Selector is written with.
func selectorAttributes() []schema.Attribute {
	list := func(name string, of schema.Attribute) schema.Attribute {
		of.Name, of.Shape, of.Default = name, schema.List, []string{}
		if of.Type != schema.String {
			of.Default = []int{}
		}
		return of
	}
	text := schema.Attribute{Type: schema.String}
	number := func(least, most int) schema.Attribute {
		return schema.Attribute{Type: schema.Integer, Min: schema.Bound(least), Max: schema.Bound(most)}
	}
	return []schema.Attribute{
		list("kinds", schema.Attribute{Type: schema.String, Enum: kernelKinds()}),
		list("comm", text), list("pid", number(1, 1<<22)), list("uid", number(0, 1<<32-2)),
		list("container", text), list("namespace", text), list("image", text),
		{Name: "label", Type: schema.String, Shape: schema.Map, Default: map[string]string{}},
		list("cgroup", text), list("peer", text), list("port", number(1, 65535)), list("error", text),
		list("syscall", schema.Attribute{Type: schema.String, Enum: filterCalls}),
	}
}

// kernelKinds are the kinds on which the kernel decides.
func kernelKinds() []string {
	return slices.DeleteFunc(eventKinds(), func(k string) bool {
		return !strings.HasPrefix(k, "process.") && !strings.HasPrefix(k, "network.") && !strings.HasPrefix(k, "file.")
	})
}

var filterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// checkFilter finds what can't be meant.
func checkFilter(f Filter) diag.Diagnostics {
	ds := f.check()
	if f.values() == 0 {
		ds = append(ds, diag.Errorf(nil, "Filter of everything", "A filter that asks for nothing would match every event. Name what it is to match."))
	}
	return ds
}

// values is how many are named.
func (s Selector) values() int {
	return len(s.Comm) + len(s.PID) + len(s.UID) + len(s.Container) + len(s.Namespace) + len(s.Image) + len(s.Label) + len(s.Cgroup) +
		len(s.Peer) + len(s.Port) + len(s.Error) + len(s.Syscall) + len(s.Kinds)
}

const noPattern = "%q is no pattern: * stands for any text without a slash, ? for a character, [a-z] for one of a range."

func (s Selector) check() (ds diag.Diagnostics) {
	wrong := func(list string, i int, summary, format string, args ...any) {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr(list), diag.Index(i)}, summary, format, args...))
	}
	for i, c := range s.Comm {
		if c == "" || len(c) > 15 {
			wrong("comm", i, "Malformed name", "The kernel keeps 15 bytes of a process's name, as /proc/PID/comm shows it; %q has %d.", c, len(c))
		}
	}
	for i, p := range s.Peer {
		if _, err := ParsePeer(p); err != nil {
			wrong("peer", i, "Malformed address", "%q is no address and no prefix, such as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32.", p)
		}
	}
	for i, e := range s.Error {
		if _, ok := ParseErrno(e); !ok {
			wrong("error", i, "Unknown error", "%q is the name of no error, such as ENOENT or ECONNREFUSED.", e)
		}
	}
	for _, of := range []struct {
		list     string
		patterns []string
	}{{"container", s.Container}, {"namespace", s.Namespace}, {"image", s.Image}, {"cgroup", s.Cgroup}} {
		for i, p := range of.patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				wrong(of.list, i, "Malformed pattern", noPattern, p)
			}
		}
	}
	for key, p := range s.Label {
		if _, err := path.Match(p, ""); err != nil {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("label"), diag.Key(key)}, "Malformed pattern", noPattern, p))
		}
	}
	if n := s.values(); n > maxValues {
		ds = append(ds, diag.Errorf(nil, "Too many values", "One block has at most %d values; this one has %d.", maxValues, n))
	}
	return ds
}

// ParsePeer reads an address or a prefix.
func ParsePeer(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4In6() {
			return p, fmt.Errorf("%s is an IPv4 prefix written as IPv6", s)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no prefix", s)
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// ParseErrno finds an error by its name.
func ParseErrno(name string) (uint16, bool) {
	const last = 133 // EHWPOISON
	for e := range unix.Errno(last) {
		if unix.ErrnoName(e+1) == name {
			return uint16(e + 1), true
		}
	}
	return 0, false
}
