package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/place"
)

// Rights are what a plugin may use beyond its own process: what its manifest asks
// for and what the operator wrote in its configuration. Zero is nothing, as for a
// plugin that is only asked for its schema.
type Rights struct {
	Sockets []string // unix sockets that it connects to: absolute paths
	Paths   []string // files and directories that it reads: absolute paths
	// HostSockets and HostPaths are the same below HostRoot, where the host's root
	// directory is mounted, as the host's own processes call them. Symbolic links
	// there lead nowhere else.
	HostRoot     string
	HostSockets  []string
	HostPaths    []string
	State        string   // the directory that it may write to; "": none
	Capabilities []string // CAP_...
	Network      bool     // internet sockets
	Root         bool     // to stay root
}

// Limits are what a plugin's process may use up.
type Limits struct {
	// DataBytes bounds the private memory of one process, where no control group
	// bounds all of them; 0: no bound.
	DataBytes int64
	// Processes and threads of the plugin's user; 0: no bound.
	Processes int64
	// OpenFiles of a process; 0: as the daemon.
	OpenFiles int64
	// FileBytes bounds each file that it writes; 0: no bound.
	FileBytes int64
}

// RootEquivalent says why somebody with these rights could become root of the
// host, "" when there is no such reason known.
func (r Rights) RootEquivalent() string {
	var why []string
	for _, s := range r.SocketPlaces() {
		if runtimeSocket(s.Path) {
			why = append(why, fmt.Sprintf("socket %s starts containers with any rights", s))
		}
	}
	if r.Root {
		why = append(why, "user root owns the host's files")
	}
	for _, c := range r.Capabilities {
		if slices.Contains(powerful, c) {
			why = append(why, c)
		}
	}
	return strings.Join(why, "; ")
}

// SocketPlaces are where all the sockets are.
func (r Rights) SocketPlaces() []place.Place { return r.places(r.Sockets, r.HostSockets) }

// PathPlaces are where all the paths are.
func (r Rights) PathPlaces() []place.Place { return r.places(r.Paths, r.HostPaths) }

func (r Rights) places(own, below []string) []place.Place {
	out := make([]place.Place, 0, len(own)+len(below))
	for _, p := range own {
		out = append(out, place.Place{Path: p})
	}
	for _, p := range below {
		out = append(out, place.Place{Root: r.HostRoot, Path: p})
	}
	return out
}

// runtimeSocket tells whether a socket is one of a container runtime, by the names
// that they are known by.
func runtimeSocket(path string) bool {
	switch filepath.Base(path) {
	case "docker.sock", "podman.sock", "containerd.sock", "containerd.sock.ttrpc", "crio.sock",
		"cri-dockerd.sock", "dockershim.sock", "buildkitd.sock", "frakti.sock":
		return true
	}
	return false
}

// powerful are the capabilities with which others can be had.
var powerful = []string{
	"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH",
	"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETFCAP", "CAP_CHOWN", "CAP_FOWNER", "CAP_MKNOD", "CAP_SYS_CHROOT",
	"CAP_BPF", "CAP_PERFMON", "CAP_SYS_BOOT", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE",
}

// capabilities are all that there are, by number.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// capabilityMask is the set of named capabilities, a bit each.
func capabilityMask(names []string) (uint64, error) {
	var mask uint64
	for _, n := range names {
		i := slices.Index(capabilities, n)
		if i < 0 {
			return 0, fmt.Errorf("there is no capability %q: names are as in capabilities(7), such as CAP_NET_ADMIN", n)
		}
		mask |= 1 << i
	}
	return mask, nil
}

// Check says what is wrong with the rights, or nil.
func (r Rights) Check() error {
	for _, p := range slices.Concat(r.Sockets, r.Paths, r.HostSockets, r.HostPaths) {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
			return fmt.Errorf("a plugin's need %q must be an absolute path of something, without . and ..", p)
		}
		for _, own := range []string{SocketDir, TempDir, StateDir, ProgramAt} {
			if p == own || strings.HasPrefix(own, p+"/") {
				return fmt.Errorf("a plugin's need %q would cover %s, which is the plugin's own: name what it needs in there", p, own)
			}
		}
	}
	for _, own := range []string{SocketDir, StateDir, ProgramAt} {
		if r.HostRoot == own || strings.HasPrefix(r.HostRoot, own+"/") {
			return fmt.Errorf("the host's root can't be mounted at %s for plugins, which have their own there: mount it elsewhere, such as at /host", r.HostRoot)
		}
	}
	_, err := capabilityMask(r.Capabilities)
	return err
}

// Granted are the rights as lines for an operator: "socket /run/x.sock", ...
func (r Rights) Granted() []string {
	var out []string
	for _, s := range r.SocketPlaces() {
		out = append(out, "socket "+s.String())
	}
	for _, p := range r.PathPlaces() {
		out = append(out, "read "+p.String())
	}
	if r.State != "" {
		out = append(out, "write "+r.State)
	}
	for _, c := range r.Capabilities {
		out = append(out, "capability "+c)
	}
	if r.Network {
		out = append(out, "network")
	}
	if r.Root {
		out = append(out, "user root")
	}
	return out
}
