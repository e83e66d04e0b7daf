// Command wanderer is a discoverer of a runtime that is a file: it is here while the file
// is, and its first word is its mood. Its arguments are what it is called and the file.
//
//	here    it works: it tells one container, that is called as it is
//	hang    it never says whether it is here
//	crash   it dies when it is asked
//	lie     it says that it is here, and then can't discover anything
//	once    it takes its configuration once, and refuses it from then on
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/discover"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/plugin"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

type config struct {
	Says string `json:"says"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: wanderer NAME FILE")
		os.Exit(2)
	}
	name, file := os.Args[1], os.Args[2]
	says := schema.Attribute{Name: "says", Type: schema.String, Default: ""}
	if name == "needy" {
		says = schema.Attribute{Name: "says", Type: schema.String, Required: true}
	}
	plugin.Serve(plugin.Discoverer[config]{
		Name: name, Version: "1", Doc: "A runtime that is a file.", Schema: schema.Block{Attributes: []schema.Attribute{says}},
		New: func(_ context.Context, c config, env plugin.Env) (discover.Discoverer, error) {
			w := &wanderer{name: name, file: file, says: c.Says}
			if w.mood() != "once" {
				return w, nil
			}
			before := filepath.Join(env.StateDir, "before")
			if _, err := os.Stat(before); err == nil {
				return nil, errors.New("once was enough")
			}
			return w, os.WriteFile(before, nil, 0o600)
		},
	})
}

type wanderer struct{ name, file, says string }

func (w *wanderer) mood() string {
	text, err := os.ReadFile(w.file)
	if err != nil {
		return ""
	}
	mood, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return mood
}

func (w *wanderer) Detect(context.Context) (string, error) {
	switch w.mood() {
	case "":
		return "no " + filepath.Base(w.file), discover.ErrAbsent
	case "hang":
		select {}
	case "crash":
		go func() { panic("nobody is to know") }()
		select {}
	}
	return "at " + filepath.Base(w.file), nil
}

func (w *wanderer) Discover(ctx context.Context, _ discover.Host, inv discover.Inventory) error {
	if w.mood() == "lie" {
		return errors.New("there is nothing to discover")
	}
	name := w.name
	if w.says != "" {
		name += "-" + w.says
	}
	err := errors.Join(inv.Reset(), inv.Container(&protov1.Container{
		Id: fmt.Sprintf("%064x", w.name), Name: name, State: protov1.Container_STATE_RUNNING,
	}), inv.Synced())
	if err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}
