package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/mesh"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/sampling"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Env is what a plugin is given besides its configuration.
type Env struct {
	Node *protov1.Node
	// StateDir is the plugin's own directory, kept over restarts; "": none.
	StateDir string
	// Features are what the daemon knows beyond the first edition of the
	// protocol. A message that narrows what an earlier one means may be sent
	// only to a daemon that lists it.
	Features []string
	// Log goes to the daemon's log, under the plugin's name. It is safe for
	// concurrent use and never waits for long.
	Log *slog.Logger
}

// Kind is what Serve takes: a Discoverer, a Detector or a Sampler. A value of it only
// describes; it may be served any number of times.
type Kind interface{ definition() definition }

// Discoverer is a plugin that finds the workloads of one runtime. C is the
// author's configuration, filled by encoding/json.
type Discoverer[C any] struct {
	Name    string // as in the manifest: a-z, 0-9 and -
	Version string
	Doc     string // one paragraph of plain text
	Schema  schema.Block
	// Validate checks what a schema can't say. It does no I/O and may be nil.
	Validate func(C) diag.Diagnostics
	// New is called once, with a configuration that Validate had no error
	// about. ctx is done when the process is asked to end. A diag.Diagnostic or
	// diag.Refusal as error is shown at its place in the configuration.
	// A runtime that is away is no error here: that is Detect's and Discover's.
	New func(ctx context.Context, c C, env Env) (discover.Discoverer, error)
}

// Detector is a plugin that tells the service mesh of workloads. Its fields
// are those of Discoverer.
type Detector[C any] struct {
	Name     string
	Version  string
	Doc      string
	Schema   schema.Block
	Validate func(C) diag.Diagnostics
	New      func(ctx context.Context, c C, env Env) (mesh.Detector, error)
}

// Sampler is a plugin that answers the load with policies. Its fields are those
// of Discoverer.
type Sampler[C any] struct {
	Name     string
	Version  string
	Doc      string
	Schema   schema.Block
	Validate func(C) diag.Diagnostics
	New      func(ctx context.Context, c C, env Env) (sampling.Sampler, error)
}

// definition is a plugin without its type parameter.
type definition struct {
	kind      protov1.Kind
	name      string
	version   string
	doc       string
	schema    schema.Block
	validate  func(config []byte) diag.Diagnostics
	configure func(ctx context.Context, config []byte, env Env) error
	register  func(r grpc.ServiceRegistrar, p *process)
	// interval, of a sampler, is what it asks for once configured; else nil.
	interval func() time.Duration
}

func (d Discoverer[C]) definition() definition {
	s := &discovererServer{slot: newSlot()}
	return definition{
		kind: protov1.Kind_KIND_DISCOVERER, name: d.Name, version: d.Version, doc: d.Doc, schema: d.Schema,
		validate: validator(d.Validate),
		configure: configurer(d.New, func(impl discover.Discoverer, env Env) {
			s.impl, s.node = impl, env.Node
		}),
		register: func(r grpc.ServiceRegistrar, p *process) {
			s.process = p
			protov1.RegisterDiscovererServer(r, s)
		},
	}
}

func (d Detector[C]) definition() definition {
	s := &detectorServer{slot: newSlot()}
	return definition{
		kind: protov1.Kind_KIND_MESH, name: d.Name, version: d.Version, doc: d.Doc, schema: d.Schema,
		validate:  validator(d.Validate),
		configure: configurer(d.New, func(impl mesh.Detector, _ Env) { s.impl = impl }),
		register: func(r grpc.ServiceRegistrar, p *process) {
			s.process = p
			protov1.RegisterDetectorServer(r, s)
		},
	}
}

func (d Sampler[C]) definition() definition {
	s := &samplerServer{slot: newSlot()}
	return definition{
		kind: protov1.Kind_KIND_SAMPLER, name: d.Name, version: d.Version, doc: d.Doc, schema: d.Schema,
		validate:  validator(d.Validate),
		configure: configurer(d.New, func(impl sampling.Sampler, _ Env) { s.impl = impl }),
		register: func(r grpc.ServiceRegistrar, p *process) {
			s.process = p
			protov1.RegisterSamplerServer(r, s)
		},
		interval: s.interval,
	}
}

// decode fills an author's configuration.
func decode[C any](raw []byte) (C, error) {
	var c C
	if len(bytes.TrimSpace(raw)) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) && te.Field != "" {
			return c, diag.Errorf(diag.Path{diag.Attr(te.Field)}, "wrong type",
				"the plugin reads %q as %s but was given a %s: its schema and its configuration disagree", te.Field, te.Type, te.Value)
		}
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	return c, nil
}

func validator[C any](check func(C) diag.Diagnostics) func([]byte) diag.Diagnostics {
	return func(raw []byte) diag.Diagnostics {
		c, err := decode[C](raw)
		if err != nil {
			return diagnostics(err)
		}
		if check == nil {
			return nil
		}
		return check(c)
	}
}

func configurer[C, T any](build func(context.Context, C, Env) (T, error), use func(T, Env)) func(context.Context, []byte, Env) error {
	return func(ctx context.Context, raw []byte, env Env) error {
		c, err := decode[C](raw)
		if err != nil {
			return err
		}
		impl, err := build(ctx, c, env)
		if err != nil {
			return err
		}
		use(impl, env)
		return nil
	}
}

// diagnostics is what an author's error says about the configuration.
func diagnostics(err error) diag.Diagnostics {
	if err == nil {
		return nil
	}
	var many *diag.Refusal
	if errors.As(err, &many) {
		return many.Diagnostics
	}
	var one diag.Diagnostic
	if errors.As(err, &one) {
		return diag.Diagnostics{one}
	}
	return diag.Diagnostics{{Severity: diag.Error, Summary: "plugin refused the configuration", Detail: err.Error()}}
}
