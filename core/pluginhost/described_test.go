package pluginhost

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/schemas"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/store"
)

// takenEntry is the test plugin, its files taken.
func takenEntry(t testing.TB) Entry {
	t.Helper()
	s, err := store.Open(context.Background(), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	e := testSpec(t, config.Discoverer, nil).Entry
	if err := e.Take(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Bundle.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func schemaCache(t testing.TB) *schemas.Cache {
	t.Helper()
	c, err := schemas.Open(filepath.Join(t.TempDir(), "schemas"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestAPluginThatIsKnownIsNotRunToBeAsked(t *testing.T) {
	cache := schemaCache(t)
	h, e := newHost(t, Options{Schemas: cache}), takenEntry(t)
	if d, ok := h.Described(e); ok {
		t.Fatalf("known before it was asked: %+v", d)
	}
	asked, err := h.Describe(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	stopped := newHost(t, Options{Schemas: cache, NoCgroups: true})
	if err := stopped.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A host that has stopped can start nothing.
	kept, err := stopped.Describe(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if kept.Version != asked.Version || kept.Doc != asked.Doc || len(kept.Schema.Attributes) != len(asked.Schema.Attributes) || len(kept.Schema.Blocks) != 1 {
		t.Errorf("kept %+v, asked %+v", kept, asked)
	}
	if _, ok := h.Described(testSpec(t, config.Discoverer, nil).Entry); ok {
		t.Error("known by files that were not taken")
	}
}

func TestWhatIsKeptIsHeldAgainstTheManifestToo(t *testing.T) {
	cache := schemaCache(t)
	h, e := newHost(t, Options{Schemas: cache}), takenEntry(t)
	want, err := h.Describe(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	raw := cache.Get(e.Bundle.Digest)
	raw.Name = "other"
	if err := cache.Put(e.Bundle.Digest, raw); err != nil {
		t.Fatal(err)
	}
	if d, ok := h.Described(e); ok {
		t.Errorf("it took %+v", d)
	}
	if d, err := h.Describe(t.Context(), e); err != nil || d.Name != want.Name {
		t.Errorf("got %+v %v", d, err)
	}
	if again := cache.Get(e.Bundle.Digest); again.GetName() == "other" || proto.Equal(again, raw) {
		t.Error("it was not written anew")
	}
}

// BenchmarkDescribe is what it costs to learn what a plugin says of itself: from its
// process, and from what is kept.
func BenchmarkDescribe(b *testing.B) {
	for name, cache := range map[string]*schemas.Cache{"asked": nil, "kept": schemaCache(b)} {
		b.Run(name, func(b *testing.B) {
			h, e := newHost(b, Options{Schemas: cache}), takenEntry(b)
			if _, err := h.Describe(b.Context(), e); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := h.Describe(b.Context(), e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("in a session", func(b *testing.B) {
		s, err := newHost(b, Options{}).Open(b.Context(), takenEntry(b))
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		for b.Loop() {
			if _, err := s.Describe(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
