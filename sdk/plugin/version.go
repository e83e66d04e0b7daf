package plugin

import "runtime/debug"

// version is written by the linker and by nobody else:
// -ldflags "-X github.com/ebpf-tracer/ebpf-tracer/sdk/plugin.version=v1.2.3".
var version string

// Version is the version of the program: the one that its build stamped it with,
// or else what the Go tool wrote into it, the module's version or "devel" with the
// commit it was built from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = "+" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel" + revision + dirty
}
