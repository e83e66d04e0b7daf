package config

import (
	"fmt"
	"slices"
)

// later are the words that a later release will understand. They are refused
// by name, so that a setting is never silently without effect.
type later struct{}

// notSupported ends in what the operator is to do about it.
const notSupported = "Not supported by this version"

func (later) block(word string) bool {
	return word == "tenant"
}

// label of one of the core's blocks.
func (later) label(word, label string) bool {
	return word == "exporter" && label == "otlp"
}

// plugin that is to ship with a later release. One of that name that is found
// is somebody else's, and welcome.
func (later) plugin(kind PluginKind, name string) bool {
	return slices.Contains(map[PluginKind][]string{
		Discoverer: {"kubernetes"},
		Mesh:       {"istio", "linkerd", "consul"},
	}[kind], name)
}

func (later) sentence(what string) string {
	return fmt.Sprintf("%s is not supported by this version: it comes with a later release. Take it out of the configuration.", what)
}
