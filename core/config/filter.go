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

// Filter says which events are not wanted, whatever the budget. An event matches when it
// has, of every list that is not empty, one of the values.
type Filter struct {
	Name      string            `json:"-"`
	Action    string            `json:"action"`    // drop, keep, only
	Kinds     []string          `json:"kinds"`     // empty: all that can have what is asked for
	Comm      []string          `json:"comm"`      // of at most 15 bytes
	PID       []uint32          `json:"pid"`       // of processes, as the host numbers them
	UID       []uint32          `json:"uid"`       // as the host numbers them
	Container []string          `json:"container"` // patterns of names, or ids
	Image     []string          `json:"image"`     // patterns
	Label     map[string]string `json:"label"`     // patterns, all of which a container must match
	Cgroup    []string          `json:"cgroup"`    // patterns of paths from the hierarchy's root
	Peer      []string          `json:"peer"`      // addresses or prefixes
	Port      []uint16          `json:"port"`      // of either end
	Error     []string          `json:"error"`     // names, such as ENOENT
	Syscall   []string          `json:"syscall"`
}

const (
	maxFilters = 32   // kernel.MaxFilters
	maxValues  = 8192 // of one list
)

// filterCalls are the system calls whose exits tell events.
var filterCalls = []string{"open", "openat", "openat2", "creat", "connect", "accept", "accept4"}

func filterSchema() schema.Block {
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
	return schema.Block{Attributes: []schema.Attribute{
		{Name: "action", Type: schema.String, Default: "drop", Enum: []string{"drop", "keep", "only"}},
		list("kinds", schema.Attribute{Type: schema.String, Enum: kernelKinds()}),
		list("comm", text), list("pid", number(1, 1<<22)), list("uid", number(0, 1<<32-2)),
		list("container", text), list("image", text),
		{Name: "label", Type: schema.String, Shape: schema.Map, Default: map[string]string{}},
		list("cgroup", text), list("peer", text), list("port", number(1, 65535)), list("error", text),
		list("syscall", schema.Attribute{Type: schema.String, Enum: filterCalls}),
	}}
}

// kernelKinds are the kinds on which the kernel decides.
func kernelKinds() []string {
	return slices.DeleteFunc(eventKinds(), func(k string) bool {
		return !strings.HasPrefix(k, "process.") && !strings.HasPrefix(k, "network.") && !strings.HasPrefix(k, "file.")
	})
}

var filterName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// checkFilter finds what can't be meant.
func checkFilter(f Filter) (ds diag.Diagnostics) {
	wrong := func(list string, i int, summary, format string, args ...any) {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr(list), diag.Index(i)}, summary, format, args...))
	}
	for i, c := range f.Comm {
		if c == "" || len(c) > 15 {
			wrong("comm", i, "Malformed name", "The kernel keeps 15 bytes of a process's name, as /proc/PID/comm shows it; %q has %d.", c, len(c))
		}
	}
	for i, p := range f.Peer {
		if _, err := ParsePeer(p); err != nil {
			wrong("peer", i, "Malformed address", "%q is no address and no prefix, such as 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32.", p)
		}
	}
	for i, e := range f.Error {
		if _, ok := ParseErrno(e); !ok {
			wrong("error", i, "Unknown error", "%q is the name of no error, such as ENOENT or ECONNREFUSED.", e)
		}
	}
	for list, patterns := range map[string][]string{"container": f.Container, "image": f.Image, "cgroup": f.Cgroup} {
		for i, p := range patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				wrong(list, i, "Malformed pattern", "%q is no pattern: * stands for any text without a slash, ? for a character, [a-z] for one of a range.", p)
			}
		}
	}
	for key, p := range f.Label {
		if _, err := path.Match(p, ""); err != nil {
			ds = append(ds, diag.Errorf(diag.Path{diag.Attr("label"), diag.Key(key)}, "Malformed pattern", "%q is no pattern: * stands for any text without a slash, ? for a character, [a-z] for one of a range.", p))
		}
	}
	if n := len(f.Comm) + len(f.PID) + len(f.UID) + len(f.Container) + len(f.Image) + len(f.Label) + len(f.Cgroup) + len(f.Peer) + len(f.Port) + len(f.Error) + len(f.Syscall) + len(f.Kinds); n == 0 {
		ds = append(ds, diag.Errorf(nil, "Filter of everything", "A filter that asks for nothing would match every event. Name what it is to match."))
	} else if n > maxValues {
		ds = append(ds, diag.Errorf(nil, "Filter too large", "A filter has at most %d values; this one has %d.", maxValues, n))
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
