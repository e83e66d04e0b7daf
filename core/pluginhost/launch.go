package pluginhost

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/place"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// start is what a process of a plugin is started with.
type start struct {
	entry     Entry
	rights    sandbox.Rights
	memory    int64 // bytes; 0: no limit
	processes int64 // and threads; 0: no limit
	env       []string
}

// Bounds of a plugin that an operator can't set.
const (
	maxOpenFiles = 4096
	maxFileBytes = 256 << 20
	// dataSlack is what a language's runtime maps beyond what it uses: Go's
	// heap comes in pieces of 64 MiB.
	dataSlack = 256 << 20
)

// asked starts a plugin that is only asked: it has no rights at all.
func asked(e Entry) start {
	return start{entry: e, memory: askedMemory, processes: askedProcesses}
}

const (
	askedMemory    = 256 << 20
	askedProcesses = 256
)

// working starts a plugin that is to work: with what its manifest asks for and what
// the operator wrote in its configuration.
func (h *Host) working(s Spec) (start, error) {
	dir, err := h.stateDir(s.Entry)
	if err != nil {
		return start{}, err
	}
	needs := s.Entry.Manifest.Needs
	return start{
		entry: s.Entry, rights: Rights(needs, s.Grants, dir, h.opts.HostRoot),
		memory: s.Memory, processes: s.Processes, env: needs.Env,
	}, nil
}

// Rights are what a plugin is let use: its manifest's needs, and what the operator
// wrote where its schema says that it opens something. A socket that is written
// $NAME is the one that the daemon's variable NAME tells. What the manifest names it
// may also use below hostRoot, where the host's root directory is mounted; "": nowhere.
// The operator's words are about what the daemon sees.
func Rights(needs config.Needs, grants []config.Grant, stateDir, hostRoot string) sandbox.Rights {
	r := sandbox.Rights{
		State: stateDir, Paths: slices.Clone(needs.Paths), Capabilities: slices.Clone(needs.Capabilities),
		Network: needs.Network, Root: needs.Root, HostRoot: hostRoot,
	}
	if hostRoot != "" {
		r.HostPaths = slices.Clone(needs.Paths)
	}
	for _, s := range needs.Sockets {
		name, variable := strings.CutPrefix(s, "$")
		if variable {
			s = strings.TrimPrefix(os.Getenv(name), "unix://")
		}
		switch {
		case filepath.IsAbs(s):
			r.Sockets = append(r.Sockets, filepath.Clean(s))
			if hostRoot != "" && !variable {
				r.HostSockets = append(r.HostSockets, filepath.Clean(s))
			}
		case variable && s != "":
			r.Network = true // the operator's own word, as an address
		case !variable:
			r.Sockets = append(r.Sockets, s) // which is refused
		}
	}
	for _, g := range grants {
		switch g.Opens {
		case schema.Socket:
			r.Sockets = append(r.Sockets, g.Value)
		case schema.Path:
			r.Paths = append(r.Paths, g.Value)
		case schema.Network:
			r.Network = true
		}
	}
	for _, list := range []*[]string{&r.Sockets, &r.Paths, &r.HostSockets, &r.HostPaths} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return r
}

// prepare makes the plan of a start for an instance whose own directory is dir.
func (h *Host) prepare(s start, program *os.File, dir string, group *cgroup) (sandbox.Plan, Confinement, error) {
	path, files := s.entry.Program, s.entry.Dir
	if b := s.entry.Bundle; b != nil {
		path, files = b.Path(), b.Dir
	}
	r := sandbox.Request{
		Name: s.entry.String(), Rights: s.rights, Path: path, Dir: files, Args: s.entry.Args, SocketDir: dir, Groups: group.later(),
		Limits: sandbox.Limits{OpenFiles: maxOpenFiles, FileBytes: maxFileBytes},
	}
	if shared := h.shared.Load(); shared != nil {
		r.Shared = shared.reason.Error()
	} else {
		r.NewRoot = filepath.Join(dir, "root")
		if err := os.Mkdir(r.NewRoot, 0o700); err != nil {
			return sandbox.Plan{}, Confinement{}, fmt.Errorf("make a root for the plugin: %w", err)
		}
	}
	bounds := group.bound(s.memory, s.processes, &r.Limits)
	system, err := dynamic(program, path)
	if err != nil {
		return sandbox.Plan{}, Confinement{}, err
	}
	r.System = system
	if h.opts.RequireSandbox {
		r.Required, r.Lacking = true, bounds.NotApplied
	}
	plan, err := sandbox.Prepare(r)
	return plan, bounds, err
}

