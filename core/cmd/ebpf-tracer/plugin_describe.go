package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/daemon"
	"github.com/ebpf-tracer/ebpf-tracer/core/plugindoc"
)

func newPluginDescribe() *cobra.Command {
	var file, dir string
	var output choice
	cmd := &cobra.Command{
		Use:   "describe [NAME|KIND/NAME]",
		Short: "Say what a plugin does and how it is configured",
		Long: `Say what a plugin does, what its manifest asks for and which arguments and blocks its
configuration has, as the plugin itself tells it. The plugin is only asked; it is
neither configured nor does it need root. Without a name all plugins are listed.

The plugins are those beside this program; with --config those that 'run' would find
with that file, with --dir those of that directory, laid out as KIND/NAME.`,
		Example: `  ebpf-tracer plugin describe
  ebpf-tracer plugin describe discoverer/docker
  ebpf-tracer plugin describe threshold -o hcl >> config.hcl`,
		Args: oneWord,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" && dir != "" {
				return errors.New("--config and --dir both say where plugins are: give one of them")
			}
			return action(func(cmd *cobra.Command, args []string) error {
				o := options(cmd, file)
				o.PluginDir = dir
				name := ""
				if len(args) > 0 {
					name = args[0]
				}
				all, err := daemon.Describe(cmd.Context(), o, name)
				if err != nil && len(all) == 0 {
					return err
				}
				return errors.Join(descriptionFormats()[output.is](cmd.OutOrStdout(), all, name == ""), err)
			})(cmd, args)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "`file` that says where plugins are, .hcl or .hcl.json")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` of plugins")
	outputFlag(cmd, &output, "text", "markdown", "json", "hcl")
	completeFiles(cmd, "config")
	if err := cmd.MarkFlagDirname("dir"); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// descriptionFormats write one plugin, or a list of them.
func descriptionFormats() map[string]func(w io.Writer, all []plugindoc.Plugin, list bool) error {
	each := func(one func(io.Writer, plugindoc.Plugin) error) func(io.Writer, []plugindoc.Plugin, bool) error {
		return func(w io.Writer, all []plugindoc.Plugin, _ bool) error {
			for i, p := range all {
				if i > 0 {
					if _, err := io.WriteString(w, "\n"); err != nil {
						return err
					}
				}
				if err := one(w, p); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return map[string]func(io.Writer, []plugindoc.Plugin, bool) error{
		"json": func(w io.Writer, all []plugindoc.Plugin, _ bool) error { return plugindoc.JSON(w, all) },
		"hcl":  each(plugindoc.HCL),
		"text": func(w io.Writer, all []plugindoc.Plugin, list bool) error {
			if list {
				return listPlugins(w, all)
			}
			return each(plugindoc.Text)(w, all, list)
		},
		"markdown": func(w io.Writer, all []plugindoc.Plugin, list bool) error {
			if list {
				return plugindoc.MarkdownIndex(w, all)
			}
			return each(plugindoc.Markdown)(w, all, list)
		},
	}
}

func listPlugins(w io.Writer, all []plugindoc.Plugin) error {
	t := newTable(w, "KIND", "NAME", "VERSION", "DOES")
	for _, p := range all {
		t.row(string(p.Manifest.Kind), p.Manifest.Name, p.Version, p.Summary())
	}
	return t.flush()
}
