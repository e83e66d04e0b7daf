package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Ranges and defaults of the core's own settings.
const (
	minRing   = 64 << 10
	maxRing   = 1 << 30
	maxSocket = 107 // what fits into sockaddr_un, less its NUL
)

// coreBlock is a block that is the core's own: probe "process", api, ...
type coreBlock struct {
	word  string
	label string // "": the block takes none, but for ...
	// named gives the set of a block that takes a name of the operator's choice, of which
	// there may be several.
	named func(name string) func(c *Config, raw []byte) (diag.Diagnostics, error)
	// always: the block counts, with its defaults, when the file has none.
	always bool
	schema schema.Block
	// set puts a checked configuration into its place and returns what is
	// wrong beyond the schema.
	set func(c *Config, raw []byte) (diag.Diagnostics, error)
}

// title is how the block is called in a sentence.
func (b *coreBlock) title() string {
	if b.label == "" {
		return b.word
	}
	return fmt.Sprintf("%s %q", b.word, b.label)
}

// place is the set of a block whose struct pick finds. check may be nil.
func place[T any](pick func(*Config) *T, check func(T) diag.Diagnostics) func(*Config, []byte) (diag.Diagnostics, error) {
	return func(c *Config, raw []byte) (diag.Diagnostics, error) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		v := pick(c)
		if err := dec.Decode(v); err != nil {
			return nil, err
		}
		if check == nil {
			return nil, nil
		}
		return check(*v), nil
	}
}

// fresh is a pick for blocks that are off when absent.
func fresh[T any](field func(*Config) **T) func(*Config) *T {
	return func(c *Config) *T {
		v := new(T)
		*field(c) = v
		return v
	}
}

// coreBlocks are all blocks that are the core's own.
func coreBlocks() []coreBlock {
	return []coreBlock{
		{
			word: "node", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "name", Type: schema.String},
				{Name: "host_root", Type: schema.String, Default: ""},
			}},
			set: setNode,
		},
		{
			word: "plugins", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "dirs", Type: schema.String, Shape: schema.List, Default: []string{}},
				{Name: "sandbox", Type: schema.String, Default: BestEffort, Enum: []string{BestEffort, Required}},
			}},
			set: place(func(c *Config) *Plugins { return &c.Plugins }, checkPlugins),
		},
		{
			word: "probe", label: "process",
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "args", Type: schema.Bool, Default: true},
			}},
			set: place(fresh(func(c *Config) **ProcessProbe { return &c.Probes.Process }), nil),
		},
		{
			word: "probe", label: "network",
			set: place(fresh(func(c *Config) **NetworkProbe { return &c.Probes.Network }), nil),
		},
		{
			word: "probe", label: "file",
			set: place(fresh(func(c *Config) **FileProbe { return &c.Probes.File }), nil),
		},
		{
			word: "kernel", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "ring_size", Type: schema.Size, Default: int64(8 << 20), Min: schema.Bound(minRing), Max: schema.Bound(maxRing)},
				{Name: "rings", Type: schema.Integer, Default: 0, Min: schema.Bound(0), Max: schema.Bound(256)},
			}},
			set: place(func(c *Config) *Kernel { return &c.Kernel }, checkKernel),
		},
		{
			word: "attribution", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "hold", Type: schema.Duration, Default: 500 * time.Millisecond, Min: schema.Bound(0), Max: schema.Bound(10 * time.Second)},
				{Name: "hold_per_cgroup", Type: schema.Integer, Default: 64, Min: schema.Bound(1), Max: schema.Bound(65536)},
				{Name: "hold_total", Type: schema.Integer, Default: 4096, Min: schema.Bound(1), Max: schema.Bound(1 << 20)},
			}},
			set: place(func(c *Config) *Attribution { return &c.Attribution }, checkAttribution),
		},
		{
			word: "load", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "interval", Type: schema.Duration, Default: 500 * time.Millisecond, Min: schema.Bound(250 * time.Millisecond), Max: schema.Bound(time.Minute)},
				{Name: "cpu_threshold", Type: schema.Number, Default: 0.8, Min: schema.Bound(0), Max: schema.Bound(1)},
				{Name: "memory_threshold", Type: schema.Size, Default: int64(1 << 30), Min: schema.Bound(0)},
				{Name: "network_threshold", Type: schema.Number, Default: 0.8, Min: schema.Bound(0), Max: schema.Bound(1)},
				{Name: "disk_threshold", Type: schema.Number, Default: 0.8, Min: schema.Bound(0), Max: schema.Bound(1)},
				{Name: "shed", Type: schema.String, Shape: schema.List, Default: []string{}, Enum: []string{"process", "network", "file"}},
			}},
			set: place(func(c *Config) *Load { return &c.Load }, nil),
		},
		{
			word: "budget", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "events_per_second", Type: schema.Number, Default: 100_000, Min: schema.Bound(1), Max: schema.Bound(100_000_000)},
				{Name: "reserve", Type: schema.Number, Default: 0.5, Min: schema.Bound(0.01), Max: schema.Bound(1)},
				{Name: "cpu", Type: schema.Number, Default: 0, Min: schema.Bound(0), Max: schema.Bound(1024)},
				{Name: "memory", Type: schema.Size, Default: int64(0), Min: schema.Bound(0)},
			}},
			set: place(func(c *Config) *Budget { return &c.Budget }, checkBudget),
		},
		{
			word: "resources",
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "interval", Type: schema.Duration, Default: 10 * time.Second, Min: schema.Bound(time.Second), Max: schema.Bound(10 * time.Minute)},
				{Name: "max_containers", Type: schema.Integer, Default: 2000, Min: schema.Bound(1), Max: schema.Bound(65536)},
				{Name: "max_exported", Type: schema.Integer, Default: 500, Min: schema.Bound(0), Max: schema.Bound(10_000)},
				{Name: "warn_at", Type: schema.Number, Default: 0.9, Min: schema.Bound(0), Max: schema.Bound(1)},
				{Name: "network", Type: schema.Bool, Default: true},
			}},
			set: place(fresh(func(c *Config) **Resources { return &c.Resources }), nil),
		},
		{word: "share", schema: shareSchema(), named: namedShare},
		{word: "filter", schema: filterSchema(), named: namedFilter},
		{word: "priority", schema: prioritySchema(), named: namedPriority},
		{
			word: "exporter", label: "json",
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "path", Type: schema.String, Default: "-"},
				{Name: "max_size", Type: schema.Size, Default: int64(100 << 20), Min: schema.Bound(1 << 20)},
				{Name: "max_files", Type: schema.Integer, Default: 5, Min: schema.Bound(1), Max: schema.Bound(1000)},
				{Name: "kinds", Type: schema.String, Shape: schema.List, Default: []string{}, Enum: eventKinds()},
			}},
			set: place(fresh(func(c *Config) **JSONExporter { return &c.Exporters.JSON }), checkJSON),
		},
		{
			word: "exporter", label: "prometheus",
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "listen", Type: schema.String, Default: "127.0.0.1:9464"},
			}},
			set: place(fresh(func(c *Config) **PrometheusExporter { return &c.Exporters.Prometheus }), checkPrometheus),
		},
		{
			word: "api", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "socket", Type: schema.String, Default: "/run/ebpf-tracer/api.sock"},
			}},
			set: place(func(c *Config) *API { return &c.API }, checkAPI),
		},
		{
			word: "log", always: true,
			schema: schema.Block{Attributes: []schema.Attribute{
				{Name: "level", Type: schema.String, Default: "info", Enum: []string{"debug", "info", "warn", "error"}},
				{Name: "format", Type: schema.String, Default: "text", Enum: []string{"text", "json"}},
			}},
			set: place(func(c *Config) *Log { return &c.Log }, nil),
		},
	}
}

