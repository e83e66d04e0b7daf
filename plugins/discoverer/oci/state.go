package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/oci"
)

// Files of a container's directory in a root. A runtime waits at the fifo until somebody
// opens it: it is looked at by its name only.
const (
	stateFile  = "state.json"        // runc's and youki's
	statusFile = "status"            // crun's
	configFile = "config.json"       // crun's copy of the bundle's
	youkiFile  = "youki_config.json" // where youki puts the cgroup
	startFifo  = "exec.fifo"         // runc's and crun's: there from create to start
)

// maxState bounds each file that is read. runc's state has 30 KiB with a seccomp
// profile; labels make it grow.
const maxState = oci.MaxSpec

// state is what a runtime keeps of a container.
type state struct {
	pid     uint32
	start   uint64 // of the process, in clock ticks since boot; 0: not told
	created int64  // nanoseconds since the epoch; 0: not told
	bundle  string
	// cgroup is the path on the default hierarchy, as the runtime sees that; freezer
	// that of the controller of v1. "": not told.
	cgroup  string
	freezer string
	status  string      // youki's word: creating, created, running, stopped, paused
	fifo    bool        // created, and not started
	running bool        // the runtime has got as far as to a process
	spec    *specs.Spec // nil: none is kept
	// limits are those now in force, where the runtime keeps them apart from what the
	// bundle said.
	limits *specs.LinuxResources
	// sure: what spec does not say is not so. whole: it is the bundle's own, with all
	// that it says of the process.
	sure, whole bool
}

// errNoState says that a container's directory has no state yet, or none any more.
var errNoState = errors.New("there is no state")

// readState reads what a runtime keeps of a container in its directory of a root. An
// error that is not errNoState comes with what could be read, or nil.
func readState(root *os.Root, id string) (*state, error) {
	s, err := readKinds(root, id)
	if s != nil {
		if s.cgroup == "/" { // it was not told: no container is in the host's own
			s.cgroup = ""
		}
		_, ferr := root.Lstat(path.Join(id, startFifo))
		s.fifo = ferr == nil
	}
	return s, err
}

func readKinds(root *os.Root, id string) (*state, error) {
	raw, err := readFile(root, path.Join(id, stateFile))
	switch {
	case err == nil:
		var kind struct {
			Status string `json:"status"`
		}
		if json.Unmarshal(raw, &kind) == nil && kind.Status != "" {
			return readYouki(root, id, raw)
		}
		return readRunc(raw)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return readCrun(root, id)
}

// stateStamp tells a state that was written from the one before.
type stateStamp struct {
	written int64
	size    int64
}

func stamp(root *os.Root, id string) stateStamp {
	for _, name := range []string{stateFile, statusFile, configFile} {
		if st, err := root.Lstat(path.Join(id, name)); err == nil {
			return stateStamp{st.ModTime().UnixNano(), st.Size()}
		}
	}
	return stateStamp{}
}

// crunStatus is crun's status, as far as it is read.
type crunStatus struct {
	PID     uint32    `json:"pid"`
	Start   uint64    `json:"process-start-time"`
	Cgroup  string    `json:"cgroup-path"`
	Scope   string    `json:"scope"`
	Bundle  string    `json:"bundle"`
	Created time.Time `json:"created"`
}

// readCrun reads what crun keeps. The configuration is there before the cgroup is, the
// status follows with the process.
func readCrun(root *os.Root, id string) (*state, error) {
	out := &state{}
	config, err := readFile(root, path.Join(id, configFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var broken error
	if err == nil {
		out.spec, broken = oci.DecodeBytes(config)
		out.sure, out.whole = broken == nil, broken == nil
		if out.spec != nil && out.spec.Linux != nil {
			out.cgroup = oci.CgroupPath(out.spec.Linux.CgroupsPath)
		}
	}
	raw, err := readFile(root, path.Join(id, statusFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if out.spec == nil {
			return nil, errNoState // not yet, or half written
		}
		if out.cgroup == "" && (out.spec.Linux == nil || out.spec.Linux.CgroupsPath == "") {
			out.cgroup = "/" + id
		}
		return out, broken
	case err != nil:
		return nil, err
	}
	var s crunStatus
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", statusFile, err)
	}
	out.pid, out.start, out.bundle, out.created = s.PID, s.Start, s.Bundle, unixNano(s.Created)
	out.running = s.PID != 0
	if s.Cgroup != "" {
		out.cgroup = path.Clean("/" + s.Cgroup)
	}
	return out, broken
}

// youkiState is youki's state, as far as it is read.
type youkiState struct {
	Status      string            `json:"status"`
	PID         uint32            `json:"pid"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations"`
	Created     time.Time         `json:"created"`
	Systemd     bool              `json:"useSystemd"`
}

func readYouki(root *os.Root, id string, raw []byte) (*state, error) {
	var s youkiState
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", stateFile, err)
	}
	out := &state{
		status: s.Status, pid: s.PID, bundle: s.Bundle, created: unixNano(s.Created), running: s.PID != 0,
		spec: &specs.Spec{Annotations: s.Annotations},
	}
	config, err := readFile(root, path.Join(id, youkiFile))
	if errors.Is(err, fs.ErrNotExist) {
		if !out.running {
			return nil, errNoState // it comes before the cgroup does
		}
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	var c struct {
		Cgroup string `json:"cgroup_path"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return out, fmt.Errorf("read %s: %w", youkiFile, err)
	}
	if out.cgroup = path.Clean("/" + c.Cgroup); s.Systemd {
		out.cgroup = oci.CgroupPath(c.Cgroup)
	}
	return out, nil
}

// readFile reads a regular file of at most maxState bytes, without being led out of the
// root and without waiting at what is no file.
func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return readAll(f)
}

// readAll reads an open file and closes it.
func readAll(f *os.File) ([]byte, error) {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is no regular file", f.Name())
	}
	if st.Size() > maxState {
		return nil, fmt.Errorf("read %s of %d bytes: %w", f.Name(), st.Size(), oci.ErrTooLarge)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if len(raw) > maxState {
		return nil, fmt.Errorf("read %s of more than %d bytes: %w", f.Name(), maxState, oci.ErrTooLarge)
	}
	return raw, nil
}

// readBundle reads the specification of a bundle.
func readBundle(dir string) (*specs.Spec, error) {
	f, err := os.OpenFile(path.Join(dir, "config.json"), os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	raw, err := readAll(f)
	if err != nil {
		return nil, err
	}
	return oci.DecodeBytes(raw)
}

// unixNano is 0 for a time that is none.
func unixNano(t time.Time) int64 {
	if t.Year() < 1970 || t.Year() > 2261 {
		return 0
	}
	return t.UnixNano()
}

// onDefault gives the path of a cgroup on the default hierarchy of where it is mounted:
// runc keeps such paths, a key for each hierarchy.
func onDefault(cgroups map[string]string) string {
	at := cgroups[""]
	if at == "" {
		return ""
	}
	mounts := []string{"/sys/fs/cgroup"}
	if len(cgroups) > 1 { // there are hierarchies of v1 beside it
		mounts = []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}
	}
	for _, m := range mounts {
		if rest, ok := strings.CutPrefix(at, m+"/"); ok && len(rest) <= describe.MaxName {
			return path.Clean("/" + rest)
		}
	}
	return ""
}
