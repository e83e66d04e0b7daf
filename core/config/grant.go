package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Grant is something that the operator's own words let a plugin use: the value of
// an argument whose schema says that it opens it. Defaults give no grants.
type Grant struct {
	// Opens is schema.Socket, schema.Path or schema.Network.
	Opens schema.Opens
	// Value is an absolute, clean path of a Socket or Path; of a Network the
	// text as it was written.
	Value string
	// Range is where the value stands.
	Range Range
	// Hidden: the value is sensitive or came from the environment. It is not
	// to be shown.
	Hidden bool
}

// Grants are what the operator wrote for arguments that open something, in
// nested blocks, lists and maps too, in the order in which the schema has them.
func (c PluginConfig) Grants() []Grant { return c.grants }

// scheme begins an address.
var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)

// grant reads what a value opens. Empty text opens nothing. A path must be
// absolute: what is relative means something else to the plugin, which runs in
// a directory and a view of the file system of its own.
func grant(value string, a *schema.Attribute, name string, this func(string) string) (Grant, *fault) {
	g := Grant{Opens: a.Opens, Value: value}
	if value == "" || a.Opens == schema.Nothing || a.Opens == schema.Network {
		return g, nil
	}
	path, form := value, `an absolute path, such as "/run/name"`
	if a.Opens == schema.Socket {
		form = `the absolute path of a socket, "/run/name.sock" or "unix:///run/name.sock", or an address with its scheme`
		var unix bool
		if path, unix = strings.CutPrefix(value, "unix://"); !unix && scheme.MatchString(value) {
			g.Opens = schema.Network
			return g, nil
		}
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return g, &fault{"Malformed path", fmt.Sprintf("%s wants %s%s.", name, form, this(strconv.Quote(value)))}
	}
	g.Value = filepath.Clean(path)
	return g, nil
}