// bound caps memory and processes in the control group, and by limits of the process
// where no group can.
func (g *cgroup) bound(memory, processes int64, limits *sandbox.Limits) (c Confinement) {
	failed := g.limit(memory, processes)
	if g != nil && g.unified != "" {
		c.Applied = append(c.Applied, "own control group")
	} else {
		c.NotApplied = append(c.NotApplied, "own control group: no cgroup2 hierarchy can be written")
	}
	if err := failed[memoryController]; err != nil {
		limits.DataBytes = memory + dataSlack
		c.NotApplied = append(c.NotApplied, fmt.Sprintf("memory of all its processes: %v", err))
	} else if memory > 0 {
		c.Applied = append(c.Applied, fmt.Sprintf("at most %d MiB of memory", memory>>20))
	}
	if err := failed[pidsController]; err != nil && os.Geteuid() != 0 {
		// A limit by user would count all that this user runs.
		c.NotApplied = append(c.NotApplied, fmt.Sprintf("number of its processes: %v", err))
	} else if err != nil {
		limits.Processes = processes
	} else if processes > 0 {
		c.Applied = append(c.Applied, fmt.Sprintf("at most %d processes and threads", processes))
	}
	return c
}

// dynamic tells whether a program needs the system's libraries.
func dynamic(program io.ReaderAt, path string) (bool, error) {
	f, err := elf.NewFile(program)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) {
			return false, fmt.Errorf("%s is no program that Linux can execute by itself: name its interpreter in command, and the script in files", path)
		}
		return false, fmt.Errorf("read the program: %w", err)
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

// passPlan writes the plan where the child reads it. It is smaller than what a pipe
// holds, or it is refused.
func passPlan(to *os.File, p sandbox.Plan) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	const pipeHolds = 64 << 10
	if len(raw) >= pipeHolds {
		return fmt.Errorf("what the plugin is given takes %d bytes, more than %d: give it less of the environment", len(raw), pipeHolds)
	}
	if _, err := to.Write(raw); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	return nil
}

// readReport reads what the child tells, until it has become the plugin or ended.
func readReport(from *os.File) (sandbox.Report, error) {
	dec := json.NewDecoder(io.LimitReader(from, 64<<10))
	var r sandbox.Report
	told := false
	for {
		var next sandbox.Report
		err := dec.Decode(&next)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r, fmt.Errorf("read what the sandbox reports: %w", err)
		}
		r, told = next, true
	}
	if r.NoRoot {
		return r, &noRootError{errors.New(r.Error)}
	}
	switch {
	case !told:
		return r, errors.New("it ended before it was confined")
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

// sandboxError is why a plugin could not be confined; nothing of it has run.
type sandboxError struct{ err error }

func (e *sandboxError) Error() string { return "confine it: " + e.err.Error() }
func (e *sandboxError) Unwrap() error { return e.err }

// give makes the plugin the owner of what it may write to on the host.
func (h *Host) give(p sandbox.Plan, state, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var own []string
	if state != "" {
		own = append(own, state)
	}
	if !p.Confine {
		own = append(own, dir)
	}
	for _, d := range own {
		if err := chownAll(d, int(p.UID), int(p.GID)); err != nil {
			return fmt.Errorf("give %s to the plugin: %w", d, err)
		}
	}
	return nil
}

// chownAll gives a directory and all in it to a user, unless it has it already. It
// follows no symbolic link: what is in there is the plugin's.
func chownAll(dir string, uid, gid int) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == uid && int(sys.Gid) == gid {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, uid, gid)
	})
	if err != nil {
		return err
	}
	return root.Lchown(".", uid, gid) // last: it says that all of it is done
}

// movedError says that something a plugin may use is not what it was given.
type movedError struct {
	place  place.Place
	socket bool
}

func (e *movedError) Error() string {
	what := ""
	if e.socket {
		what = "the socket "
	}
	return fmt.Sprintf("%s%s is another one now", what, e.place)
}