// namedFilter adds a filter to those before it.
func namedFilter(name string) func(*Config, []byte) (diag.Diagnostics, error) {
	return func(c *Config, raw []byte) (diag.Diagnostics, error) {
		if ds := roomFor(c, "filter", name); ds != nil {
			return ds, nil
		}
		f := Filter{Name: name}
		ds, err := place(func(*Config) *Filter { return &f }, checkFilter)(c, raw)
		// The lists of another one would be appended to.
		c.Filters = append(slices.Clone(c.Filters), f)
		return ds, err
	}
}

// checkBudget refuses what the daemon needs by itself.
func checkBudget(b Budget) (ds diag.Diagnostics) {
	const leastCPU, leastMemory = 0.01, 64 << 20
	if b.CPU > 0 && b.CPU < leastCPU {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("cpu")}, "Too little", "The daemon needs a hundredth of a CPU when nothing happens: give it at least %v, or 0 for no bound.", leastCPU))
	}
	if b.Memory > 0 && b.Memory < leastMemory {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("memory")}, "Too little", "The daemon needs some tens of megabytes when nothing happens: give it at least 64MiB, or 0 for no bound."))
	}
	return ds
}

// namedShare adds a share of the budget to those before it.
func namedShare(name string) func(*Config, []byte) (diag.Diagnostics, error) {
	return func(c *Config, raw []byte) (diag.Diagnostics, error) {
		if ds := checkName("share", name); ds != nil {
			return ds, nil
		}
		s := Share{Name: name}
		ds, err := place(func(*Config) *Share { return &s }, checkShare)(c, raw)
		ds = append(ds, fits(c.Shares, s)...)
		c.Shares = append(slices.Clone(c.Shares), s)
		return ds, err
	}
}

// namedPriority adds a priority block to those before it.
func namedPriority(name string) func(*Config, []byte) (diag.Diagnostics, error) {
	return func(c *Config, raw []byte) (diag.Diagnostics, error) {
		if ds := roomFor(c, "priority block", name); ds != nil {
			return ds, nil
		}
		p := Priority{Name: name}
		ds, err := place(func(*Config) *Priority { return &p }, checkPriority)(c, raw)
		c.Priorities = append(slices.Clone(c.Priorities), p)
		return ds, err
	}
}

