package daemon

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/schemas"
)

// asker runs plugins only to ask them, and keeps what they say of themselves.
type asker struct {
	*pluginhost.Host
	kept *schemas.Cache
}

// asker makes one; close must follow.
func (o Options) asker() (*asker, error) {
	kept, err := o.schemas()
	if err != nil {
		return nil, err
	}
	host, err := pluginhost.New(pluginhost.Options{
		NoCgroups: true, Schemas: kept, Log: newLogger(o.Stderr, config.Log{Level: "error"}),
	})
	if err != nil {
		return nil, errors.Join(err, kept.Close())
	}
	return &asker{host, kept}, nil
}

func (a *asker) close() error { return errors.Join(stopHost(a.Host), a.kept.Close()) }

// schemas opens what is kept of the plugins' descriptions. Who is not root could
// protect none, and has none.
func (o Options) schemas() (*schemas.Cache, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	return schemas.Open(filepath.Join(o.stateDir(), "schemas"))
}