// reach is what a process can reach of the host, as it was at its start.
type reach struct {
	places  []place.Place
	sockets int      // those of them that come first
	given   []string // their identities
}

// reached notes what there is. A process that is started afterwards can reach that, or
// what came since.
func reached(r sandbox.Rights) reach {
	sockets := r.SocketPlaces()
	out := reach{places: append(sockets, r.PathPlaces()...), sockets: len(sockets)}
	for _, p := range out.places {
		out.given = append(out.given, p.Identity())
	}
	return out
}

// moved tells of what came, or was put in the place of another, since the process was
// started: what a process can reach is settled at its start. What went is left alone,
// since a process without it could do no better.
func (r reach) moved() error {
	for n, p := range r.places {
		if now := p.Identity(); now != "" && now != r.given[n] {
			return &movedError{p, n < r.sockets}
		}
	}
	return nil
}

// Confinement is what a process of a plugin may do, and what it may not.
type Confinement struct {
	UID            uint32
	Applied        []string // measures in force
	NotApplied     []string // those that this host can't take, with the reason
	Granted        []string // what it may use: "socket /run/x.sock", ...
	RootEquivalent string   // why it could become root of the host; "": no reason is known
}

// confinement is complete once the process has become the plugin.
func (i *instance) confinement() Confinement {
	c := i.bounds
	c.Granted, c.RootEquivalent = i.rights.Granted(), i.rights.RootEquivalent()
	p := i.run.process()
	if p == nil {
		return c
	}
	select {
	case <-p.confined:
		c.UID = p.sandbox.UID
		c.Applied = append(slices.Clone(c.Applied), p.sandbox.Applied...)
		c.NotApplied = append(slices.Clone(c.NotApplied), p.sandbox.NotApplied...)
	default:
	}
	return c
}

// checkProtocol says in a sentence that a plugin and this daemon have no protocol in
// common.
func checkProtocol(speaks int) error {
	switch {
	case speaks < wire.OldestProtocol:
		return fmt.Errorf("it speaks protocol %d, and the oldest that this daemon speaks is %d: install a newer version of the plugin", speaks, wire.OldestProtocol)
	case speaks > wire.ProtocolVersion:
		return fmt.Errorf("it speaks protocol %d, and the newest that this daemon speaks is %d: install a newer daemon, or an older version of the plugin", speaks, wire.ProtocolVersion)
	}
	return nil
}

// noRootError says why a plugin can't have a root directory and namespaces of its own
// where this daemon runs.
type noRootError struct{ reason error }

func (e *noRootError) Error() string {
	return fmt.Sprintf("it can't have a root directory of its own (%v): let the daemon run as root with CAP_SYS_ADMIN, and let it mount, or set plugins { sandbox = \"best-effort\" }", e.reason)
}
func (e *noRootError) Unwrap() error { return e.reason }

// without tells whether a start that failed is to be tried again, because from now on
// plugins have no root of their own. Otherwise it returns the start's error.
func (h *Host) without(err error) (again bool, _ error) {
	var lacks *noRootError
	if !errors.As(err, &lacks) || h.opts.RequireSandbox {
		return false, err
	}
	if h.shared.Load() == nil { // two that find it out at a time do no harm
		if err := h.shareRoot(lacks); err != nil {
			return false, err
		}
	}
	return true, nil
}

// shareRoot lets all plugins, from now on, see the host's files as far as their user
// and Landlock let them. The directories above theirs must let them through.
func (h *Host) shareRoot(why *noRootError) error {
	h.log.Warn("plugins get no root directory of their own: what other measures keep from them is all that is", "reason", why.reason)
	dirs := []string{h.dir}
	if state := h.opts.StateDir; state != "" {
		dirs = append(dirs, state)
		for _, k := range []config.PluginKind{config.Discoverer, config.Mesh, config.Sampler} {
			dirs = append(dirs, filepath.Join(state, string(k)))
		}
	}
	for _, d := range dirs {
		st, err := os.Stat(d)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(d, 0o711); err == nil {
				st, err = os.Stat(d)
			}
		}
		if err == nil && st.Mode().Perm()&0o001 == 0 {
			err = os.Chmod(d, st.Mode().Perm()|0o011)
		}
		if err != nil {
			return fmt.Errorf("let plugins into %s: %w", d, err)
		}
	}
	h.shared.Store(why)
	return nil
}
