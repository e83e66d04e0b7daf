package process

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// block is a sampler's configuration.
type block struct {
	json     []byte
	grants   []config.Grant
	limits   config.PluginHost
	interval time.Duration // between reports, for a sampler that asks for none
}

// readBlock reads a sampler's block of a file; of "" it is empty.
func readBlock(filename, name string, s schema.Block) (*block, error) {
	var file *config.File
	var found config.Diagnostics
	if filename == "" {
		file, found = config.Parse("an-empty-block.hcl", fmt.Appendf(nil, "sampler %q {}\n", name))
	} else {
		file, found = config.ReadFile(filename)
	}
	if found.HasErrors() {
		return nil, refused(found)
	}
	// What is wrong with other plugins' blocks is not looked at.
	var own config.Diagnostics
	configs, found := file.DecodePlugins(func(ref config.PluginRef) (schema.Block, error) {
		if ref.Kind != config.Sampler || ref.Name != name {
			return schema.Block{}, errOther
		}
		return s, nil
	})
	for _, c := range configs {
		if c.Ref.Kind == config.Sampler && c.Ref.Name == name {
			return &block{json: c.JSON, grants: c.Grants(), limits: c.Ref.Host, interval: file.Config.Load.Interval}, nil
		}
	}
	for _, d := range found {
		if !strings.Contains(d.Detail, errOther.Error()) {
			own = append(own, d)
		}
	}
	switch {
	case len(own) == 0:
		return nil, fmt.Errorf("%s names no sampler %q: add a block of that name", filename, name)
	case filename == "":
		return nil, fmt.Errorf("an empty block is not enough for it: name a configuration with --config FILE:\n%w", refused(own))
	}
	return nil, refused(own)
}

// refused is what is wrong with a configuration, each mistake at its place.
func refused(found config.Diagnostics) error {
	var b strings.Builder
	if err := found.Write(&b, config.TextOptions{}); err != nil {
		return err
	}
	return errors.New(strings.TrimRight(b.String(), "\n"))
}

// errOther marks the findings about plugins that are not rehearsed.
var errOther = errors.New("it is not the sampler that is rehearsed")
