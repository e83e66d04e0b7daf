// Package arch holds the import rules of the repository and tests them. A rule is
// a sentence and a pure function over packages and what they import, so that each
// can be shown to fail. .golangci.yml says the same to a linter.
//
// Test files and what is below test/ are exempt: a test may start what its package
// must not know.
package arch

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the root module's path, and the prefix of every package of ours.
const Module = "github.com/ebpf-tracer/ebpf-tracer/"

// Package is one package and the paths that its files, other than tests, import.
type Package struct {
	Path    string
	Imports []string
}

// stages are the packages of core that do a part of the work, each with what
// belongs to it. Who imports more than two of them wires.
var stages = []string{
	"core/kernel", "core/pipeline", "core/inventory", "core/load", "core/pluginhost",
	"core/exporter", "core/api", "core/resource", "core/namespace",
}

// wiring are the packages that may import any number of stages.
var wiring = []string{"core/daemon", "core/cmd"}

// A Rule is one sentence about imports.
type Rule struct {
	// Sentence is what a violation is reported with.
	Sentence string
	// Broken gives the imports of p that the rule forbids.
	Broken func(p Package) []string
}

// Rules are all of them.
func Rules() []Rule {
	return []Rule{
		{
			"the SDK imports nothing of ours but itself",
			func(p Package) []string {
				if !within(p.Path, "sdk") {
					return nil
				}
				return matching(p.Imports, func(i string) bool { return ours(i) && !within(i, "sdk") })
			},
		},
		{
			"a plugin imports, of ours, only the SDK and its own packages",
			func(p Package) []string {
				if !within(p.Path, "plugins") {
					return nil
				}
				return matching(p.Imports, func(i string) bool {
					return ours(i) && !within(i, "sdk") && i != p.Path && !strings.HasPrefix(i, pluginOf(p.Path)+"/")
				})
			},
		},
		{
			"a third party's plugin imports, of ours, only the SDK",
			func(p Package) []string {
				if ours(p.Path) {
					return nil
				}
				return matching(p.Imports, func(i string) bool { return ours(i) && !within(i, "sdk") })
			},
		},
		{
			"core never imports a plugin",
			func(p Package) []string {
				if !within(p.Path, "core") {
					return nil
				}
				return matching(p.Imports, func(i string) bool { return within(i, "plugins") })
			},
		},
		{
			"core imports nothing of the tests or the examples",
			func(p Package) []string {
				if !within(p.Path, "core") {
					return nil
				}
				return matching(p.Imports, func(i string) bool { return within(i, "test") || within(i, "examples") })
			},
		},
		{
			"only core/daemon and core/cmd import more than two stages",
			func(p Package) []string {
				if !within(p.Path, "core") || withinAny(p.Path, wiring) {
					return nil
				}
				var used []string
				for _, s := range stages {
					if slices.ContainsFunc(append([]string{p.Path}, p.Imports...), func(i string) bool { return within(i, s) }) {
						used = append(used, Module+s)
					}
				}
				if own := slices.IndexFunc(stages, func(s string) bool { return within(p.Path, s) }); own >= 0 {
					used = slices.DeleteFunc(used, func(u string) bool { return u == Module+stages[own] })
				}
				if len(used) <= 2 {
					return nil
				}
				return used
			},
		},
		{
			"only core/daemon and core/cmd import core/daemon",
			func(p Package) []string {
				if within(p.Path, "test") || withinAny(p.Path, wiring) {
					return nil
				}
				return matching(p.Imports, func(i string) bool { return within(i, "core/daemon") })
			},
		},
		{
			"core/event is a leaf",
			func(p Package) []string {
				if !within(p.Path, "core/event") {
					return nil
				}
				return matching(p.Imports, ours)
			},
		},
		only("core/kernel", []string{"core/kernel", "bpf"}, "imports cilium/ebpf", "github.com/cilium/ebpf"),
		only("core/kernel", []string{"core/kernel"}, "imports package bpf", Module+"bpf"),
		only("sdk/plugin and core/pluginhost", []string{"sdk/plugin", "core/pluginhost"}, "import go-plugin",
			"github.com/hashicorp/go-plugin"),
		only("sdk/plugin and core/pluginhost", []string{"sdk/plugin", "core/pluginhost"}, "import go-hclog",
			"github.com/hashicorp/go-hclog"),
		only("core/config and sdk/schema", []string{"core/config", "sdk/schema"}, "import HCL or cty",
			"github.com/hashicorp/hcl", "github.com/zclconf/go-cty"),
	}
}

// only makes the rule that no package but those in allowed imports any of the
// paths, or what is below them.
func only(who string, allowed []string, what string, paths ...string) Rule {
	return Rule{
		"only " + who + " " + what,
		func(p Package) []string {
			if !ours(p.Path) || within(p.Path, "test") || withinAny(p.Path, allowed) {
				return nil
			}
			return matching(p.Imports, func(i string) bool {
				return slices.ContainsFunc(paths, func(path string) bool { return below(i, path) })
			})
		},
	}
}

// Violations are sentences, one for each rule that a package breaks.
func Violations(packages []Package) []string {
	var out []string
	for _, r := range Rules() {
		for _, p := range packages {
			if broken := r.Broken(p); len(broken) > 0 {
				out = append(out, fmt.Sprintf("%s: %s imports %s", r.Sentence, p.Path, strings.Join(broken, ", ")))
			}
		}
	}
	return out
}

// pluginOf is the path of the plugin that a package belongs to:
// plugins/KIND/NAME.
func pluginOf(path string) string {
	parts := strings.SplitN(strings.TrimPrefix(path, Module), "/", 4)
	return Module + strings.Join(parts[:min(3, len(parts))], "/")
}

func ours(path string) bool { return strings.HasPrefix(path+"/", Module) }

// within tells whether a package is dir, a directory of the repository, or below.
func within(path, dir string) bool { return below(path, Module+dir) }

func withinAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return within(path, dir) })
}

func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func matching(paths []string, forbidden func(string) bool) []string {
	var out []string
	for _, p := range paths {
		if forbidden(p) {
			out = append(out, p)
		}
	}
	return out
}