// checkName checks the name of a block of what the file may have several of.
func checkName(what, name string) diag.Diagnostics {
	if filterName.MatchString(name) {
		return nil
	}
	return diag.Diagnostics{diag.Errorf(nil, "Malformed name", "%q can't name a %s: a name has letters, digits, \".\", \"_\" and \"-\", begins with a letter or a digit, and has at most 64.", name, what)}
}

// roomFor checks the name of one more filter or priority block, and that there is room.
func roomFor(c *Config, what, name string) diag.Diagnostics {
	if ds := checkName(what, name); ds != nil {
		return ds
	}
	used := len(c.Filters)
	for _, p := range c.Priorities {
		kinds, priorities := p.Matches()
		if used++; len(kinds) > 0 && len(priorities) > 0 {
			used++
		}
	}
	if used >= maxFilters {
		return diag.Diagnostics{diag.Errorf(nil, "Too many filters", "There can be %d filters and priority blocks, one that matches kinds and priorities counting as two; each may name thousands of values.", maxFilters)}
	}
	return nil
}

// eventKinds are the names of all kinds of events.
func eventKinds() []string {
	names := make([]string, event.Kinds)
	for k := range event.Kinds {
		names[k] = k.String()
	}
	return names
}

// hostSchema is the reserved block plugin {} in a plugin's block.
func hostSchema() schema.Block {
	return schema.Block{Attributes: []schema.Attribute{
		{Name: "memory", Type: schema.Size, Default: int64(128 << 20), Min: schema.Bound(16 << 20), Max: schema.Bound(64 << 30)},
		{Name: "processes", Type: schema.Integer, Default: int64(256), Min: schema.Bound(16), Max: schema.Bound(65536)},
		{Name: "start_timeout", Type: schema.Duration, Default: 5 * time.Second, Min: schema.Bound(100 * time.Millisecond), Max: schema.Bound(5 * time.Minute)},
	}}
}

// setNode leaves the name empty when the file gives none: its default is looked
// up, not written down.
func setNode(c *Config, raw []byte) (diag.Diagnostics, error) {
	var given struct {
		Name     *string `json:"name"`
		HostRoot string  `json:"host_root"`
	}
	if err := json.Unmarshal(raw, &given); err != nil {
		return nil, err
	}
	var wrong diag.Diagnostics
	switch root := given.HostRoot; {
	case root == "":
	case !filepath.IsAbs(root) || strings.ContainsRune(root, 0):
		wrong = one("host_root", "Malformed path", `"host_root" wants the absolute path at which the host's root directory is mounted, such as "/host", or "" where the daemon sees the host's files as they are.`)
	case filepath.Clean(root) != "/": // which is none but the daemon's own
		c.Node.HostRoot = filepath.Clean(root)
	}
	if given.Name == nil {
		return wrong, nil
	}
	c.Node.Name = *given.Name
	if *given.Name == "" || len(*given.Name) > 253 {
		wrong = append(wrong, one("name", "Malformed value", `"name" of node must have 1 to 253 bytes. Leave it out for the host's name.`)...)
	}
	return wrong, nil
}

func checkPlugins(p Plugins) diag.Diagnostics {
	for i, dir := range p.Dirs {
		if dir == "" {
			return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("dirs"), diag.Index(i)}, "Malformed value", "A plugin directory can't be empty text.")}
		}
	}
	return nil
}

func checkKernel(k Kernel) diag.Diagnostics {
	if k.RingSize&(k.RingSize-1) == 0 {
		return nil
	}
	below := int64(minRing)
	for below*2 < k.RingSize {
		below *= 2
	}
	return one("ring_size", "Malformed size", `"ring_size" must be a power of two, for the kernel takes no other ring; the nearest are %s and %s.`, formatSize(below), formatSize(below*2))
}

func checkAttribution(a Attribution) diag.Diagnostics {
	if a.HoldPerCgroup <= a.HoldTotal {
		return nil
	}
	return one("hold_per_cgroup", "Value out of range", `"hold_per_cgroup" (%d) can't be more than "hold_total" (%d): the events of all cgroups count against the total.`, a.HoldPerCgroup, a.HoldTotal)
}

func checkJSON(e JSONExporter) diag.Diagnostics {
	if e.Path == "" {
		return one("path", "Malformed value", `"path" is a file, or "-" for standard output; it can't be empty.`)
	}
	return nil
}

func checkPrometheus(e PrometheusExporter) diag.Diagnostics {
	_, port, err := net.SplitHostPort(e.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil {
		return nil
	}
	return one("listen", "Malformed address", `"listen" wants host:port with a port from 0 to 65535, such as "127.0.0.1:9464", "[::1]:9464", or ":9464" for every address of the host.`)
}

func checkAPI(a API) diag.Diagnostics {
	if filepath.IsAbs(a.Socket) && len(a.Socket) <= maxSocket {
		return nil
	}
	return one("socket", "Malformed path", `"socket" wants an absolute path of at most %d bytes, such as "/run/ebpf-tracer/api.sock".`, maxSocket)
}

// one is a single error at an argument.
func one(attribute, summary, format string, args ...any) diag.Diagnostics {
	return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr(attribute)}, summary, format, args...)}
}
