package sdktest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream receives the messages of a plugin's stream until it ends, and lets a test
// wait for what they add up to.
type stream struct {
	t      testing.TB
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each message
	err     error         // why the stream ended
}

// receive starts the goroutine that takes messages; take is called with mu held.
func (s *stream) receive(recv func() error) {
	s.ended, s.changed = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.ended)
		for {
			err := recv()
			s.mu.Lock()
			s.err = err
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	s.t.Cleanup(s.Close)
}

// await waits until ok, which is called with mu held, or fails the test.
func (s *stream) await(what string, ok func() bool) {
	s.t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		s.mu.Lock()
		is, changed, err := ok(), s.changed, s.err
		s.mu.Unlock()
		switch {
		case is:
			return
		case err != nil:
			s.t.Fatalf("the stream ended before %s: %v", what, ended(err))
		}
		select {
		case <-changed:
		case <-late.C:
			s.t.Fatalf("after %v there was never %s", Patience, what)
		}
	}
}

// ended says why a stream ended in the plugin's own words.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the plugin's method returned, without an error; it must run until its context is done")
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.Aborted {
		return errors.New(s.Message())
	}
	return err
}

// Err is why the stream has ended; nil while it runs.
func (s *stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return ended(s.err)
}

// Close ends the stream, as the daemon does before it opens another. The end of the
// test closes it too.
func (s *stream) Close() {
	s.cancel()
	<-s.ended
}
