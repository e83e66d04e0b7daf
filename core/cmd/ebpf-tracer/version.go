package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
)

// build is what a program was built from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go_version"`
	Kernel   string `json:"kernel,omitempty"` // that a daemon runs on
}

// Written by the linker (-ldflags "-X main.version=v1.2.3"), as `make build` does.
var version, revision string

// readBuild reads what the linker or else the Go tool has put into this program.
func readBuild() build {
	b := build{Version: "devel", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value + b.Revision
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Revision += "+dirty"
		}
	}
	if version != "" {
		b.Version, b.Revision = version, revision
	}
	return b
}

func newVersion() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the running daemon",
		Example: `  ebpf-tracer version
  ebpf-tracer version -o json`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error { return showVersion(cmd, &a) }),
	}
	a.flags(cmd, "table", "json")
	return cmd
}

func showVersion(cmd *cobra.Command, a *asking) error {
	out := cmd.OutOrStdout()
	program := readBuild()
	// Without a daemon, or the right to ask it, there is still the program's own.
	var running *build
	if c, err := client.Dial(cmd.Context(), a.socket); err == nil {
		v, err := c.Version(cmd.Context())
		if err == nil {
			running = &build{v.GetVersion(), v.GetRevision(), v.GetGoVersion(), v.GetKernel()}
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	if a.json() {
		return writeJSON(out, map[string]any{"program": program, "daemon": running})
	}
	t := newTable(out, "", "VERSION", "REVISION", "GO", "KERNEL")
	t.row("program", program.Version, program.Revision, program.Go, "")
	if running != nil {
		t.row("daemon", running.Version, running.Revision, running.Go, running.Kernel)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if running == nil {
		_, err := fmt.Fprintf(out, "no daemon answers at %s\n", a.socket)
		return err
	}
	return nil
}
