package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/scaffold"
)

func newPluginNew() *cobra.Command {
	var sdk, dir string
	cmd := &cobra.Command{
		Use:   "new discoverer|mesh|sampler NAME",
		Short: "Begin a plugin in Go: a module that builds and passes its tests",
		Long: `Make a directory with the beginning of a plugin: a Go module that builds, passes its
own tests and runs under the daemon at once. An existing directory is never touched.

The SDK comes with each release, in the directory sdk; name it with --sdk. Without it
the module's go.mod says what to write there.`,
		Example: `  ebpf-tracer plugin new discoverer acme --sdk ./sdk
  ebpf-tracer plugin new sampler acme --sdk /usr/share/ebpf-tracer/sdk --dir src/acme`,
		Args: words("KIND", "NAME"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{string(config.Discoverer), string(config.Mesh), string(config.Sampler)}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: action(func(cmd *cobra.Command, args []string) error {
			s, err := scaffold.Make(scaffold.Options{Kind: config.PluginKind(args[0]), Name: args[1], SDK: sdk, Dir: dir})
			if err != nil {
				return err
			}
			next := "make test"
			if sdk == "" {
				next = "(write into go.mod where the SDK is, then: go mod tidy)\n  make test"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Made %s with %d files. Next:\n\n  cd %s\n  %s\n  ebpf-tracer run --config config.hcl\n",
				s.Dir, len(s.Files), s.Dir, next)
			return err
		}),
	}
	cmd.Flags().StringVar(&sdk, "sdk", "", "`directory` of the SDK")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` to make (default NAME, here)")
	for _, flag := range []string{"sdk", "dir"} {
		if err := cmd.MarkFlagDirname(flag); err != nil {
			panic(err) // there is no such flag
		}
	}
	return cmd
}
