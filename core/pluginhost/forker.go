package pluginhost

import (
	"errors"
	"os/exec"
	"runtime"
)

// errStopped says that the host has ended.
var errStopped = errors.New("the plugin host has stopped")

// forker starts processes from one thread that lives as long as the host. The
// kernel's parent-death signal is sent when the *thread* that forked ends, and Go
// ends threads as it likes: from any other thread a plugin could be killed at any
// moment, or, without the signal, outlive a daemon that was killed.
type forker struct {
	jobs chan forkJob
	done chan struct{}
}

type forkJob struct {
	cmd    *exec.Cmd
	result chan error
}

func newForker() *forker {
	f := &forker{jobs: make(chan forkJob), done: make(chan struct{})}
	go f.run()
	return f
}

func (f *forker) run() {
	// Never unlocked: when this returns the thread ends, and the kernel kills
	// what was started from it and is still there.
	runtime.LockOSThread()
	defer close(f.done)
	for j := range f.jobs {
		j.result <- j.cmd.Start()
	}
}

// start is cmd.Start on the forker's thread. It must not be called after stop.
func (f *forker) start(cmd *exec.Cmd) error {
	j := forkJob{cmd: cmd, result: make(chan error, 1)}
	select {
	case f.jobs <- j:
		return <-j.result
	case <-f.done:
		return errStopped
	}
}

// stop ends the thread.
func (f *forker) stop() {
	close(f.jobs)
	<-f.done
}
