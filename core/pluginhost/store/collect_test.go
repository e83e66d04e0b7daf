package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// bundles are what a store holds, finished or not.
func bundles(t testing.TB, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Name() != lockName {
			names = append(names, f.Name())
		}
	}
	return names
}

func TestOfWhatNobodyUsesTheLastOnesAreKept(t *testing.T) {
	f, dir := plugin(t), t.TempDir()
	s := open(t, dir)
	held := take(t, s, f) // in use, however old
	age(t, held.Dir, 10*keepFor)
	names := unused(t, s, f, keepMost+4)
	if err := os.MkdirAll(filepath.Join(dir, unfinished+"x", "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "notes.txt"), "of the operator", 0o644)
	open(t, dir)
	left := bundles(t, dir)
	for n, name := range names {
		if slices.Contains(left, name) != (n < keepMost) {
			t.Errorf("of %d unused that taken %d hours ago is there: %v", len(names), n, n >= keepMost)
		}
	}
	if !slices.Contains(left, held.Digest) || !slices.Contains(left, "notes.txt") || slices.Contains(left, unfinished+"x") {
		t.Errorf("what is in use or another's is gone, or what was not finished is not: %v", left)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if slices.Contains(bundles(t, dir), held.Digest) {
		t.Error("given back, the old one is still there")
	}
}

func TestWhatNobodyHasUsedForLongIsRemoved(t *testing.T) {
	f, dir := plugin(t), t.TempDir()
	s := open(t, dir)
	names := unused(t, s, f, 3)
	age(t, filepath.Join(dir, names[1]), keepFor+time.Hour)
	age(t, filepath.Join(dir, names[2]), keepFor-time.Hour)
	open(t, dir)
	if left := bundles(t, dir); slices.Contains(left, names[1]) || len(left) != 2 {
		t.Errorf("the store has %v", left)
	}
}

// unused stores variants of a plugin, the first taken now, each other an hour before
// the last one.
func unused(t *testing.T, s *Store, f Files, many int) (names []string) {
	t.Helper()
	for n := range many {
		write(t, filepath.Join(f.Dir, "one"), fmt.Sprint(n), 0o755)
		b := take(t, s, f)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		age(t, b.Dir, time.Duration(n)*time.Hour)
		names = append(names, b.Digest)
	}
	return names
}

func age(t *testing.T, path string, by time.Duration) {
	t.Helper()
	if err := os.Chtimes(path, time.Now(), time.Now().Add(-by)); err != nil {
		t.Fatal(err)
	}
}

func TestManyStoresOnOneDirectoryDoNotDisturbOneAnother(t *testing.T) {
	dir := t.TempDir()
	f := plugin(t)
	want := take(t, open(t, ""), f).Digest
	failed := make(chan error, 8)
	for range cap(failed) {
		go func() {
			failed <- func() error {
				for range 20 {
					s, err := Open(context.Background(), dir, slog.New(slog.DiscardHandler))
					if err != nil {
						return err
					}
					b, err := s.Take(context.Background(), f)
					if err != nil {
						return err
					}
					if b.Digest != want {
						return fmt.Errorf("digest %s, not %s", b.Digest, want)
					}
					if _, err := os.Stat(b.Path()); err != nil {
						return err
					}
					if err := errors.Join(b.Close(), s.Close()); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if left := bundles(t, dir); len(left) != 1 {
		t.Errorf("the store has %v", left)
	}
}
