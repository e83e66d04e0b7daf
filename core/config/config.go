package config

import "time"

// Config is everything that the core itself is told. Every default is filled
// in, every value is in range.
type Config struct {
	Node        Node
	Plugins     Plugins
	Probes      Probes
	Kernel      Kernel
	Attribution Attribution
	Load        Load
	Budget      Budget
	Shares      []Share    // in order
	Filters     []Filter   // in order
	Priorities  []Priority // in order
	Auto        *Auto      // nil: only discoverers that the file names run
	Resources   *Resources // nil: what containers use is read only when somebody asks
	Exporters   Exporters
	API         API
	Log         Log
}

// Node says what this host is called, and where its files are.
type Node struct {
	Name string `json:"name"` // never empty
	// HostRoot is where the host's root directory is mounted, an absolute, clean path;
	// "": the daemon sees the host's files as they are.
	HostRoot string `json:"host_root"`
}

// Plugins says where plugins are looked for, and how they are confined.
type Plugins struct {
	// Dirs are searched after the directory beside the daemon's binary.
	Dirs []string `json:"dirs"`
	// Sandbox says what becomes of a plugin that this host can't confine with every
	// measure: BestEffort or Required.
	Sandbox string `json:"sandbox"`
}

// What Plugins.Sandbox can be.
const (
	BestEffort = "best-effort" // it runs with those that there are, which is told
	Required   = "required"    // it does not start
)

// Probes are the families of events that are traced; nil is off. When the file
// has no probe block at all, process and network are on.
type Probes struct {
	Process *ProcessProbe
	Network *NetworkProbe
	File    *FileProbe
}

// ProcessProbe traces fork, exec and exit.
type ProcessProbe struct {
	Args bool `json:"args"` // record the arguments of an exec
}

// NetworkProbe traces TCP connections.
type NetworkProbe struct{}

// FileProbe traces file opens.
type FileProbe struct{}

// Kernel sizes the kernel side.
type Kernel struct {
	RingSize int64 `json:"ring_size"` // bytes of each ring, a power of two
	Rings    int   `json:"rings"`     // 0: as many as the host's caches call for
}

// Attribution bounds how long and how many events wait for the description of
// a container that is not known yet.
type Attribution struct {
	Hold          time.Duration `json:"hold"`            // 0: nothing waits
	HoldPerCgroup int           `json:"hold_per_cgroup"` // events
	HoldTotal     int           `json:"hold_total"`      // events
}

// Load says how the load is reported to the sampler, and from which load on less is
// kept than it says. A threshold of 0 is none.
type Load struct {
	Interval         time.Duration `json:"interval"`
	CPUThreshold     float64       `json:"cpu_threshold"`     // share of the host's
	MemoryThreshold  int64         `json:"memory_threshold"`  // bytes of the daemon
	NetworkThreshold float64       `json:"network_threshold"` // share of the busiest interface
	DiskThreshold    float64       `json:"disk_threshold"`    // share of time of the busiest disk
	Shed             []string      `json:"shed"`              // probes that are detached under critical load, in this order
}

// Budget bounds what is kept.
type Budget struct {
	EventsPerSecond float64 `json:"events_per_second"`
	Reserve         float64 `json:"reserve"` // the part for critical and first events
	CPU             float64 `json:"cpu"`     // CPUs that the daemon itself uses; 0: no bound
	Memory          int64   `json:"memory"`  // bytes of it; 0: no bound
}

// Resources says how it is measured what containers use.
type Resources struct {
	Interval      time.Duration `json:"interval"`       // between two readings of a container
	MaxContainers int           `json:"max_containers"` // that are read
	MaxExported   int           `json:"max_exported"`   // containers in the metrics
	WarnAt        float64       `json:"warn_at"`        // share of a limit; 0: no warnings
	Network       bool          `json:"network"`        // account traffic
}

// Exporters are where events and metrics go; nil is off.
type Exporters struct {
	JSON       *JSONExporter
	Prometheus *PrometheusExporter
}

// JSONExporter writes one event a line.
type JSONExporter struct {
	Path     string   `json:"path"`      // "-": standard output
	MaxSize  int64    `json:"max_size"`  // bytes after which a file is rotated
	MaxFiles int      `json:"max_files"` // kept, the current one included
	Kinds    []string `json:"kinds"`     // empty: all
}

// PrometheusExporter serves /metrics.
type PrometheusExporter struct {
	Listen string `json:"listen"` // host:port
}

// API is the daemon's local interface.
type API struct {
	Socket string `json:"socket"` // absolute path of a unix socket
}

// Log says what the daemon tells of itself on standard error.
type Log struct {
	Level  string `json:"level"`  // debug, info, warn, error
	Format string `json:"format"` // text, json
}

// PluginHost says how the host runs one plugin's binary: the reserved block
// plugin {} in a plugin's block.
type PluginHost struct {
	Memory       int64         `json:"memory"`    // bytes
	Processes    int64         `json:"processes"` // and threads
	StartTimeout time.Duration `json:"start_timeout"`
}
