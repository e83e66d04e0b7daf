package plugin

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// parentPoll is how often the parent's pid is looked at, should neither the
// kernel's signal nor the pipe have told of its end.
const parentPoll = time.Second

// watchParent calls gone once when the daemon has died. The kernel kills a
// plugin with its parent where the daemon could ask for it; this is for where
// it could not, and for the moment between fork and asking.
//
// It returns when ctx is done, or after calling gone.
func watchParent(ctx context.Context, gone func()) {
	parent := os.Getppid()
	closed := make(chan struct{})
	if stdinIsPipe() {
		// The daemon holds the other end and never writes. The read can't be
		// interrupted; it ends with the process.
		go func() {
			defer close(closed)
			_, _ = io.Copy(io.Discard, os.Stdin)
		}()
	}
	tick := time.NewTicker(parentPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-closed:
			gone()
			return
		case <-tick.C:
			if os.Getppid() != parent {
				gone()
				return
			}
		}
	}
}

func stdinIsPipe() bool {
	var st unix.Stat_t
	return unix.Fstat(0, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}
